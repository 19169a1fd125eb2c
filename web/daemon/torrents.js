// All torrents.

import { beforeFrame, el, empty, icon, setAttr, setHidden, setText } from "../common/dom.js";
import { bytes, number, percent, plural, rate, span } from "../common/format.js";
import { List } from "../common/list.js";
import { add, isHashed, isPaused, remove, toggle } from "./actions.js";

const STATES = {
  checking: "checking", downloading: "downloading", seeding: "seeding", "queued-check": "waits for a check",
  "queued-download": "queued", "queued-seed": "queued", moving: "moving", paused: "paused", failed: "failed",
  hashing: "hashing", "queued-hash": "waits to be hashed",
};

const ORDERS = {
  name: (a, b) => a.order.localeCompare(b.order) || (a.info_hash < b.info_hash ? -1 : 1),
  progress: (a, b) => a.part - b.part,
  down: (a, b) => a.download_rate - b.download_rate,
  up: (a, b) => a.upload_rate - b.upload_rate,
  eta: (a, b) => (a.eta ?? Infinity) - (b.eta ?? Infinity) || 0,
  peers: (a, b) => a.peers - b.peers,
  state: (a, b) => a.state.localeCompare(b.state),
};

const FILTERS = {
  all: () => true,
  active: (t) => t.download_rate > 0 || t.upload_rate > 0,
  downloading: (t) => t.state === "downloading" || t.state === "queued-download",
  seeding: (t) => t.state === "seeding" || t.state === "queued-seed" || isHashed(t),
  paused: (t) => t.state === "paused",
  failed: (t) => t.state === "failed" || t.error !== null,
};

const PAUSE = "M4 3h3v10H4zM9 3h3v10H9z";
const PLAY = "M4.5 2.5v11l9-5.5z";

const narrow = matchMedia("(max-width: 640px)");

export function meterClass(torrent) {
  if (torrent.state === "failed") return "meter failed";
  if (torrent.state === "paused") return "meter idle";
  return part(torrent) >= 1 ? "meter done" : "meter";
}

export function stateClass(torrent) {
  const busy = torrent.state === "checking" || torrent.state === "moving" || torrent.state === "hashing";
  return `state ${busy ? "busy" : torrent.state}`;
}

export function stateWords(torrent) {
  if (torrent.state === "checking" || torrent.state === "hashing") return `${torrent.state} ${percent(torrent.check_progress, 1)}`;
  return torrent.stalled && torrent.state === "downloading" ? "stalled" : STATES[torrent.state] ?? torrent.state;
}

export function part(torrent) {
  if (isHashed(torrent)) return torrent.check_progress;
  if (torrent.bytes_wanted > 0) return torrent.bytes_wanted_have / torrent.bytes_wanted;
  // One that could not be hashed has no size.
  return torrent.state === "failed" ? 0 : 1;
}

/** How much of it is here, or is hashed. */
export function done(torrent) {
  return percent(part(torrent), 1);
}

/** The same with its size, which is not known before its files are found. */
export function doneOf(torrent) {
  return torrent.bytes_wanted === 0 && part(torrent) < 1 ? done(torrent) : `${done(torrent)} of ${bytes(torrent.bytes_wanted)}`;
}

export class TorrentList {
  constructor({ total }) {
    this.total = total;
    this.stream = "/events";
    this.probe = "/";
    this.torrents = new Map();
    this.fresh = null;
    this.ready = false;
    this.order = { name: "name", descending: false };
    this.show = "all";
    this.words = "";
    this.sortAgain = true;
    this.handlers = {
      torrent: (torrent) => this.#take(torrent),
      removed: (hash) => this.#drop(hash),
      ready: () => this.#isReady(),
    };
    const columns = [
      { name: "name", label: "Name", class: "name" }, { name: "progress", label: "Done", class: "num" },
      { name: "down", label: "Down", class: "num" }, { name: "up", label: "Up", class: "num wide" },
      { name: "eta", label: "Left", class: "num" }, { name: "peers", label: "Peers", class: "num wide" },
      { name: "state", label: "State" }, { name: "act", label: "Pause or resume", class: "act", hide: true },
    ];
    for (const column of columns) if (column.name !== "act") column.sort = (name) => this.#sortBy(name);
    this.list = new List({
      label: "Torrents", klass: "torrents", columns, key: (t) => t.info_hash,
      rowHeight: () => (narrow.matches ? 72 : 48), make, show,
    });
    this.list.sorted("name", false);
    const search = el("input", { type: "search", id: "search", placeholder: "Find by name", ariaLabel: "Find by name", oninput: () => {
      this.words = search.value.trim().toLowerCase();
      this.#changed(true);
    } });
    const filter = el("select", { ariaLabel: "Show", onchange: () => {
      this.show = filter.value;
      this.#changed(true);
    } }, Object.keys(FILTERS).map((name) => el("option", { value: name, text: name })));
    this.filter = filter;
    this.count = el("p", { class: "soft small", role: "status" });
    this.blank = el("div", {});
    const h1 = el("h1", { class: "sr", text: "Torrents" });
    const tools = el("div", { class: "tools" }, el("div", { class: "grow" }, search), filter,
      el("button", { type: "button", class: "main", id: "add", text: "Add …", onclick: add }));
    this.node = el("div", { class: "drop" }, h1, el("div", { class: "card" }, tools, this.blank, this.list.node, this.count));
    this.refresh = () => this.#refresh();
    this.relay = () => this.#changed(false);
    narrow.addEventListener("change", this.relay);
    setHidden(this.list.node, true);
  }

  close() {
    this.list.close();
    narrow.removeEventListener("change", this.relay);
  }

