// Sets of pieces: ranges as text, bitfields as on the wire (the first piece is the highest bit of the
// first byte).

/** Calls `run(first, last)` for each range of `"5,7-9"`. */
export function eachRange(text, run) {
  if (!text || text === "none") return;
  for (const part of text.split(",")) {
    const dash = part.indexOf("-");
    const first = Number(dash < 0 ? part : part.slice(0, dash));
    const last = dash < 0 ? first : Number(part.slice(dash + 1));
    if (Number.isInteger(first) && Number.isInteger(last) && first <= last) run(first, last);
  }
}

/** Base64 of a wire bitfield as bytes, `length` of them. */
export function fromBase64(text, length) {
  const bits = new Uint8Array(length);
  const raw = atob(text);
  for (let i = 0; i < Math.min(length, raw.length); i += 1) bits[i] = raw.charCodeAt(i);
  return bits;
}

export const has = (bits, piece) => (bits[piece >> 3] >> (7 - (piece & 7))) & 1;

export function add(bits, piece) {
  bits[piece >> 3] |= 0x80 >> (piece & 7);
}

/** Bits that are set, of each byte. */
const ONES = new Uint8Array(256).map((_, i) => {
  let n = 0;
  for (let b = i; b; b >>= 1) n += b & 1;
  return n;
});

/** Pieces set in `from..to`. */
export function countIn(bits, from, to) {
  let n = 0;
  let i = from;
  while (i < to && i & 7) n += has(bits, i++);
  for (; i + 8 <= to; i += 8) n += ONES[bits[i >> 3]];
  while (i < to) n += has(bits, i++);
  return n;
}

/** How a set of ranges is shown where room is short. */
export function shortRanges(text, limit = 12) {
  if (!text) return "none";
  const parts = text.split(",");
  const shown = parts.slice(0, limit).join(", ").replaceAll("-", "–");
  return parts.length > limit ? `${shown} and ${parts.length - limit} more ranges` : shown;
}
