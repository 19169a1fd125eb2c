// The heat map: peers down, pieces across; below it, how many hold each piece.

import { beforeFrame, el, setAttr, setText, visible } from "../common/dom.js";
import { mix, onTheme, palette } from "../common/colors.js";
import { dateTime, number, percent, span } from "../common/format.js";

const ROW = 25;
const OVERVIEW = 440;
const STRIP = 46;
const MARGIN = 4;

/** Seconds without a word after which a peer counts as silent, if the tracker does not say how many. */
const SILENT = 150;

/** `pickPeer(peer)`, `pickPiece(piece)`: what was chosen; `tell(text)`: what is under the pointer. */
export class Heat {
  constructor({ pickPeer, pickPiece, tell }) {
    Object.assign(this, { pickPeer, pickPiece, tell });
    this.swarm = null;
    this.order = [];
    this.overview = false;
    this.picked = null;
    this.piece = 0;
    this.cells = new Map();
    this.dirtyRows = new Set();
    this.dirtyColumns = new Set();
    this.rows = new Map();
    this.canvas = el("canvas", { role: "img", "aria-label": "Heat map: one row a peer, pieces from left to right" });
    this.map = el("div", { class: "map heat-map" }, this.canvas);
    this.labels = el("div", { class: "heat-rows" });
    this.left = el("div", {}, this.labels);
    this.scroll = el("div", { class: "heat-scroll heat", tabIndex: 0, role: "group", "aria-label": "Peers and their pieces" }, this.left, el("div", { class: "heat-side" }, this.map));
    this.head = el("div", { class: "heat" }, el("div", { class: "heat-head" }, el("span"), el("span", { text: "Peer" }), el("span", { class: "num", text: "Has" }), el("span", { class: "num", text: "Pieces/s" }), el("span", { class: "num", text: "Left" }), el("span", { class: "num", text: "As of", title: "When the peer last told or showed what it holds" })), el("div"));
    this.stripCanvas = el("canvas");
    this.stripCursor = el("div", { class: "cursor", hidden: true });
    this.strip = el("div", { class: "map", role: "slider", tabIndex: 0, "aria-label": "Piece: arrow keys move, Enter asks who holds it", "aria-valuemin": "0", "aria-valuemax": "0", "aria-valuenow": "0" }, this.stripCanvas, this.stripCursor);
    this.firstPiece = el("span", { text: "0" });
    this.lastPiece = el("span");
    const stripRow = el("div", { class: "heat strip" }, el("div", { class: "strip-label", text: "Holders of each piece, fewest" }),
      el("div", {}, this.strip, el("div", { class: "scale" }, this.firstPiece, this.lastPiece)));
    this.node = el("div", {}, this.head, this.scroll, stripRow);
    this.draw = () => this.#draw();
    this.again = () => beforeFrame(this.draw);
    this.layout = () => {
      this.width = 0;
      this.again();
    };
    this.observer = new ResizeObserver(this.again);
    this.observer.observe(this.node);
    this.scroll.addEventListener("scroll", () => {
      this.all = true;
      this.again();
    }, { passive: true });
    this.endTheme = onTheme(() => {
      this.#ramps();
      this.all = true;
      this.allColumns = true;
      this.again();
    });
    this.#ramps();
    this.#listen();
  }

  close() {
    this.observer.disconnect();
    this.endTheme();
  }

  /** All anew. */
  set(swarm) {
    this.swarm = swarm;
    this.cells.clear();
    this.rows.forEach((row) => row.node.remove());
    this.rows.clear();
    setAttr(this.strip, "aria-valuemax", Math.max(0, swarm.pieces - 1));
    setText(this.lastPiece, number(Math.max(0, swarm.pieces - 1)));
    this.layout();
  }

  /** Peers in this order. */
  arrange(peers) {
    this.order = peers;
    this.all = true;
    this.again();
  }

  showOverview(on) {
    this.overview = on;
    this.node.classList.toggle("whole", on);
    this.scroll.scrollTop = 0;
    this.layout();
  }

