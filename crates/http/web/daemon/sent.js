// Whom we gave what: which piece went to whom last, and how much each got. The journal knows.

import { beforeFrame, el, section, setAttr, setHidden, setText } from "../common/dom.js";
import { bytes, dateTime, number, percent, plural } from "../common/format.js";
import { List } from "../common/list.js";
import { paintSwatch, palette } from "../common/colors.js";
import { ask } from "../common/live.js";
import { MISSING, PieceMap } from "./map.js";
import { Story } from "./story.js";

const narrow = matchMedia("(max-width: 640px)");

export class Sent {
  /** `slotOf` gives the colour of a peer by its number in the journal. */
  constructor(path, { slotOf, signal }) {
    Object.assign(this, { path, slotOf, signal });
    this.last = 0;
    this.bytes = 0;
    this.out = 0;
    this.takers = new Map();
    this.only = null;
    this.owners = new Int32Array(0);
    this.map = new PieceMap({ label: "Pieces that went out: arrow keys move", slotOf, describe: (piece) => this.#describe(piece), point: (piece) => this.#point(piece) });
    this.story = new Story(path, (taker, canvas) => paintSwatch(canvas, slotOf(taker), palette()));
    this.list = takers({ pick: (taker) => this.highlight(taker), slotOf, view: this });
    this.caption = el("p", { class: "small soft" });
    this.all = el("button", { type: "button", class: "plain", text: "Show all takers", hidden: true, onclick: () => this.highlight(this.only) });
    this.nobody = el("p", { class: "soft", text: "Nobody has been given anything yet." });
    this.summary = el("p", { class: "sr" });
    const mapCard = section("sent", "Who got which piece last", this.caption, this.map.node, this.summary,
      el("div", { class: "key" }, el("span", {}, el("i", { class: "swatch" }), "has not gone out")), this.story.node);
    const listCard = section("takers", "Takers", this.all, this.list.node, this.nobody);
    this.node = el("div", { class: "pair", hidden: true }, mapCard, listCard);
    this.draw = () => this.#draw();
  }

  close() {
    this.map.close();
    this.list.close();
  }

  repaint() {
    this.story.repaint();
    for (const row of this.list.rows.values()) row.slot = undefined;
    this.list.moved();
  }

  /** What is new since it was asked last. `pieces` is how many the torrent has. */
  async load(pieces) {
    if (this.owners.length !== pieces) {
      this.owners = new Int32Array(pieces).fill(MISSING);
      [this.last, this.bytes, this.out] = [0, 0, 0];
    }
    const answer = await ask(`${this.path}/sent?after=${this.last}`, { signal: this.signal });
    this.last = answer.last;
    for (const taker of answer.takers) {
      this.takers.set(taker.id, taker);
      this.slotOf(taker.id);
    }
    for (const [piece, size, taker] of answer.pieces) {
      if (piece >= pieces) continue;
      if (this.owners[piece] === MISSING) this.out += 1;
      this.owners[piece] = taker;
      this.bytes += size;
    }
    if (this.map.pieces !== pieces) this.map.set(this.owners);
    else if (this.only === null) for (const [piece, , taker] of answer.pieces) this.map.put(piece, taker);
    if (this.only !== null) await this.#showOnly();
    beforeFrame(this.draw);
  }

  /** Shows only what one taker got, or all again. */
  highlight(taker) {
    this.only = this.only === taker ? null : taker;
    setHidden(this.all, this.only === null);
    if (this.only === null) this.map.set(this.owners);
    else this.#showOnly();
    beforeFrame(this.draw);
  }

  async #showOnly() {
    const taker = this.only;
    const { pieces } = await ask(`${this.path}/sent?taker=${taker}`, { signal: this.signal });
    if (this.only !== taker) return;
    const owners = new Int32Array(this.owners.length).fill(MISSING);
    for (const [piece] of pieces) owners[piece] = taker;
    this.map.set(owners);
  }

  #draw() {
    const list = [...this.takers.values()].sort((a, b) => b.bytes - a.bytes || a.id - b.id);
    const total = list.reduce((sum, taker) => sum + taker.bytes, 0);
    this.list.total = total;
    this.list.set(list);
    setHidden(this.node, list.length === 0);
    setHidden(this.list.node, list.length === 0);
    setHidden(this.nobody, list.length > 0);
    setText(this.caption, `${number(this.out)} of ${plural(this.owners.length, "piece")} went out, ${bytes(total)} in all`);
    const top = list.slice(0, 5).map((taker) => `${taker.peer} got ${bytes(taker.bytes)}`).join(", ");
    setText(this.summary, `${number(this.out)} pieces went out. ${top}.`);
  }

  #owned(piece) {
    const owner = this.owners[piece];
    return { owner, kept: "held", giver: null, failed: false };
  }

  #describe(piece) {
    const taker = this.takers.get(this.owners[piece]);
    return `Piece ${piece}, ${taker ? `last sent to ${taker.peer}${taker.client ? `, ${taker.client}` : ""}` : "has not gone out"}`;
  }

  #point(piece) {
    this.story.show(piece, piece < 0 ? null : this.#owned(piece));
    if (piece < 0) return;
    const taker = this.takers.get(this.owners[piece]);
    setText(this.story.what, taker ? `last sent to ${taker.peer}` : "has not gone out");
  }
}

function takers({ pick, slotOf, view }) {
  const list = new List({
    label: "Takers, and how much each got", klass: "givers takers",
    columns: [
      { name: "color", label: "Colour", hide: true }, { name: "who", label: "Peer", class: "who" },
      { name: "bytes", label: "Got", class: "num" }, { name: "share", label: "Share", class: "num" },
    ],
    key: (taker) => taker.id,
    rowHeight: () => (narrow.matches ? 54 : 46),
    make: (row, cells) => {
      row.swatch = el("canvas", { class: "swatch", width: 14, height: 14, "aria-hidden": "true" });
      cells[0].append(row.swatch);
      row.button = el("button", { type: "button", class: "plain mono", onclick: () => pick(row.item.id) });
      row.client = el("span", { class: "soft small" });
      cells[1].append(row.button, row.client);
    },
    show: (row, cells, taker) => {
      const slot = slotOf(taker.id);
      if (row.slot !== slot) paintSwatch(row.swatch, slot, palette());
      row.slot = slot;
      setText(row.button, taker.peer);
      setAttr(row.button, "aria-pressed", view.only === taker.id);
      setText(row.client, [taker.client, `last ${dateTime(taker.last_at)}`].filter(Boolean).join(" · "));
      setText(cells[2], bytes(taker.bytes));
      setText(cells[3], percent(taker.bytes, list.total));
      row.node.classList.toggle("faded", view.only !== null && view.only !== taker.id);
    },
  });
  return list;
}
