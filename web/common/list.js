// A table of any length: only the rows that are in sight are in the page.

import { beforeFrame, el, setAttr } from "./dom.js";

/** Rows kept above and below what is in sight. */
const MARGIN = 6;

/**
 * `columns`: `{ name, label, class }`; `make(row, cells)` fills a new row's cells, `show(row, cells, item)`
 * brings them up to date. Rows keep their element for as long as they are in sight, so focus stays.
 */
export class List {
  constructor({ label, columns, key, make, show, rowHeight = () => 40, klass = "" }) {
    Object.assign(this, { columns, key, make, show, rowHeight });
    this.items = [];
    this.rows = new Map();
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

  /** Marks the column that the rows are in the order of. */
  sorted(name, descending) {
    this.columns.forEach((column, i) => {
      setAttr(this.head.children[i], "aria-sort", column.name === name ? (descending ? "descending" : "ascending") : null);
    });
  }

  close() {
    removeEventListener("scroll", this.moved);
    removeEventListener("resize", this.moved);
    this.observer.disconnect();
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
    const shown = new Set();
    for (let i = first; i < last; i += 1) {
      const item = items[i];
      const key = this.key(item);
      shown.add(key);
      let row = this.rows.get(key);
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
    for (const [key, row] of this.rows) {
      if (!shown.has(key) && !row.node.contains(document.activeElement)) {
        row.node.remove();
        this.rows.delete(key);
      } else if (!shown.has(key)) {
        row.node.style.transform = "translateY(-9999px)";
        row.at = -1;
      }
    }
  }
}