  pick(peer) {
    this.picked = peer?.id ?? null;
    this.all = true;
    this.again();
  }

  /** A piece is newly held by a peer. */
  held(peer, piece) {
    if (!this.starts) return;
    const column = this.#columnOf(piece);
    const cells = this.cells.get(peer.id);
    if (cells) cells[column] += 1;
    this.dirtyRows.add(peer.id);
    this.dirtyColumns.add(column);
    this.again();
  }

  /** A peer's figures have changed, but no piece. */
  touched(peer) {
    this.dirtyRows.add(peer.id);
    this.again();
  }

  /** A peer is new, gone, or another as a whole. */
  changed(id) {
    this.cells.delete(id);
    this.all = true;
    this.allColumns = true;
    this.again();
  }

  go(piece, ask) {
    this.piece = piece;
    const swarm = this.swarm;
    setAttr(this.strip, "aria-valuenow", piece);
    setAttr(this.strip, "aria-valuetext", `Piece ${piece}, ${swarm.of(piece)} ${swarm.of(piece) === 1 ? "holder" : "holders"}`);
    this.#placeCursor();
    this.tell(this.#pieceText(piece));
    if (ask) this.pickPiece(piece);
  }

  #ramps() {
    this.colors = palette();
    const ramp = (to) => Uint32Array.from({ length: 256 }, (_, i) => (i === 0 ? this.colors.missing : mix(this.colors.missing, to, 0.18 + 0.82 * (i / 255))));
    const { held, observed, announced } = this.colors;
    this.ramp = { reported: ramp(held), observed: ramp(observed), announced: ramp(announced), unknown: ramp(this.colors.soft) };
  }

