// All torrents.

import { beforeFrame, el, empty, icon, setAttr, setHidden, setText, visible } from "../common/dom.js";
import { bytes, dateTime, number, percent, plural, rate, span } from "../common/format.js";
import { List } from "../common/list.js";
import { MiddleCut } from "../common/middle_cut.js";
import { isPaused, toggle } from "./actions.js";
import { add } from "./add.js";
import { Filters } from "./filters.js";
import { showMenuBelow } from "./menu.js";
import { Overview } from "./overview.js";
import { Selection } from "./selection.js";
import { share } from "./share.js";
import { done, doneOf, meterClass, part, stateClass, stateWords } from "./words.js";

const ORDERS = {
  name: (a, b) => a.order.localeCompare(b.order) || (a.info_hash < b.info_hash ? -1 : 1),
  size: (a, b) => a.bytes - b.bytes,
  progress: (a, b) => a.part - b.part,
  down: (a, b) => a.download_rate - b.download_rate,
  up: (a, b) => a.upload_rate - b.upload_rate,
  eta: (a, b) => (a.eta ?? Infinity) - (b.eta ?? Infinity) || 0,
  ratio: (a, b) => a.ratio - b.ratio,
  peers: (a, b) => a.peers - b.peers,
  added: (a, b) => a.added_at - b.added_at,
  state: (a, b) => a.state.localeCompare(b.state),
};

/** Orders in which the smallest comes first when they are chosen. */
const RISING = new Set(["name", "eta", "state"]);

const PAUSE = "M4 3h3v10H4zM9 3h3v10H9z";
const PLAY = "M4.5 2.5v11l9-5.5z";
const MORE = "M3 6.5h2.6v2.6H3zM6.7 6.5h2.6v2.6H6.7zM10.4 6.5H13v2.6h-2.6z";

/** Milliseconds between counts of what the filters show: all torrents are looked at. */
const COUNT_EVERY = 700;

const narrow = matchMedia("(max-width: 640px)");

export class TorrentList {
  constructor({ total }) {
    this.total = total;
    this.stream = "/events";
    this.torrents = new Map();
    /** How many torrents have a name. */
    this.names = new Map();
    this.fresh = null;
    this.ready = false;
    this.order = { name: "name", descending: false };
    this.words = "";
    this.sortAgain = true;
    this.counted = 0;
    this.handlers = {
      torrent: (torrent) => this.#take(torrent),
      removed: (hash) => this.#drop(hash),
      ready: () => this.#isReady(),
    };
    this.#build();
    this.refresh = () => this.#refresh();
    this.relay = () => this.#changed(false);
    narrow.addEventListener("change", this.relay);
    setHidden(this.list.node, true);
  }

