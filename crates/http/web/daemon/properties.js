// All that was said and chosen about a torrent.

import { el, setHidden, setText } from "../common/dom.js";
import { bytes, dateTime, number, plural, rate, span } from "../common/format.js";
import { copy, download, isHashed, isLinked } from "./actions.js";
import { editLabels, editLimits, moveData } from "./changes.js";

/** A seeding limit in words. */
function limitWords(value, unit) {
  if (value === "session") return null;
  return value === "never" ? "never" : unit(value.at);
}

const ROWS = {
  hash: "Info-hash", magnet: "Magnet link", folder: "Folder", size: "Size", labels: "Labels", limits: "Limits", queue: "Place in the queue",
  added: "Added", started: "Last started", done: "Done", active: "Last moved a byte", time: "Time spent",
  private: "Private", made: "Made", comment: "Comment", file: "Its .torrent", source: "Source", webSeeds: "Web seeds, not used", nodes: "DHT nodes, not used", notices: "Notices",
};

const MONO = new Set(["hash", "magnet", "folder", "file", "webSeeds", "nodes"]);

/** The first of them; there may be many. */
const some = (list) => (list.length === 0 ? null : list.slice(0, 8).join(", ") + (list.length > 8 ? ` and ${number(list.length - 8)} more` : ""));

export class Properties {
  /** `torrent()` gives the torrent as it is now. */
  constructor(torrent) {
    this.values = {};
    const button = (id, label, run) => el("button", { type: "button", class: "plain", id, text: label, onclick: () => torrent() && run([torrent()]) });
    const tools = {
      hash: button("copy-hash", "Copy", ([one]) => copy(one.info_hash)), magnet: button("copy-magnet", "Copy", () => copy(this.magnet)), folder: button("edit-folder", "Move …", moveData),
      labels: button("edit-labels", "Edit …", editLabels), limits: button("edit-limits", "Edit …", editLimits),
      file: button("get-torrent", "Download", download),
    };
    this.rows = {};
    const rows = Object.entries(ROWS).map(([name, label]) => {
      this.values[name] = el("span", { class: MONO.has(name) ? "mono wrap" : "wrap" });
      return (this.rows[name] = el("div", {}, el("dt", { text: label }), el("dd", {}, this.values[name], tools[name] ?? null)));
    });
    this.node = el("dl", { class: "properties" }, rows);
  }

  /** `detail` is what `GET /torrents/{info_hash}` says besides, `sources` what `…/sources` says. */
  show(t, detail, sources) {
    const { settings: s } = t;
    const moment = (time) => (time === null ? null : dateTime(time));
    const limits = [
      s.download_limit ? `${rate(s.download_limit)} down` : null, s.upload_limit ? `${rate(s.upload_limit)} up` : null,
      s.max_peers ? plural(s.max_peers, "connection") : null, s.bandwidth === "normal" ? null : `${s.bandwidth} priority`,
      s.session_limits ? null : "not the daemon's", s.sequential ? "pieces in order" : null, s.forced ? "whatever the queue says" : null,
    ];
    const seeding = [
      limitWords(s.seed_ratio, (at) => `ratio ${at}`), limitWords(s.seed_time, (at) => span(at)), limitWords(s.seed_idle, (at) => `${span(at)} idle`),
    ].filter(Boolean);
    if (seeding.length > 0) limits.push(`seeding ends: ${seeding.join(", ")}`);
    const made = [detail?.created_by ? `by ${detail.created_by}` : null, detail?.created_at ? dateTime(detail.created_at) : null];
    const join = (parts) => parts.filter(Boolean).join(", ") || null;
    this.magnet = isHashed(t) ? null : detail?.magnet || null;
    const texts = {
      magnet: this.magnet,
      // Until all is hashed it has none: what it is listed under stands for the request.
      hash: isHashed(t) ? null : t.info_hash, folder: t.folder,
      size: isLinked(t) ? "known once its metadata is here" : `${bytes(t.bytes)} (${number(t.bytes)} bytes), ${plural(t.files, "file")}, ${plural(t.pieces, "piece")} of ${bytes(t.piece_length)}`,
      labels: s.labels.join(", ") || "none", limits: join(limits) ?? "none of its own", queue: number(t.queue_position + 1),
      added: moment(t.added_at), started: moment(t.started_at), done: moment(t.done_at), active: moment(t.active_at),
      time: join([t.seconds_downloading ? `${span(t.seconds_downloading)} downloading` : null, t.seconds_seeding ? `${span(t.seconds_seeding)} seeding` : null]),
      private: t.private ? "yes: peers come from its trackers alone" : null,
      made: join(made), comment: detail?.comment ?? null, file: detail?.torrent_file || null,
      source: sources?.source ?? null, webSeeds: some(sources?.web_seeds ?? []), nodes: some(sources?.nodes ?? []),
      notices: sources?.notices.map((notice) => `${notice}.`).join(" ") || null,
    };
    for (const [name, text] of Object.entries(texts)) {
      setText(this.values[name], text ?? "");
      setHidden(this.rows[name], text === null);
    }
  }
}
