// Which rows of the list are selected, by mouse and by keys, and what is done to them.

import { el, setHidden, setText } from "../common/dom.js";
import { plural } from "../common/format.js";
import { act, remove, toggleAll } from "./actions.js";
import { showMenu, showMenuBelow } from "./menu.js";

export class Selection {
  /**
   * Of `list`, whose items are torrents; `all` is a map of all torrents by info-hash. `changed()` is called
   * when rows are to be drawn anew.
   */
  constructor(list, all, changed) {
    Object.assign(this, { list, all, changed });
    this.chosen = new Set();
    /** Where a range begins that is selected with Shift. */
    this.anchor = null;
    this.words = el("p", { role: "status" });
    const run = (work) => () => work(this.torrents());
    const more = el("button", { type: "button", id: "bulk-more", text: "More …", "aria-haspopup": "menu", onclick: () => showMenuBelow(more, this.torrents()) });
    this.bar = el("div", { class: "bulk", role: "group", "aria-label": "Selected torrents", hidden: true }, this.words,
      el("button", { type: "button", id: "bulk-resume", text: "Resume", onclick: run((t) => act(t, "resume", "resumed")) }),
      el("button", { type: "button", id: "bulk-pause", text: "Pause", onclick: run((t) => act(t, "pause", "paused")) }),
      more,
      el("button", { type: "button", id: "bulk-remove", class: "danger", text: "Remove …", onclick: run((t) => remove(t)) }),
      el("button", { type: "button", id: "bulk-none", text: "Clear", onclick: () => this.clear() }));
    list.orphaned = (at) => this.focus(at);
    list.node.addEventListener("keydown", (event) => this.#key(event));
  }

  has(torrent) {
    return this.chosen.has(torrent.info_hash);
  }

  /** Those selected, in the order of the list. */
  torrents() {
    return this.list.items.filter((torrent) => this.has(torrent));
  }

  /** Those that a menu or key at `torrent` means: all selected if it is one of them, else it alone. */
  meant(torrent) {
    return this.has(torrent) ? this.torrents() : [torrent];
  }

  clear() {
    this.chosen.clear();
    this.#changed();
  }

  /** Only what is still shown stays selected. */
  keep(items) {
    if (this.chosen.size === 0) return;
    const shown = new Set();
    for (const torrent of items) if (this.has(torrent)) shown.add(torrent.info_hash);
    if (shown.size === this.chosen.size) return;
    this.chosen = shown;
    this.#changed();
  }

  /** Has a row listen. */
  attach(row, box) {
    box.addEventListener("click", (event) => {
      if (event.shiftKey) this.#range(row.item);
      else this.#flip(row.item);
    });
    row.node.addEventListener("click", (event) => {
      if (event.target.closest("a, button, input")) return;
      if (event.shiftKey) this.#range(row.item);
      else if (event.ctrlKey || event.metaKey) this.#flip(row.item);
      else this.#only(row.item);
    });
    row.node.addEventListener("contextmenu", (event) => {
      event.preventDefault();
      if (!this.has(row.item) && this.chosen.size > 0) this.#only(row.item);
      showMenu(this.meant(row.item), event.clientX, event.clientY);
    });
  }

  #only(torrent) {
    const alone = this.chosen.size === 1 && this.has(torrent);
    this.chosen = new Set(alone ? [] : [torrent.info_hash]);
    this.anchor = torrent.info_hash;
    this.#changed();
  }

  #flip(torrent) {
    if (!this.chosen.delete(torrent.info_hash)) this.chosen.add(torrent.info_hash);
    this.anchor = torrent.info_hash;
    this.#changed();
  }

  /** From the anchor to `torrent`. */
  #range(torrent) {
    const { items } = this.list;
    const to = items.indexOf(torrent);
    const from = Math.max(0, items.findIndex((one) => one.info_hash === this.anchor));
    for (let i = Math.min(from, to); i <= Math.max(from, to); i += 1) this.chosen.add(items[i].info_hash);
    this.#changed();
  }

  #changed() {
    setHidden(this.bar, this.chosen.size === 0);
    setText(this.words, `${plural(this.chosen.size, "torrent")} selected`);
    this.changed();
  }

  /** Puts the focus on the row with this number. */
  focus(i) {
    const { items } = this.list;
    if (items.length === 0) return;
    this.list.reveal(Math.max(0, Math.min(items.length - 1, i)))?.link.focus({ preventScroll: true });
  }

  #key(event) {
    const { items, rows } = this.list;
    if ((event.ctrlKey || event.metaKey) && event.key === "a") {
      event.preventDefault();
      this.chosen = new Set(items.map((torrent) => torrent.info_hash));
      this.#changed();
      return;
    }
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "Escape" && this.chosen.size > 0) {
      this.clear();
      return;
    }
    const node = event.target.closest?.(".row");
    const row = node ? [...rows.values()].find((one) => one.node === node) : null;
    const at = row ? items.indexOf(row.item) : -1;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1, PageDown: at + 10, PageUp: at - 10 }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      this.focus(to);
      if (event.shiftKey && row) {
        if (this.chosen.size === 0) this.anchor = row.item.info_hash;
        this.#range(items[Math.max(0, Math.min(items.length - 1, to))]);
      }
    } else if (row) this.#rowKey(event, row);
  }

  #rowKey(event, row) {
    const inButton = event.target.closest("button, input");
    if (event.key === " " && !inButton) this.#flip(row.item);
    else if (event.key === "Delete") remove(this.meant(row.item));
    else if (event.key === "p") toggleAll(this.meant(row.item));
    else if (event.key === "m" || event.key === "ContextMenu" || (event.key === "F10" && event.shiftKey)) {
      const box = row.link.getBoundingClientRect();
      showMenu(this.meant(row.item), box.left + 24, box.bottom);
    } else return;
    event.preventDefault();
  }
}
