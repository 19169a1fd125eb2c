// The piece map: a cell for each piece, in the colour of the peer that gave it.

import { beforeFrame, el, setAttr } from "../common/dom.js";
import { OTHERS, PLAIN, fillCell, mix, onTheme, palette } from "../common/colors.js";

/** Owners of a piece that are no giver: it is not held; it was here before anybody was asked. */
export const MISSING = -1;
export const KEPT = -2;

const LARGEST_CELL = 18;

/**
 * `describe(piece)` is what a screen reader hears at a piece; `point(piece, pinned)` is called when a piece
 * is looked at (pinned: chosen by click, touch or key), with -1 when none is any more.
 */
export class PieceMap {
  constructor({ label, describe, point, slotOf }) {
    Object.assign(this, { describe, point, slotOf });
    this.canvas = el("canvas", {});
    this.context = this.canvas.getContext("2d");
    this.cursor = el("div", { class: "cursor", hidden: true });
    this.node = el("div", {
      class: "map", role: "slider", tabIndex: 0, "aria-label": label, "aria-valuemin": "0", "aria-valuemax": "0", "aria-valuenow": "0",
    }, this.canvas, this.cursor);
    this.pieces = 0;
    this.owner = new Int32Array(0);
    this.failed = new Set();
    this.only = null;
    this.at = -1;
    this.dirty = [];
    this.colors = palette();
    this.draw = () => this.#draw();
    this.observer = new ResizeObserver(() => beforeFrame(this.layout));
    this.layout = () => this.#layout();
    this.observer.observe(this.node);
    this.endTheme = onTheme(() => {
      this.colors = palette();
      this.repaint();
    });
    this.#listen();
  }

  close() {
    this.observer.disconnect();
    this.endTheme();
  }

  /** All of it anew: for each piece the giver, `MISSING` or `KEPT`. */
  set(owners) {
    this.owner = Int32Array.from(owners);
    if (this.pieces !== owners.length) {
      this.pieces = owners.length;
      setAttr(this.node, "aria-valuemax", Math.max(0, this.pieces - 1));
      this.width = 0;
    }
    beforeFrame(this.layout);
    this.repaint();
  }

  put(piece, owner) {
    if (piece >= this.pieces || this.owner[piece] === owner) return false;
    this.owner[piece] = owner;
    this.#touch(piece);
    return true;
  }

  markFailed(piece) {
    if (this.failed.has(piece)) return;
    this.failed.add(piece);
    this.#touch(piece);
  }

  /** Shows what `giver` gave and lets all else fade; `null`: everything. */
  highlight(giver) {
    this.only = giver;
    this.repaint();
  }

  repaint() {
    this.all = true;
    beforeFrame(this.draw);
  }

  /** Puts the cursor on a piece. */
  go(piece, pinned) {
    this.at = piece;
    if (piece >= 0) {
      setAttr(this.node, "aria-valuenow", piece);
      setAttr(this.node, "aria-valuetext", this.describe(piece));
    }
    this.#placeCursor();
    this.point(piece, pinned);
  }

