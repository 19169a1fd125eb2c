// A table of any length: only the rows that are in sight are in the page.

import { beforeFrame, el, setAttr } from "./dom.js";

/** Rows kept above and below what is in sight. */
const MARGIN = 6;

/** Rows kept to be used again: what a large screen shows. */
const MOST_SPARE = 80;

/**
 * `columns`: `{ name, label, class }`; `make(row, cells)` fills a new row's cells, `show(row, cells, item)`
 * brings them up to date. Rows keep their element for as long as they are in sight, so focus stays. With `reuse` it
 * is another item's afterwards: `row.shown` is `undefined` then.
 */
export class List {
  constructor({ label, columns, key, make, show, rowHeight = () => 40, klass = "", reuse = false }) {
    Object.assign(this, { columns, key, make, show, rowHeight, reuse });
    this.items = [];
    this.rows = new Map();
    /** Rows that have left and are used again: making one costs more than showing it. */
    this.spare = [];
    const head = el("div", { class: "list-head", role: "row", "aria-rowindex": "1" }, columns.map((column) => {
      const cell = el("div", { role: "columnheader", class: `cell ${column.class ?? ""}` });
      if (column.sort) {
        cell.append(el("button", { type: "button", class: "plain sort", text: column.label, onclick: () => column.sort(column.name) }));
      } else if (column.hide) cell.append(el("span", { class: "sr", text: column.label }));
      else cell.textContent = column.label;
      return cell;
    }));
    this.head = head;
    this.body = el("div", { class: "list-body", role: "rowgroup" });
    this.node = el("div", { class: `list ${klass}`, role: "table", "aria-label": label, "aria-rowcount": "1", tabIndex: 0 },
      el("div", { role: "rowgroup", class: "list-top" }, head), this.body);
    this.draw = () => this.#draw();
    this.moved = () => beforeFrame(this.draw);
    this.node.addEventListener("scroll", this.moved, { passive: true });
    addEventListener("scroll", this.moved, { passive: true });
    addEventListener("resize", this.moved, { passive: true });
    this.observer = new ResizeObserver(this.moved);
    this.observer.observe(this.node);
  }

  /** Shows these items, in this order. */
  set(items) {
    this.items = items;
    beforeFrame(this.draw);
  }

  /** Shows changed items at once: an input of a row must not be used while it shows its old value. */
  refresh() {
    this.#draw();
  }

  /** Marks the column that the rows are in the order of. */
  sorted(name, descending) {
    this.columns.forEach((column, i) => {
      setAttr(this.head.children[i], "aria-sort", column.name === name ? (descending ? "descending" : "ascending") : null);
    });
  }

  /** Scrolls until the item with this number is in sight, and gives its row. */
  reveal(i) {
    const height = this.rowHeight();
    const { node, body } = this;
    const top = body.getBoundingClientRect().top + i * height;
    const frame = node.getBoundingClientRect();
    // A list that is not bounded itself scrolls with the page.
    const bounded = node.scrollHeight > node.clientHeight + 1;
    const [above, below] = bounded ? [frame.top + this.head.offsetHeight, frame.bottom] : [8, innerHeight - 72];
    const by = top < above ? top - above : top + height > below ? top + height - below : 0;
    if (by !== 0) (bounded ? node : window).scrollBy(0, by);
    this.#draw();
    return this.rows.get(this.key(this.items[i]));
  }

  close() {
    removeEventListener("scroll", this.moved);
    removeEventListener("resize", this.moved);
    this.observer.disconnect();
  }

  /** A row that was another item's. */
  #take(key) {
    const row = this.spare.pop();
    if (!row) return undefined;
    Object.assign(row, { shown: undefined, at: -1 });
    this.rows.set(key, row);
    this.body.append(row.node);
    return row;
  }

  #draw() {
    const height = this.rowHeight();
    const { items, body, node } = this;
    const total = `${items.length * height}px`;
    if (body.style.height !== total) body.style.height = total;
    setAttr(node, "aria-rowcount", items.length + 1);
    // What of the body the list shows; of a list that is not bounded itself, what the window shows.
    const frame = node.getBoundingClientRect();
    const origin = body.getBoundingClientRect().top;
    const long = frame.height > 2 * innerHeight;
    const above = (long ? Math.max(0, frame.top) : frame.top) - origin;
    const below = (long ? Math.min(innerHeight, frame.bottom) : frame.bottom) - origin;
    const first = Math.max(0, Math.floor(above / height) - MARGIN);
    const last = Math.min(items.length, Math.ceil(below / height) + MARGIN);
    let orphan = -1;
    const shown = new Set();
    for (let i = first; i < last; i += 1) shown.add(this.key(items[i]));
    for (const [key, row] of this.rows) {
      if (shown.has(key)) continue;
      const focused = row.node.contains(document.activeElement);
      // Out of sight it keeps the focus; one whose item is gone gives it to whatever is in its place.
      if (focused && this.items.some((item) => this.key(item) === key)) {
        row.node.style.transform = "translateY(-9999px)";
        row.height = 0;
        continue;
      }
      row.node.remove();
      this.rows.delete(key);
      if (this.reuse && this.spare.length < MOST_SPARE) this.spare.push(row);
      if (focused) orphan = row.at;
    }
    for (let i = first; i < last; i += 1) {
      const item = items[i];
      const key = this.key(item);
      let row = this.rows.get(key) ?? this.#take(key);
      if (!row) {
        const cells = this.columns.map((column) => el("div", { role: "cell", class: `cell ${column.class ?? ""}` }));
        row = { node: el("div", { role: "row", class: "row" }, cells), cells, at: -1 };
        row.item = item;
        this.make(row, cells);
        this.rows.set(key, row);
        body.append(row.node);
      }
      row.item = item;
      if (row.at !== i || row.height !== height) {
        row.at = i;
        row.height = height;
        row.node.style.transform = `translateY(${i * height}px)`;
        row.node.style.height = `${height}px`;
        setAttr(row.node, "aria-rowindex", i + 2);
      }
      this.show(row, row.cells, item);
    }
    if (orphan >= 0) this.orphaned?.(orphan);
  }
}
