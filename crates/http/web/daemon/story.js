// What happened to one piece.

import { debounce, el, setText } from "../common/dom.js";
import { bytes, plural, shortTime, timeOfDay } from "../common/format.js";
import { ask } from "../common/live.js";
import { shortRanges } from "../common/bits.js";
import { KEPT, MISSING } from "./map.js";

export class Story {
  constructor(path, paint) {
    Object.assign(this, { path, paint });
    this.piece = -1;
    this.owner = -1;
    this.swatch = el("canvas", { class: "swatch", width: 14, height: 14, "aria-hidden": "true" });
    this.name = el("span");
    this.what = el("small");
    this.title = el("h3", {}, this.swatch, this.name, this.what);
    this.entries = el("ol");
    this.hint = el("p", { class: "soft", text: "Point at a piece, or move there with the arrow keys, to see who gave it and when." });
    this.node = el("div", { class: "story" }, this.hint, this.title, this.entries);
    this.title.hidden = true;
    this.load = debounce(130, (piece) => this.#load(piece));
  }

  /** `owned`: `{ owner, kept, giver, failed }`. */
  show(piece, owned) {
    this.piece = piece;
    this.title.hidden = piece < 0;
    this.hint.hidden = piece >= 0;
    this.entries.replaceChildren();
    this.load.cancel();
    if (piece < 0) return;
    this.refresh(owned);
  }

  refresh({ owner, kept, giver, failed }) {
    setText(this.name, `Piece ${this.piece}`);
    const from = giver ? `from ${giver.peer}${giver.client ? `, ${giver.client}` : ""}` : "held";
    setText(this.what, `${owner === MISSING ? "not held" : owner === KEPT ? kept : from}${failed ? " · failed once" : ""}`);
    this.owner = owner;
    this.swatch.hidden = owner < 0;
    this.repaint();
    this.load(this.piece);
  }

  repaint() {
    if (this.owner >= 0) this.paint(this.owner, this.swatch);
  }

  async #load(piece) {
    let answer;
    try {
      answer = await ask(`${this.path}/pieces/${piece}`);
    } catch (fault) {
      if (piece === this.piece) this.entries.replaceChildren(el("li", {}, el("span"), el("span", { class: "bad", text: fault.message })));
      return;
    }
    if (piece !== this.piece) return;
    if (answer.story.length === 0) {
      const text = answer.state === "downloading" ? "It is being fetched." : answer.state === "verifying" ? "It is being verified." : "Nothing is recorded about it.";
      this.entries.replaceChildren(el("li", {}, el("span"), el("span", { class: "soft", text })));
      return;
    }
    this.entries.replaceChildren(...answer.story.map((entry) => el("li", {},
      el("time", { text: timeOfDay(entry.time) }), el("span", { class: entry.kind === "failed" || entry.kind === "banned" ? "bad" : "", text: sentence(entry) }))));
  }
}

/** An entry of a story in words. */
export function sentence(entry) {
  const who = `${entry.peer ?? "somebody"}${entry.client ? ` (${entry.client})` : ""}`;
  const count = entry.block_count ?? 0;
  const blocks = entry.blocks ? `block${/[-,]/.test(entry.blocks) ? "s" : ""} ${shortRanges(entry.blocks, 6)}` : count ? plural(count, "block") : "";
  const size = entry.bytes ? `, ${bytes(entry.bytes)}` : "";
  const took = entry.requested_at && entry.received_at ? `, ${shortTime(entry.requested_at, entry.received_at)} after the first request` : "";
  switch (entry.kind) {
    case "given": return `${who} gave ${blocks}${size}${took}${entry.verdict ? `: ${entry.verdict}` : ""}`;
    case "sent": return `sent ${blocks}${size} to ${who}`;
    case "failed": return `failed its hash; ${blocks} from ${who}${size}${proof(entry.evidence)}`;
    case "banned": return `${who} sent a wrong block and is banned${blocks ? `: ${blocks}` : ""}${proof(entry.evidence)}`;
    case "unused": return `${who} gave ${blocks}${size}, which nobody needed any more`;
    default: return `${entry.kind}: ${who} ${blocks}${size}`;
  }
}

/** The hashes that show that it was wrong: of the block, if it is known which one. */
function proof(evidence) {
  if (!evidence) return "";
  const { block_sent: sent, block_right: right } = evidence;
  if (sent && right) return `; block ${evidence.block} hashes to ${sent.slice(0, 12)}… instead of ${right.slice(0, 12)}…`;
  return `; the piece hashes to ${evidence.got.slice(0, 12)}… instead of ${evidence.expected.slice(0, 12)}…`;
}