  #touch(piece) {
    this.dirty.push(piece);
    beforeFrame(this.draw);
  }

  /** The largest cells with which all pieces fit. */
  #layout() {
    const width = this.node.clientWidth;
    const ratio = Math.min(3, devicePixelRatio || 1);
    if (width === 0 || this.pieces === 0 || (width === this.width && ratio === this.ratio)) return;
    Object.assign(this, { width, ratio });
    const across = Math.floor(width * ratio);
    const tallest = Math.floor((width < 500 ? 320 : 430) * ratio);
    let cell = Math.floor(LARGEST_CELL * ratio);
    const fits = () => Math.ceil(this.pieces / Math.floor(across / cell)) * cell <= tallest;
    while (cell > 1 && !fits()) cell -= 1;
    this.perCell = cell > 1 || fits() ? 1 : Math.ceil(this.pieces / (across * tallest));
    this.cell = cell;
    this.gap = cell >= 10 * ratio ? Math.round(2 * ratio) : cell >= 4 * ratio ? Math.max(1, Math.round(ratio)) : 0;
    this.cells = Math.ceil(this.pieces / this.perCell);
    this.columns = Math.min(this.cells, Math.floor(across / cell));
    const rows = Math.ceil(this.cells / this.columns);
    this.canvas.width = this.columns * cell;
    this.canvas.height = rows * cell;
    this.canvas.style.width = `${this.canvas.width / ratio}px`;
    this.canvas.style.height = `${this.canvas.height / ratio}px`;
    this.image = this.context.createImageData(this.canvas.width, this.canvas.height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    Object.assign(this.node.dataset, { columns: this.columns, cell, pieces: this.pieces });
    this.repaint();
    this.#placeCursor();
  }

  #draw() {
    if (!this.image) {
      this.#layout();
      if (!this.image) return;
    }
    const { canvas, columns, cell, context, image } = this;
    if (this.all || this.dirty.length > this.cells / 4) {
      this.all = false;
      this.pixels.fill(0);
      for (let i = 0; i < this.cells; i += 1) this.#paint(i);
      context.putImageData(image, 0, 0);
    } else if (this.dirty.length <= 200) {
      for (const piece of this.dirty) {
        const i = Math.floor(piece / this.perCell);
        this.#paint(i);
        context.putImageData(image, 0, 0, (i % columns) * cell, Math.floor(i / columns) * cell, cell, cell);
      }
    } else {
      let [top, bottom] = [Infinity, 0];
      for (const piece of this.dirty) {
        const i = Math.floor(piece / this.perCell);
        this.#paint(i);
        const y = Math.floor(i / columns) * cell;
        top = Math.min(top, y);
        bottom = Math.max(bottom, y + cell);
      }
      context.putImageData(image, 0, 0, 0, top, canvas.width, bottom - top);
    }
    this.dirty.length = 0;
  }

  #paint(i) {
    const { cell, colors, columns, pixels } = this;
    const width = this.canvas.width;
    const size = cell - this.gap;
    const x = (i % columns) * cell;
    const y = Math.floor(i / columns) * cell;
    const piece = i * this.perCell;
    const owner = this.perCell === 1 ? this.owner[piece] : this.#majority(piece);
    const faded = this.only !== null && owner !== this.only;
    if (owner >= 0 && !faded) fillCell(pixels, width, x, y, size, size, this.slotOf(owner), colors);
    else {
      let color = owner === MISSING ? (this.failed.has(piece) ? colors.failed : colors.missing) : colors.kept;
      if (owner >= 0) color = mix(this.#plain(owner), colors.paper, 0.78);
      else if (this.only !== null) color = mix(color, colors.paper, 0.5);
      for (let row = y; row < y + size; row += 1) pixels.fill(color, row * width + x, row * width + x + size);
    }
    // A corner tells that it failed once, whoever gave it in the end.
    if (owner !== MISSING && size >= 5 && this.failed.has(piece)) {
      const corner = Math.ceil(size / 2);
      for (let row = 0; row < corner; row += 1) {
        const from = (y + row) * width + x + size - corner + row;
        pixels.fill(colors.failed, from, (y + row) * width + x + size);
      }
    }
  }

  #plain(owner) {
    const slot = this.slotOf(owner);
    return slot >= OTHERS ? this.colors.others : this.colors.givers[slot % PLAIN];
  }

  /** Of several pieces in a cell: whoever has most of them. */
  #majority(first) {
    const end = Math.min(this.pieces, first + this.perCell);
    let [best, most] = [MISSING, 0];
    for (let i = first; i < end; i += 1) {
      let count = 0;
      for (let k = i; k < end; k += 1) count += this.owner[k] === this.owner[i] ? 1 : 0;
      if (count > most) [best, most] = [this.owner[i], count];
    }
    return best;
  }

  #pieceAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) * this.ratio) / this.cell);
    const row = Math.floor(((event.clientY - box.top) * this.ratio) / this.cell);
    if (column < 0 || column >= this.columns || row < 0) return -1;
    const i = row * this.columns + column;
    return i < this.cells ? i * this.perCell : -1;
  }

  #placeCursor() {
    const { at, cursor, ratio } = this;
    cursor.hidden = at < 0 || !this.image;
    if (cursor.hidden) return;
    const i = Math.floor(at / this.perCell);
    const size = Math.max(5, (this.cell - this.gap) / ratio);
    const x = ((i % this.columns) * this.cell) / ratio;
    const y = (Math.floor(i / this.columns) * this.cell) / ratio;
    const inset = Math.max(0, (size - (this.cell - this.gap) / ratio) / 2);
    cursor.style.width = cursor.style.height = `${size}px`;
    cursor.style.transform = `translate(${x - inset}px, ${y - inset}px)`;
  }

  #listen() {
    const { node } = this;
    let pinned = -1;
    const look = (event) => {
      const piece = this.#pieceAt(event);
      if (piece >= 0 && piece !== this.at) this.go(piece, event.pointerType !== "mouse");
    };
    node.addEventListener("pointermove", look);
    node.addEventListener("pointerdown", (event) => {
      const piece = this.#pieceAt(event);
      if (piece < 0) return;
      pinned = piece;
      this.go(piece, true);
    });
    node.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse" && this.at !== pinned) this.go(pinned, true);
    });
    node.addEventListener("focus", () => {
      if (this.at < 0 && this.pieces > 0 && node.matches(":focus-visible")) {
        pinned = 0;
        this.go(0, true);
      }
    });
    node.addEventListener("keydown", (event) => {
      if (this.pieces === 0 || event.ctrlKey || event.altKey || event.metaKey) return;
      const row = this.columns * this.perCell;
      const at = Math.max(0, this.at);
      const to = {
        ArrowLeft: at - this.perCell, ArrowRight: at + this.perCell, ArrowUp: at - row, ArrowDown: at + row,
        PageUp: at - 10 * row, PageDown: at + 10 * row, Home: 0, End: this.pieces - 1,
      }[event.key];
      if (event.key === "Escape" && this.at >= 0) {
        pinned = -1;
        this.go(-1, false);
      } else if (to !== undefined) {
        event.preventDefault();
        pinned = Math.max(0, Math.min(this.pieces - 1, to));
        this.go(pinned, true);
      }
    });
  }
}