  #build() {
    const columns = [
      { name: "sel", label: "Select", class: "sel", hide: true },
      { name: "name", label: "Name", class: "name" }, { name: "size", label: "Size", class: "num mid" },
      { name: "progress", label: "Done", class: "num" }, { name: "down", label: "Down", class: "num" },
      { name: "up", label: "Up", class: "num mid" }, { name: "eta", label: "Left", class: "num" },
      { name: "ratio", label: "Ratio", class: "num wide" }, { name: "peers", label: "Peers", class: "num wide" },
      { name: "added", label: "Added", class: "num wide" }, { name: "state", label: "State" },
      { name: "act", label: "Pause or resume, and more", class: "act", hide: true },
    ];
    for (const column of columns) if (ORDERS[column.name]) column.sort = (name) => this.#sortBy(name);
    this.list = new List({
      label: "Torrents", klass: "torrents", reuse: true, columns, key: (t) => t.info_hash,
      rowHeight: () => (narrow.matches ? 88 : 58),
      make: (row, cells) => this.#make(row, cells), show: (row, cells, torrent) => this.#show(row, cells, torrent),
    });
    this.list.sorted("name", false);
    this.selection = new Selection(this.list, this.torrents, () => this.list.set(this.list.items));
    this.filters = new Filters(() => this.#changed(true));
    this.overview = new Overview();
    this.search = el("input", { type: "search", id: "search", placeholder: "Find by name, label or folder", ariaLabel: "Find by name, label or folder", oninput: () => {
      this.words = this.search.value.trim().toLowerCase();
      this.#changed(true);
    } });
    this.search.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown") {
        event.preventDefault();
        this.selection.focus(0);
      } else if (event.key === "Escape" && this.search.value === "") this.search.blur();
    });
    this.count = el("p", { class: "soft small", role: "status" });
    this.blank = el("div", {});
    const h1 = el("h1", { class: "sr", text: "Torrents" });
    const tools = el("div", { class: "tools" }, el("div", { class: "grow" }, this.search),
      el("button", { type: "button", id: "share", text: "Share …", onclick: () => share() }),
      el("button", { type: "button", class: "main", id: "add", text: "Add …", onclick: () => add() }));
    this.node = el("div", { class: "drop" }, h1, this.overview.node,
      el("div", { class: "card" }, tools, this.filters.node, this.blank, this.list.node, this.count), this.selection.bar);
  }

  start() {
    this.overview.load();
  }

  close() {
    this.list.close();
    this.overview.close();
    clearTimeout(this.counting);
    narrow.removeEventListener("change", this.relay);
  }

  /** Keys that mean the list wherever the focus is: gives whether it was one. */
  key(event) {
    if (event.key === "/") this.search.focus();
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") this.selection.focus(0);
    else return false;
    return true;
  }

  /** A stream begins: it tells all torrents first; which it does not are gone. */
  opened() {
    this.fresh = new Set();
  }

  #isReady() {
    if (this.fresh) for (const hash of [...this.torrents.keys()]) if (!this.fresh.has(hash)) this.#forget(hash);
    this.fresh = null;
    this.ready = true;
    this.#changed(true);
  }

  #take(torrent) {
    this.fresh?.add(torrent.info_hash);
    const old = this.torrents.get(torrent.info_hash);
    if (old?.name !== torrent.name) {
      if (old) this.#named(old.name, -1);
      this.#named(torrent.name, 1);
    }
    torrent.order = old?.name === torrent.name ? old.order : torrent.name.toLowerCase();
    torrent.part = part(torrent);
    this.torrents.set(torrent.info_hash, torrent);
    // By name the order changes only with what there is.
    this.#changed(!old || old.name !== torrent.name || this.order.name !== "name" || !this.filters.isAll);
  }

  #named(name, by) {
    const count = (this.names.get(name) ?? 0) + by;
    if (count > 0) this.names.set(name, count);
    else this.names.delete(name);
  }

  #forget(hash) {
    const old = this.torrents.get(hash);
    if (old) this.#named(old.name, -1);
    this.torrents.delete(hash);
  }

  #drop(hash) {
    this.#forget(hash);
    this.#changed(true);
  }

  #sortBy(name) {
    const { order } = this;
    this.order = { name, descending: order.name === name ? !order.descending : !RISING.has(name) };
    this.list.sorted(name, this.order.descending);
    this.#changed(true);
  }

  #changed(sort) {
    this.sortAgain ||= sort;
    beforeFrame(this.refresh);
  }

  #fits(torrent) {
    if (!this.filters.fits(torrent)) return false;
    const { words } = this;
    return words === "" || torrent.order.includes(words) || torrent.info_hash.startsWith(words)
      || torrent.folder.toLowerCase().includes(words) || torrent.settings.labels.some((label) => label.toLowerCase().includes(words));
  }

  #refresh() {
    let [down, up] = [0, 0];
    for (const torrent of this.torrents.values()) {
      down += torrent.download_rate;
      up += torrent.upload_rate;
    }
    this.total({ down, up });
    this.overview.show({ down, up });
    this.#countSoon();
    if (this.sortAgain) {
      this.sortAgain = false;
      const shown = [];
      for (const torrent of this.torrents.values()) if (this.#fits(torrent)) shown.push(torrent);
      const compare = ORDERS[this.order.name];
      const sign = this.order.descending ? -1 : 1;
      shown.sort((a, b) => sign * compare(a, b) || ORDERS.name(a, b));
      this.order.keys = shown.map((torrent) => torrent.info_hash);
    }
    const items = this.order.keys.map((hash) => this.torrents.get(hash));
    this.#sayEmpty(items.length);
    this.list.set(items);
    this.selection.keep(items);
  }

  #countSoon() {
    this.counting ??= setTimeout(() => {
      this.counting = undefined;
      this.filters.count(this.torrents.values());
    }, this.counted++ === 0 ? 0 : COUNT_EVERY);
  }

  #sayEmpty(shown) {
    const all = this.torrents.size;
    setHidden(this.list.node, shown === 0);
    setHidden(this.filters.node, all === 0);
    setHidden(this.overview.node, all === 0);
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
        "Drop a .torrent file here, choose one with Add, share something with Share, or type one of these on the daemon's machine. The page then shows, piece by piece, who gave what.",
        "torrent-leech --torrent FILE.torrent", "torrent-seed --input FILE",
      ));
    }
  }

  #make(row, cells) {
    const [select, name, , , , , , , , , state, action] = cells;
    row.box = el("input", { type: "checkbox", tabIndex: -1 });
    select.append(row.box);
    row.link = el("a", {});
    row.cut = new MiddleCut(row.link);
    row.fill = el("i");
    row.meter = el("span", { class: "meter" }, row.fill);
    row.words = el("span", { class: "words" });
    row.moves = el("span", { class: "moves" });
    row.about = el("span", { class: "about line" });
    name.append(row.link, row.meter, el("span", { class: "sub" }, row.words), el("span", { class: "foot" }, row.moves, row.about));
    row.state = el("span", { class: "state" });
    state.append(row.state);
    row.button = el("button", { type: "button", class: "icon", onclick: () => toggle(row.item) });
    row.glyph = row.button.appendChild(icon(PAUSE));
    row.more = el("button", { type: "button", class: "icon plain-icon", "aria-haspopup": "menu", onclick: () => showMenuBelow(row.more, this.selection.meant(row.item)) }, icon(MORE));
    action.append(row.button, row.more);
    this.selection.attach(row, row.box);
  }

  #show(row, cells, torrent) {
    const picked = this.selection.has(torrent);
    const twin = this.names.get(torrent.name) > 1;
    if (row.shown === torrent && row.picked === picked && row.twin === twin) return;
    Object.assign(row, { shown: torrent, picked, twin });
    row.node.classList.toggle("picked", picked);
    row.box.checked = picked;
    const name = visible(torrent.name);
    setAttr(row.box, "aria-label", `Select ${name}`);
    row.cut.show(name);
    setAttr(row.link, "href", `#/t/${torrent.info_hash}`);
    const klass = meterClass(torrent);
    if (row.meter.className !== klass) row.meter.className = klass;
    const scale = `scaleX(${part(torrent).toFixed(3)})`;
    if (row.fill.style.transform !== scale) row.fill.style.transform = scale;
    const words = stateWords(torrent);
    const whole = part(torrent) >= 1;
    const left = whole ? "" : span(torrent.eta);
    const texts = [
      bytes(torrent.bytes), done(torrent), rate(torrent.download_rate), rate(torrent.upload_rate), left,
      torrent.ratio.toFixed(2), number(torrent.peers), dateTime(torrent.added_at),
    ];
    texts.forEach((text, i) => setText(cells[2 + i], text));
    setText(row.state, words);
    const state = stateClass(torrent);
    if (row.state.className !== state) row.state.className = state;
    setText(row.words, `${doneOf(torrent)} · ${words}`);
    const moves = [
      torrent.download_rate ? `↓ ${rate(torrent.download_rate)}` : "", torrent.upload_rate ? `↑ ${rate(torrent.upload_rate)}` : "",
      torrent.eta !== null && !whole ? left : "",
    ];
    setText(row.moves, moves.filter(Boolean).join(" · "));
    // Two of one name are told apart by where they lie and by what they are.
    const about = [torrent.error, twin ? `${torrent.info_hash.slice(0, 8)} in ${torrent.folder}` : null, ...torrent.settings.labels];
    const told = about.filter(Boolean).join(" · ");
    setText(row.about, told);
    setAttr(row.about, "title", told ? visible(told) : null);
    row.about.classList.toggle("bad", Boolean(torrent.error));
    const paused = isPaused(torrent);
    setAttr(row.glyph.firstChild, "d", paused ? PLAY : PAUSE);
    setAttr(row.button, "aria-label", `${paused ? "Resume" : "Pause"} ${name}`);
    setAttr(row.button, "title", paused ? "Resume" : "Pause");
    setAttr(row.more, "aria-label", `More for ${name}`);
    setAttr(row.more, "title", "More");
  }
}
