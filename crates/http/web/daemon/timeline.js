// When pieces arrived, and from whom: bars of stacked givers.

import { beforeFrame, el, setAttr, setText } from "../common/dom.js";
import { OTHERS, PLAIN, css, onTheme, palette } from "../common/colors.js";
import { bytes, plural, rate, timeOfDay } from "../common/format.js";

const HEIGHT = 132;

/** In place of a giver's number: all that are too small for a series of their own. */
const REST = 0;

export class Timeline {
  constructor({ slotOf, nameOf }) {
    this.slotOf = (giver) => (giver === REST ? OTHERS : slotOf(giver));
    this.nameOf = (giver) => (giver === REST ? "others" : nameOf(giver));
    this.canvas = el("canvas", { role: "img", "aria-label": "No arrivals yet" });
    this.from = el("span");
    this.detail = el("span");
    this.to = el("span");
    this.node = el("div", { class: "timeline" }, this.canvas, el("div", { class: "scale" }, this.from, this.detail, this.to));
    this.data = null;
    this.only = null;
    this.at = -1;
    this.draw = () => this.#draw();
    this.again = () => beforeFrame(this.draw);
    this.observer = new ResizeObserver(this.again);
    this.observer.observe(this.node);
    this.endTheme = onTheme(this.again);
    this.canvas.addEventListener("pointermove", (event) => {
      const box = this.canvas.getBoundingClientRect();
      const at = Math.floor(((event.clientX - box.left) / box.width) * (this.totals?.length ?? 0));
      if (at !== this.at) {
        this.at = at;
        this.again();
      }
    });
    this.canvas.addEventListener("pointerleave", () => {
      this.at = -1;
      this.again();
    });
  }

  close() {
    this.observer.disconnect();
    this.endTheme();
  }

  /**
   * How many bars to draw of `pieces` on `width` pixels: with a few pieces in each, because bars of one or
   * none show only how the clock was cut; and none shorter than a second.
   */
  buckets(width, pieces) {
    const span = this.data ? secondsOf(this.data.to) - secondsOf(this.data.from) : Infinity;
    return Math.max(12, Math.floor(Math.min(300, width / 4, pieces / 8, span)));
  }

  /** The answer to `/timeline`. */
  set(data) {
    this.data = data;
    const length = Math.max(0, ...data.series.map((one) => one.bytes.length));
    this.totals = new Float64Array(length);
    // One row for each colour, however many givers share it.
    this.rows = new Map();
    for (const one of data.series) {
      const slot = this.slotOf(one.giver);
      const row = this.rows.get(slot) ?? new Float64Array(length);
      this.rows.set(slot, row);
      one.bytes.forEach((n, i) => {
        row[i] += n;
        this.totals[i] += n;
      });
    }
    this.peak = Math.max(1, ...this.totals);
    const pieces = data.series.reduce((sum, one) => sum + one.pieces.reduce((a, b) => a + b, 0), 0);
    setText(this.from, timeOfDay(data.from));
    setText(this.to, timeOfDay(data.to));
    const seconds = data.seconds || 1;
    // The rest have one series in common.
    const givers = data.others ? data.series.length - 1 + data.others : data.series.length;
    setAttr(this.canvas, "aria-label", pieces === 0 ? "No arrivals yet"
      : `Arrivals from ${timeOfDay(data.from)} to ${timeOfDay(data.to)}: ${plural(pieces, "piece")} from ${plural(givers, "giver")}, ${rate(this.peak / seconds)} at most`);
    this.again();
  }

  highlight(giver) {
    this.only = giver;
    this.again();
  }

  #draw() {
    const { canvas, data } = this;
    const width = this.node.clientWidth;
    if (!data || width === 0) return;
    const ratio = Math.min(3, devicePixelRatio || 1);
    if (canvas.width !== Math.floor(width * ratio)) {
      canvas.width = Math.floor(width * ratio);
      canvas.height = Math.floor(HEIGHT * ratio);
    }
    const colors = palette();
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, HEIGHT);
    const seconds = data.seconds || 1;
    const count = this.totals.length;
    const step = width / Math.max(1, count);
    const room = HEIGHT - 16;
    // Two lines to read the height by.
    context.font = `11px ${getComputedStyle(this.node).fontFamily}`;
    context.textBaseline = "bottom";
    for (const part of [0.5, 1]) {
      const y = Math.round(HEIGHT - part * room) - 0.5;
      context.strokeStyle = css(colors.line);
      context.beginPath();
      context.moveTo(0, y);
      context.lineTo(width, y);
      context.stroke();
    }
    const rows = [...this.rows].sort((a, b) => a[0] - b[0]);
    const only = this.only === null ? null : this.slotOf(this.only);
    const base = new Float64Array(count);
    for (const [slot, row] of rows) {
      context.fillStyle = css(slot >= OTHERS ? colors.others : colors.givers[slot % PLAIN]);
      context.globalAlpha = only === null || only === slot ? (slot >= PLAIN && slot < OTHERS ? 0.62 : 1) : 0.16;
      for (let i = 0; i < count; i += 1) {
        if (row[i] === 0) continue;
        const height = (row[i] / this.peak) * room;
        const y = HEIGHT - (base[i] / this.peak) * room - height;
        context.fillRect(i * step, y, Math.max(1, step > 6 ? step - 1 : step + 0.3), height);
        base[i] += row[i];
      }
    }
    context.globalAlpha = 1;
    context.fillStyle = css(colors.soft);
    context.fillText(rate(this.peak / seconds), 2, HEIGHT - room - 1);
    if (this.at >= 0 && this.at < count) {
      context.strokeStyle = css(colors.ink);
      context.strokeRect(this.at * step - 0.5, HEIGHT - room, Math.max(2, step), room - 0.5);
      const start = secondsOf(data.from) + this.at * seconds;
      const top = data.series.map((one) => [one.bytes[this.at] ?? 0, one.giver]).filter(([n]) => n > 0).sort((a, b) => b[0] - a[0]);
      const names = top.slice(0, 2).map(([n, giver]) => `${this.nameOf(giver)} ${bytes(n)}`).join(", ");
      setText(this.detail, `${timeOfDay(start)} · ${rate(this.totals[this.at] / seconds)}${names ? ` · ${names}` : ""}${top.length > 2 ? ` and ${top.length - 2} more` : ""}`);
    } else setText(this.detail, "");
  }
}

/** A moment in seconds since 1970. */
const secondsOf = (time) => (typeof time === "number" ? time : Date.parse(time) / 1000);