  #columnOf(piece) {
    return Math.floor((piece * this.columns) / this.swarm.pieces);
  }

  #size() {
    const side = this.map.parentElement;
    const width = side.clientWidth;
    const ratio = Math.min(2, devicePixelRatio || 1);
    const count = this.order.length;
    // Whole pixels of the screen, whatever the ratio.
    const full = Math.round(ROW * ratio);
    const rowHeight = this.overview ? Math.max(1, Math.min(full, Math.floor((OVERVIEW * ratio) / Math.max(1, count)))) : full;
    const tall = count * rowHeight;
    const style = this.scroll;
    const total = `${tall / ratio}px`;
    if (this.labels.style.height !== total) this.labels.style.height = total;
    const view = Math.min(tall, style.clientHeight * ratio || OVERVIEW);
    if (width === this.width && ratio === this.ratio && rowHeight === this.rowHeight && view === this.view) return width > 0;
    if (width === 0) return false;
    const across = Math.floor(width * ratio);
    if (this.across !== across || this.counted !== this.swarm) {
      const pieces = Math.max(1, this.swarm.pieces);
      this.counted = this.swarm;
      this.across = across;
      this.columns = Math.min(pieces, across);
      this.starts = Uint32Array.from({ length: this.columns + 1 }, (_, i) => Math.ceil((i * pieces) / this.columns));
      // Where each column begins, in pixels: a piece may be several wide.
      this.edges = Uint32Array.from({ length: this.columns + 1 }, (_, i) => Math.round((i * across) / this.columns));
      this.cells.clear();
      this.allColumns = true;
      this.stripCanvas.width = across;
      this.stripCanvas.height = Math.round(STRIP * ratio);
      this.stripCanvas.style.width = `${width}px`;
      this.stripCanvas.style.height = `${STRIP}px`;
      this.least = new Uint16Array(this.columns);
    }
    Object.assign(this, { width, ratio, rowHeight, view });
    this.canvas.width = across;
    this.canvas.height = Math.max(1, Math.ceil(view));
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${this.canvas.height / ratio}px`;
    this.context = this.canvas.getContext("2d");
    this.image = this.context.createImageData(across, this.canvas.height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.all = true;
    return true;
  }

  #draw() {
    if (!this.swarm || !this.#size()) return;
    const { rowHeight, ratio, order } = this;
    const top = Math.round(this.scroll.scrollTop * ratio);
    const first = Math.max(0, Math.floor(top / rowHeight));
    const last = Math.min(order.length, Math.ceil((top + this.canvas.height) / rowHeight));
    if (this.all) {
      this.pixels.fill(0);
      for (let i = first; i < last; i += 1) this.#paint(order[i], i * rowHeight - top);
      this.context.putImageData(this.image, 0, 0);
      this.place ??= new Map();
      this.place.clear();
      for (let i = first; i < last; i += 1) this.place.set(order[i].id, i);
    } else {
      for (const id of this.dirtyRows) {
        const i = this.place?.get(id);
        if (i === undefined) continue;
        const y = i * rowHeight - top;
        this.#paint(order[i], y);
        this.context.putImageData(this.image, 0, 0, 0, Math.max(0, y), this.across, rowHeight);
      }
    }
    this.#label(first, last);
    this.#strip();
    this.all = false;
    this.dirtyRows.clear();
    this.dirtyColumns.clear();
  }

  /** Pieces held in each column, counted once and kept. */
  #counts(peer) {
    let counts = this.cells.get(peer.id);
    if (!counts) {
      counts = new Uint32Array(this.columns);
      const { starts } = this;
      for (let c = 0; c < this.columns; c += 1) counts[c] = this.swarm.heldIn(peer, starts[c], starts[c + 1]);
      this.cells.set(peer.id, counts);
    }
    return counts;
  }

  #paint(peer, y) {
    const { pixels, across, edges, starts, canvas } = this;
    const gap = this.rowHeight >= 6 ? Math.round(this.ratio) : 0;
    const from = Math.max(0, y);
    const to = Math.min(canvas.height, y + this.rowHeight - gap);
    if (to <= from) return;
    const counts = peer.whole ? null : this.#counts(peer);
    const unknown = !peer.whole && peer.bits === null;
    const ramp = this.ramp[unknown ? "unknown" : peer.source] ?? this.ramp.announced;
    const base = from * across;
    const fade = this.picked !== null && this.picked !== peer.id;
    if (counts === null) pixels.fill(ramp[255], base, base + across);
    else {
      for (let c = 0; c < this.columns; c += 1) {
        const n = counts[c];
        const all = starts[c + 1] - starts[c];
        const color = ramp[n === 0 ? 0 : n >= all ? 255 : Math.max(24, Math.floor((255 * n) / all))];
        for (let x = edges[c]; x < edges[c + 1]; x += 1) pixels[base + x] = color;
      }
    }
    // What a super-seeder says is less than what it has, and of some nothing is known: their gaps are dotted.
    if ((peer.sure === false || unknown) && !peer.whole && to - from > 2) {
      for (let x = 0; x < across; x += 4) if (pixels[base + x] === this.colors.missing) pixels[base + x] = ramp[120];
    }
    if (fade) for (let x = base; x < base + across; x += 1) pixels[x] = mix(pixels[x], this.colors.paper, 0.55);
    for (let row = from + 1; row < to; row += 1) pixels.copyWithin(row * across, base, base + across);
  }

  #strip() {
    const { swarm, starts, columns, least, colors } = this;
    if (!this.allColumns && this.dirtyColumns.size === 0) return;
    if (this.allColumns) for (let c = 0; c < columns; c += 1) least[c] = swarm.least(starts[c], starts[c + 1]);
    else for (const c of this.dirtyColumns) least[c] = swarm.least(starts[c], starts[c + 1]);
    const most = Math.max(4, swarm.peers.size);
    const height = this.stripCanvas.height;
    const context = this.stripCanvas.getContext("2d");
    const draw = (c) => {
      const x = this.edges[c];
      const w = this.edges[c + 1] - x;
      context.clearRect(x, 0, w, height);
      const n = least[c];
      const color = n === 0 ? this.cssOf("--risk0") : n === 1 ? this.cssOf("--risk1") : this.cssOf("--copies");
      // Square root, so that few can be told from fewer.
      const h = n <= 1 ? height : Math.max(2, Math.round(Math.sqrt(n / most) * height));
      context.fillStyle = color;
      context.fillRect(x, height - h, w, h);
    };
    if (this.allColumns || this.dirtyColumns.size > columns / 2) for (let c = 0; c < columns; c += 1) draw(c);
    else for (const c of this.dirtyColumns) draw(c);
    this.allColumns = false;
  }

  cssOf(name) {
    if (this.cssFor !== this.colors) {
      this.cssFor = this.colors;
      const style = getComputedStyle(document.documentElement);
      this.css = Object.fromEntries(["--risk0", "--risk1", "--copies"].map((one) => [one, style.getPropertyValue(one).trim()]));
    }
    return this.css[name];
  }

  /** The peers' names and figures, left of their rows. */
  #label(first, last) {
    const shown = new Set();
    const height = this.rowHeight / this.ratio;
    if (!this.overview || height >= 15) {
      for (let i = Math.max(0, first - MARGIN); i < Math.min(this.order.length, last + MARGIN); i += 1) {
        const peer = this.order[i];
        shown.add(peer.id);
        let row = this.rows.get(peer.id);
        if (!row) {
          row = this.#makeRow();
          this.rows.set(peer.id, row);
          this.labels.append(row.node);
        }
        row.peer = peer;
        if (row.at !== i || row.height !== height) {
          Object.assign(row, { at: i, height });
          row.node.style.transform = `translateY(${i * height}px)`;
          row.node.style.height = `${height}px`;
        }
        if (this.all || this.dirtyRows.has(peer.id) || !row.filled) this.#fillRow(row, peer);
      }
    }
    for (const [id, row] of this.rows) {
      if (shown.has(id) || row.node.contains(document.activeElement)) continue;
      row.node.remove();
      this.rows.delete(id);
    }
  }

  #makeRow() {
    const row = { at: -1 };
    row.mark = el("i", { class: "mark", "aria-hidden": "true" });
    row.button = el("button", { type: "button", class: "plain mono", onclick: () => this.pickPeer(row.peer) });
    row.held = el("span", { class: "num" });
    row.rate = el("span", { class: "num" });
    row.eta = el("span", { class: "num" });
    row.asOf = el("span", { class: "num" });
    row.node = el("div", { class: "heat-row" }, row.mark, row.button, row.held, row.rate, row.eta, row.asOf);
    return row;
  }

  #fillRow(row, peer) {
    row.filled = true;
    const silent = silence(peer) >= (this.swarm.silentAfter ?? SILENT);
    const klass = `heat-row${this.picked === peer.id ? " picked" : ""}${silent ? " quiet" : ""}`;
    if (row.node.className !== klass) row.node.className = klass;
    const mark = `mark ${peer.source ?? ""}${peer.source && peer.sure === false ? " unsure" : ""}`;
    if (row.mark.className !== mark) row.mark.className = mark;
    setText(row.button, peer.peer);
    setAttr(row.button, "title", `${peer.also_at ? `also at ${peer.also_at} · ` : ""}${peer.client ?? "client not known"} · ${peer.source ?? "not known what it holds"}${peer.source && peer.sure === false ? ", may hold more" : ""}${peer.as_of ? `, as of ${dateTime(peer.as_of)}` : ""}${peer.reason ? ` · ${peer.reason}` : ""}`);
    setAttr(row.button, "aria-pressed", this.picked === peer.id);
    setText(row.held, peer.held === null || peer.held === undefined ? "?" : percent(peer.held, this.swarm.pieces));
    setText(row.rate, peer.rate ? peer.rate.toFixed(peer.rate < 10 ? 1 : 0) : "");
    const left = silent ? `silent ${coarse(silence(peer))}` : peer.held === this.swarm.pieces ? "done" : peer.eta === null || peer.eta === undefined ? "" : span(peer.eta);
    setText(row.eta, left);
    setAttr(row.eta, "title", left);
    const known = age(peer);
    setText(row.asOf, known === null ? "" : known < 10 ? "now" : coarse(known));
    const source = peer.source ?? "not known what it holds";
    const words = [peer.peer, peer.also_at ? `also at ${peer.also_at}` : "", peer.client, row.held.textContent, peer.rate ? `${row.rate.textContent} pieces a second` : "", left, source, peer.source && peer.sure === false ? "may hold more" : "", known === null ? "" : `as of ${span(known)} ago`, peer.reason];
    setAttr(row.button, "aria-label", visible(words.filter(Boolean).join(", ")));
  }

  #pieceText(piece) {
    const n = this.swarm.of(piece);
    return `Piece ${number(piece)}: ${n === 0 ? "nobody holds it" : n === 1 ? "one peer holds it" : `${number(n)} peers hold it`}`;
  }

  #placeCursor() {
    const cursor = this.stripCursor;
    cursor.hidden = !this.edges;
    if (cursor.hidden) return;
    const c = this.#columnOf(this.piece);
    cursor.style.width = `${Math.max(3, (this.edges[c + 1] - this.edges[c]) / this.ratio)}px`;
    cursor.style.height = `${STRIP}px`;
    cursor.style.transform = `translateX(${this.edges[c] / this.ratio - 1}px)`;
  }

  #pieceAt(event, node) {
    const box = node.getBoundingClientRect();
    const part = (event.clientX - box.left) / box.width;
    return part < 0 || part >= 1 || !this.swarm ? -1 : Math.floor(part * this.swarm.pieces);
  }

  #listen() {
    this.canvas.addEventListener("pointermove", (event) => {
      const piece = this.#pieceAt(event, this.canvas);
      const box = this.canvas.getBoundingClientRect();
      const y = (event.clientY - box.top) * this.ratio + this.scroll.scrollTop * this.ratio;
      const peer = this.order[Math.floor(y / this.rowHeight)];
      if (piece < 0 || !peer) return;
      const c = this.#columnOf(piece);
      const [from, to] = [this.starts[c], this.starts[c + 1]];
      const held = this.swarm.heldIn(peer, from, to);
      const what = to - from === 1 ? `piece ${number(from)}: ${held ? "holds it" : "does not hold it"}` : `pieces ${number(from)}–${number(to - 1)}: holds ${number(held)} of ${number(to - from)}`;
      this.tell(`${peer.peer}${peer.client ? ` (${peer.client})` : ""}, ${what}`);
    });
    this.canvas.addEventListener("click", (event) => {
      const piece = this.#pieceAt(event, this.canvas);
      if (piece >= 0) this.go(piece, true);
    });
    this.strip.addEventListener("pointermove", (event) => {
      const piece = this.#pieceAt(event, this.strip);
      if (piece >= 0) this.tell(this.#pieceText(piece));
    });
    this.strip.addEventListener("click", (event) => {
      const piece = this.#pieceAt(event, this.strip);
      if (piece >= 0) this.go(piece, true);
    });
    this.strip.addEventListener("keydown", (event) => {
      if (!this.swarm || event.ctrlKey || event.altKey || event.metaKey) return;
      const page = Math.max(1, Math.floor(this.swarm.pieces / 50));
      const { piece } = this;
      const to = {
        ArrowLeft: piece - 1, ArrowRight: piece + 1, ArrowUp: piece + 1, ArrowDown: piece - 1,
        PageUp: piece + page, PageDown: piece - page, Home: 0, End: this.swarm.pieces - 1,
      }[event.key];
      if (event.key === "Enter") this.go(piece, true);
      else if (to !== undefined) {
        event.preventDefault();
        this.go(Math.max(0, Math.min(this.swarm.pieces - 1, to)), false);
      }
    });
  }
}

/** Seconds since a peer was last heard of: as the tracker said, and what has passed since. */
export function silence(peer) {
  return (peer.silent ?? 0) + (performance.now() - (peer.heard ?? performance.now())) / 1000;
}

/** Seconds since a peer last told or showed what it holds; `null` if it never did. */
export function age(peer) {
  const at = peer.as_of ? Date.parse(peer.as_of) : NaN;
  return Number.isNaN(at) ? null : Math.max(0, (Date.now() - at) / 1000);
}

/** Seconds as one unit, for narrow columns. */
function coarse(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return seconds < 86400 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86400)} d`;
}