  /** A stream begins: it tells all torrents first; which it does not are gone. */
  opened() {
    this.fresh = new Set();
  }

  #isReady() {
    if (this.fresh) for (const hash of this.torrents.keys()) if (!this.fresh.has(hash)) this.torrents.delete(hash);
    this.fresh = null;
    this.ready = true;
    this.#changed(true);
  }

  #take(torrent) {
    this.fresh?.add(torrent.info_hash);
    const old = this.torrents.get(torrent.info_hash);
    torrent.order = old?.name === torrent.name ? old.order : torrent.name.toLowerCase();
    torrent.part = part(torrent);
    this.torrents.set(torrent.info_hash, torrent);
    // By name the order changes only with what there is.
    this.#changed(!old || old.name !== torrent.name || this.order.name !== "name" || this.show !== "all");
  }

  #drop(hash) {
    this.torrents.delete(hash);
    this.#changed(true);
  }

  #sortBy(name) {
    const { order } = this;
    this.order = { name, descending: order.name === name ? !order.descending : name !== "name" && name !== "eta" && name !== "state" };
    this.list.sorted(name, this.order.descending);
    this.#changed(true);
  }

  #changed(sort) {
    this.sortAgain ||= sort;
    beforeFrame(this.refresh);
  }

  #refresh() {
    let [down, up] = [0, 0];
    for (const torrent of this.torrents.values()) {
      down += torrent.download_rate;
      up += torrent.upload_rate;
    }
    this.total({ down, up });
    if (this.sortAgain) {
      this.sortAgain = false;
      const fits = FILTERS[this.show];
      this.order.keys = [];
      for (const torrent of this.torrents.values()) {
        if (fits(torrent) && (!this.words || torrent.order.includes(this.words) || torrent.info_hash.startsWith(this.words))) {
          this.order.keys.push(torrent);
        }
      }
      const compare = ORDERS[this.order.name];
      const sign = this.order.descending ? -1 : 1;
      this.order.keys.sort((a, b) => sign * compare(a, b) || ORDERS.name(a, b));
      this.order.keys = this.order.keys.map((torrent) => torrent.info_hash);
    }
    const items = this.order.keys.map((hash) => this.torrents.get(hash));
    this.#sayEmpty(items.length);
    this.list.set(items);
  }

  #sayEmpty(shown) {
    const all = this.torrents.size;
    setHidden(this.list.node, shown === 0);
    setText(this.count, shown === all ? (all > 20 ? plural(all, "torrent") : "") : `${number(shown)} of ${plural(all, "torrent")}`);
    const kind = shown > 0 ? "none" : !this.ready ? "wait" : all === 0 ? "first" : "filter";
    if (this.blank.dataset.kind === kind) return;
    this.blank.dataset.kind = kind;
    if (kind === "none") this.blank.replaceChildren();
    else if (kind === "wait") this.blank.replaceChildren(empty("Asking the daemon …", "Its torrents appear here."));
    else if (kind === "filter") this.blank.replaceChildren(empty("None of them", "No torrent fits what you look for. Clear the field, or show all."));
    else {
      this.blank.replaceChildren(empty(
        "No torrents yet",
        "Drop a .torrent file here, choose one with Add, or type one of these on the daemon's machine. The page then shows, piece by piece, who gave what.",
        "torrent-leech --torrent FILE.torrent", "torrent-seed --input FILE",
      ));
    }
  }
}

function make(row, cells) {
  const [name, , , , , , , action] = cells;
  row.link = el("a", { class: "line" });
  row.fill = el("i");
  row.meter = el("span", { class: "meter" }, row.fill);
  row.sub = el("span", { class: "sub line" });
  name.append(row.link, row.meter, row.sub);
  row.state = el("span", { class: "state" });
  cells[6].append(row.state);
  row.button = el("button", { type: "button", class: "icon", onclick: () => toggle(row.item) });
  row.glyph = row.button.appendChild(icon(PAUSE));
  action.append(row.button);
  row.node.addEventListener("keydown", (event) => {
    if (event.key === "Delete" && event.target === row.link) remove(row.item);
  });
}

function show(row, cells, torrent) {
  if (row.shown === torrent) return;
  row.shown = torrent;
  setText(row.link, torrent.name);
  setAttr(row.link, "href", `#/t/${torrent.info_hash}`);
  setAttr(row.link, "title", torrent.name);
  const klass = meterClass(torrent);
  if (row.meter.className !== klass) row.meter.className = klass;
  const scale = `scaleX(${part(torrent).toFixed(3)})`;
  if (row.fill.style.transform !== scale) row.fill.style.transform = scale;
  setText(cells[1], done(torrent));
  setText(cells[2], rate(torrent.download_rate));
  setText(cells[3], rate(torrent.upload_rate));
  setText(cells[4], part(torrent) >= 1 ? "" : span(torrent.eta));
  setText(cells[5], number(torrent.peers));
  const words = stateWords(torrent);
  setText(row.state, words);
  const state = stateClass(torrent);
  if (row.state.className !== state) row.state.className = state;
  const moves = torrent.download_rate ? ` · ${rate(torrent.download_rate)} down` : torrent.upload_rate ? ` · ${rate(torrent.upload_rate)} up` : "";
  const left = torrent.eta !== null && part(torrent) < 1 ? ` · ${span(torrent.eta)} left` : "";
  setText(row.sub, torrent.error ?? `${doneOf(torrent)} · ${words}${moves}${left}`);
  const paused = isPaused(torrent);
  setAttr(row.glyph.firstChild, "d", paused ? PLAY : PAUSE);
  setAttr(row.button, "aria-label", `${paused ? "Resume" : "Pause"} ${torrent.name}`);
  setAttr(row.button, "title", paused ? "Resume" : "Pause");
}
