// Rates of the last ten minutes, as lines: what came and what went.

import { beforeFrame, el, setAttr, setText } from "../common/dom.js";
import { css, onTheme, palette } from "../common/colors.js";
import { rate, span } from "../common/format.js";

/** Seconds that are shown, one sample each: as many as there are, but no less than a minute. */
const SPAN = 600;
const LEAST = 60;

export class Graph {
  constructor(height = 84) {
    this.height = height;
    this.down = new Float64Array(SPAN);
    this.up = new Float64Array(SPAN);
    /** The second of the newest sample. */
    this.at = Math.floor(Date.now() / 1000);
    this.count = 0;
    this.canvas = el("canvas", { role: "img", "aria-label": "Rates: nothing has moved yet" });
    this.peak = el("span", { class: "soft small" });
    const key = (kind, text) => el("span", {}, el("i", { class: `swatch ${kind}` }), text);
    this.node = el("div", { class: "graph" }, this.canvas,
      el("div", { class: "key" }, key("down", "down"), key("up", "up"), this.peak));
    this.canvas.style.height = `${height}px`;
    this.draw = () => this.#draw();
    this.again = () => beforeFrame(this.draw);
    this.observer = new ResizeObserver(this.again);
    this.observer.observe(this.node);
    this.endTheme = onTheme(this.again);
  }

  close() {
    this.observer.disconnect();
    this.endTheme();
  }

  /** The rates of this moment. Seconds that were missed, while the page slept, count as this one. */
  push(down, up) {
    const now = Math.floor(Date.now() / 1000);
    const first = Math.max(this.at + 1, now - SPAN + 1);
    for (let second = first; second <= now; second += 1) {
      this.down[second % SPAN] = down;
      this.up[second % SPAN] = up;
      this.count = Math.min(SPAN, this.count + 1);
    }
    this.at = Math.max(this.at, now);
    this.again();
  }

  #draw() {
    const { canvas, height } = this;
    const width = canvas.clientWidth;
    if (width === 0) return;
    const ratio = Math.min(3, devicePixelRatio || 1);
    const wanted = Math.floor(width * ratio);
    if (canvas.width !== wanted) {
      canvas.width = wanted;
      canvas.height = Math.floor(height * ratio);
    }
    let peak = 0;
    let [down, up] = [0, 0];
    for (let i = 0; i < this.count; i += 1) {
      const at = (this.at - i + SPAN) % SPAN;
      down = Math.max(down, this.down[at]);
      up = Math.max(up, this.up[at]);
    }
    peak = Math.max(down, up);
    const colors = palette();
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.strokeStyle = css(colors.line);
    context.lineWidth = 1;
    for (const part of [0, 0.5, 1]) {
      const y = Math.round((height - 2) * part) + 0.5;
      context.beginPath();
      context.moveTo(0, y);
      context.lineTo(width, y);
      context.stroke();
    }
    const style = getComputedStyle(this.node);
    if (peak > 0) {
      this.#line(context, this.down, width, peak, style.getPropertyValue("--down"), true);
      this.#line(context, this.up, width, peak, style.getPropertyValue("--up"), false);
    }
    const since = `in the last ${this.count <= LEAST ? "minute" : span(this.count)}`;
    setText(this.peak, peak > 0 ? `at most ${rate(peak)} ${since}` : `nothing moved ${since}`);
    setAttr(canvas, "aria-label", peak > 0 ? `Rates ${since}: at most ${rate(down)} down and ${rate(up)} up` : `Rates: nothing moved ${since}`);
  }

  #line(context, values, width, peak, color, filled) {
    const room = this.height - 4;
    const step = width / (Math.max(LEAST, this.count) - 1);
    context.beginPath();
    let x = width;
    for (let i = 0; i < this.count; i += 1) {
      x = width - i * step;
      const y = this.height - 1 - (values[(this.at - i + SPAN) % SPAN] / peak) * room;
      if (i === 0) context.moveTo(x, y);
      else context.lineTo(x, y);
    }
    context.strokeStyle = color;
    context.lineWidth = 1.5;
    context.lineJoin = "round";
    context.stroke();
    if (!filled) return;
    context.lineTo(x, this.height);
    context.lineTo(width, this.height);
    context.globalAlpha = 0.16;
    context.fillStyle = color;
    context.fill();
    context.globalAlpha = 1;
  }
}
