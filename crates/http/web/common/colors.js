// Colours of the canvases: read from the style sheet, so that there is one place for them and both themes
// have their own.

/** Givers with a plain colour of their own; as many again have it hatched; all others share a grey. */
export const PLAIN = 12;
const SLOTS = 2 * PLAIN + 1;
export const OTHERS = SLOTS - 1;

/** A CSS colour `#rrggbb` as a pixel of an ImageData on little-endian machines, which all browsers run on. */
function pixel(css) {
  const value = parseInt(css.trim().slice(1), 16);
  return (0xff000000 | ((value & 0xff) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
}

/** A mix of two pixels; `t` from 0 (all `a`) to 1. */
export function mix(a, b, t) {
  const part = (shift) => {
    const from = (a >>> shift) & 0xff;
    return Math.round(from + (((b >>> shift) & 0xff) - from) * t) << shift;
  };
  return (0xff000000 | part(16) | part(8) | part(0)) >>> 0;
}

/** A pixel as CSS. */
export function css(value) {
  const hex = (n) => (n & 0xff).toString(16).padStart(2, "0");
  return `#${hex(value)}${hex(value >>> 8)}${hex(value >>> 16)}`;
}

/** The colours of this moment's theme, as pixels and as CSS. */
export function palette() {
  const style = getComputedStyle(document.documentElement);
  const get = (name) => style.getPropertyValue(name).trim();
  const givers = [];
  for (let i = 0; i < PLAIN; i += 1) givers.push(pixel(get(`--g${i}`)));
  const paper = pixel(get("--card"));
  return {
    givers,
    // Hatched with the paper's colour, so that they are seen without telling hues apart.
    hatch: paper,
    others: pixel(get("--others")),
    missing: pixel(get("--missing")),
    kept: pixel(get("--kept")),
    failed: pixel(get("--failed")),
    paper,
    ink: pixel(get("--ink")),
    soft: pixel(get("--ink-2")),
    line: pixel(get("--line")),
    held: pixel(get("--held")),
    announced: pixel(get("--announced")),
    observed: pixel(get("--observed")),
    risk0: pixel(get("--risk0")),
    risk1: pixel(get("--risk1")),
    copies: pixel(get("--copies")),
  };
}

/** Calls `job` when the theme changes; gives a function that ends that. */
export function onTheme(job) {
  addEventListener("themechange", job);
  return () => removeEventListener("themechange", job);
}

/** Gives each giver a place among the colours, first come first served, for good. */
export class Slots {
  constructor() {
    this.byGiver = new Map();
  }

  of(giver) {
    let slot = this.byGiver.get(giver);
    if (slot === undefined) {
      slot = Math.min(this.byGiver.size, OTHERS);
      this.byGiver.set(giver, slot);
    }
    return slot;
  }
}

/** A small canvas that shows a slot's colour, for legends. */
export function paintSwatch(canvas, slot, colors) {
  const size = 14;
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d");
  const image = context.createImageData(size, size);
  fillCell(new Uint32Array(image.data.buffer), size, 0, 0, size, size, slot, colors);
  context.putImageData(image, 0, 0);
}

/** Paints a rectangle of `pixels` (rows of `width`) in the colour of `slot`. */
export function fillCell(pixels, width, x0, y0, w, h, slot, colors) {
  const plain = slot >= OTHERS ? colors.others : colors.givers[slot % PLAIN];
  const hatched = slot >= PLAIN && slot < OTHERS;
  for (let y = y0; y < y0 + h; y += 1) {
    const row = y * width;
    if (!hatched) pixels.fill(plain, row + x0, row + x0 + w);
    else for (let x = x0; x < x0 + w; x += 1) pixels[row + x] = (x + y) % 4 < 1 ? colors.hatch : plain;
  }
}
