// Numbers as people read them.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const whole = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

export const number = (n) => (n === null || n === undefined ? "–" : whole.format(n));

export function plural(n, one, many = `${one}s`) {
  return `${number(n)} ${n === 1 ? one : many}`;
}

export function bytes(n) {
  if (n === null || n === undefined) return "–";
  let unit = 0;
  let value = n;
  // What is rounded to four digits has no room.
  while (value >= (unit === 0 ? 1000 : 999.5) && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toPrecision(3)} ${UNITS[unit]}`;
}

export const rate = (n) => (n > 0 ? `${bytes(n)}/s` : "–");

/** Seconds as the two largest units. */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s < 600 && s % 60 ? `${s % 60} s` : ""}`.trim();
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  if (s < 86400 * 365) return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
  return "over a year";
}

/** Part of a whole; 100 % only if it is all. */
export function percent(part, all) {
  if (!all) return "–";
  const value = (100 * part) / all;
  if (part >= all) return "100 %";
  return `${value < 10 ? (Math.floor(value * 10) / 10).toFixed(1) : Math.floor(value)} %`;
}

/** Whole and fraction, as copies are counted. */
export const copies = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));

const asDate = (time) => (typeof time === "number" ? new Date(time * 1000) : new Date(time));

/** Time of day; `time` in seconds since 1970 or RFC 3339. */
export function timeOfDay(time) {
  const date = asDate(time);
  return Number.isNaN(date.getTime()) ? "–" : clock.format(date);
}

export function dateTime(time) {
  if (time === null || time === undefined) return "–";
  const date = asDate(time);
  if (Number.isNaN(date.getTime())) return "–";
  return Date.now() - date.getTime() < 20 * 3600 * 1000 ? clock.format(date) : day.format(date);
}

/** Time between two moments, in milliseconds or seconds. */
export function shortTime(from, to) {
  const ms = asDate(to) - asDate(from);
  return ms < 1000 ? `${Math.max(0, Math.round(ms))} ms` : span(ms / 1000);
}
