// The catalogue.

import { beforeFrame, debounce, el, empty, section, setAttr, setHidden, setText, visible } from "../common/dom.js";
import { bytes, dateTime, number, percent, plural } from "../common/format.js";
import { List } from "../common/list.js";
import { MiddleCut } from "../common/middle_cut.js";
import { ask } from "../common/live.js";

const ORDERS = {
  name: (a, b) => a.order.localeCompare(b.order) || (a.info_hash < b.info_hash ? -1 : 1),
  size: (a, b) => a.size - b.size,
  pieces: (a, b) => a.pieces - b.pieces,
  complete: (a, b) => a.complete - b.complete,
  incomplete: (a, b) => a.incomplete - b.incomplete,
  registered: (a, b) => (a.registered_at < b.registered_at ? -1 : a.registered_at > b.registered_at ? 1 : 0),
};

/** Characters from which peers are looked for. */
const FIND_FROM = 3;

const narrow = matchMedia("(max-width: 640px)");

export class Catalogue {
  constructor() {
    this.stream = "/events";
    this.probe = "/stats";
    this.entries = new Map();
    this.order = { name: "name", descending: false };
    this.words = "";
    this.ready = false;
    this.handlers = {
      torrent: (entry) => {
        this.fresh?.add(entry.info_hash);
        entry.order = entry.name.toLowerCase();
        this.entries.set(entry.info_hash, entry);
        this.#changed();
      },
      removed: (hash) => {
        this.entries.delete(hash);
        this.#changed();
      },
      ready: () => {
        if (this.fresh) for (const hash of this.entries.keys()) if (!this.fresh.has(hash)) this.entries.delete(hash);
        this.fresh = null;
        this.ready = true;
        this.#changed();
      },
    };
    const sort = (name) => {
      this.order = { name, descending: this.order.name === name ? !this.order.descending : name !== "name" };
      this.list.sorted(name, this.order.descending);
      this.#changed();
    };
    this.list = new List({
      label: "Catalogue", klass: "catalogue", key: (entry) => entry.info_hash, rowHeight: () => (narrow.matches ? 60 : 52),
      columns: [
        { name: "name", label: "Name", class: "name", sort }, { name: "size", label: "Size", class: "num mid", sort },
        { name: "pieces", label: "Pieces", class: "num mid", sort }, { name: "complete", label: "Seeds", class: "num", sort },
        { name: "incomplete", label: "Leechers", class: "num", sort }, { name: "files", label: "Files", class: "num wide mid" },
        { name: "registered", label: "Registered", class: "num wide mid", sort },
      ],
      make: (row, cells) => {
        row.link = el("a");
        row.name = new MiddleCut(row.link);
        row.sub = el("span", { class: "sub line" });
        cells[0].append(row.link, row.sub);
      },
      show: (row, cells, entry) => {
        if (row.shown === entry) return;
        row.shown = entry;
        row.name.show(visible(entry.name));
        setAttr(row.link, "href", `#/t/${entry.info_hash}`);
        setText(row.sub, entry.description || entry.info_hash);
        setText(cells[1], bytes(entry.size));
        setText(cells[2], number(entry.pieces));
        setText(cells[3], number(entry.complete));
        cells[3].classList.toggle("bad", entry.complete === 0);
        setText(cells[4], number(entry.incomplete));
        setText(cells[5], number(entry.files));
        setText(cells[6], dateTime(entry.registered_at));
      },
    });
    this.list.sorted("name", false);
    this.search = el("input", { type: "search", id: "search", placeholder: "Find files by name or info-hash, peers by address or client", ariaLabel: "Find files by name or info-hash, peers by address or client", autocomplete: "off", spellcheck: false, oninput: () => {
      this.words = this.search.value.trim().toLowerCase();
      this.#changed();
      this.#lookForPeers();
    } });
    this.count = el("p", { class: "soft small", role: "status" });
    this.blank = el("div");
    this.peers = el("ul", { class: "found", role: "list" });
    this.morePeers = el("p", { class: "soft small", role: "status" });
    this.peersCard = section("peers-found", "Peers", null, this.peers, this.morePeers);
    setHidden(this.peersCard, true);
    this.stop = new AbortController();
    this.askPeers = debounce(250, () => this.#askForPeers());
    this.node = el("div", {}, el("h1", { class: "sr", text: "Catalogue" }),
      el("div", { class: "card" }, el("div", { class: "tools" }, el("div", { class: "grow" }, this.search)), this.blank, this.list.node, this.count), this.peersCard);
    this.refresh = () => this.#refresh();
    setHidden(this.list.node, true);
  }

  close() {
    this.list.close();
    this.askPeers.cancel();
    this.stop.abort();
  }

  #lookForPeers() {
    this.askPeers.cancel();
    if (this.words.length < FIND_FROM) setHidden(this.peersCard, true);
    else this.askPeers();
  }

  /** Peers of all torrents whose address or client has what is looked for. */
  async #askForPeers() {
    const { words } = this;
    let answer;
    try {
      answer = await ask(`/peers?find=${encodeURIComponent(words)}`, { signal: this.stop.signal });
    } catch (fault) {
      if (fault.name === "AbortError") return;
      answer = { peers: [], fault: fault.message };
    }
    if (words !== this.words) return;
    this.peers.replaceChildren(...answer.peers.map((peer) => el("li", {},
      el("span", {}, el("a", { class: "mono", href: `#/t/${peer.info_hash}/${encodeURIComponent(peer.peer)}`, text: peer.peer }), ` ${peer.client ?? "client not known"}`),
      el("span", { class: "soft" }, `${peer.held === null ? "?" : percent(peer.held, peer.pieces)} of `, el("a", { href: `#/t/${peer.info_hash}`, text: peer.name })))));
    setText(this.morePeers, answer.fault ?? (answer.more ? `the first ${number(answer.peers.length)}; write more to find others` : ""));
    setHidden(this.peersCard, answer.peers.length === 0 && !answer.fault);
  }

  opened() {
    this.fresh = new Set();
  }

  #changed() {
    beforeFrame(this.refresh);
  }

  #refresh() {
    const { words, order } = this;
    const fits = [...this.entries.values()].filter((entry) => !words || entry.order.includes(words) || entry.info_hash.startsWith(words));
    const sign = order.descending ? -1 : 1;
    fits.sort((a, b) => sign * ORDERS[order.name](a, b) || ORDERS.name(a, b));
    this.list.set(fits);
    const all = this.entries.size;
    setHidden(this.list.node, fits.length === 0);
    setText(this.count, fits.length === all ? (all > 20 ? plural(all, "torrent") : "") : `${number(fits.length)} of ${plural(all, "torrent")}`);
    const kind = fits.length > 0 ? "none" : !this.ready ? "wait" : /^[0-9a-f]{40}$/.test(words) ? `hash ${words}` : all === 0 ? "first" : "filter";
    if (this.blank.dataset.kind === kind) return;
    this.blank.dataset.kind = kind;
    this.blank.replaceChildren(...{
      n: () => [],
      w: () => [empty("Asking the tracker …", "Its catalogue appears here.")],
      h: () => [empty("Not in the list", "A torrent that is unlisted is shown to those who know its info-hash."), el("p", { class: "empty" }, el("a", { href: `#/t/${words}`, text: "Open it" }))],
      f: () => [all === 0
        ? empty("The catalogue is empty", `Put something into it, from this machine or another; then this page shows who holds which piece of it.`, `torrent-peer share FILE ${location.host}`, "torrent-seed --input FILE")
        : empty("None of them", "No torrent has that in its name. To open an unlisted one, write its whole info-hash.")],
    }[kind[0]]());
  }
}
