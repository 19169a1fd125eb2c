// How a torrent stands, in words and as a bar: the list and its own view say the same.

import { el, setAttr } from "../common/dom.js";
import { bytes, percent } from "../common/format.js";
import { isHashed } from "./actions.js";

const STATES = {
  checking: "checking", downloading: "downloading", seeding: "seeding", "queued-check": "waits for a check",
  "queued-download": "queued", "queued-seed": "queued", moving: "moving", paused: "paused", failed: "failed",
  hashing: "hashing", "queued-hash": "waits to be hashed",
};

const BUSY = new Set(["checking", "moving", "hashing"]);

export function meterClass(torrent) {
  if (torrent.state === "failed") return "meter failed";
  if (torrent.state === "paused") return "meter idle";
  return part(torrent) >= 1 ? "meter done" : "meter";
}

export const stateClass = (torrent) => `state ${BUSY.has(torrent.state) ? "busy" : torrent.state}`;

export function stateWords(torrent) {
  if (torrent.state === "checking" || torrent.state === "hashing") return `${torrent.state} ${percent(torrent.check_progress, 1)}`;
  if (torrent.state === "paused" && torrent.limit_reached) return "done seeding";
  return torrent.stalled && torrent.state === "downloading" ? "stalled" : STATES[torrent.state] ?? torrent.state;
}

export function part(torrent) {
  if (isHashed(torrent)) return torrent.check_progress;
  return torrent.bytes_wanted > 0 ? torrent.bytes_wanted_have / torrent.bytes_wanted : 1;
}

/** How much of it is here, or is hashed. */
export function done(torrent) {
  return isHashed(torrent) ? percent(torrent.check_progress, 1) : percent(torrent.bytes_wanted_have, torrent.bytes_wanted);
}

/** The same with its size, which is not known before its files are found. */
export function doneOf(torrent) {
  return isHashed(torrent) && torrent.bytes_wanted === 0 ? done(torrent) : `${done(torrent)} of ${bytes(torrent.bytes_wanted)}`;
}

/** Characters at the end of a long name that are always shown: names of a series differ there. */
const TAIL = 12;

/** Two parts of a name of which the first gives way: what is too long is cut in its middle. */
export class MiddleCut {
  constructor(node) {
    this.node = node;
    this.head = el("span", { class: "head" });
    this.tail = el("span", { class: "tail" });
    node.classList.add("middle");
    node.append(this.head, this.tail);
  }

  show(shown) {
    if (this.shown === shown) return;
    this.shown = shown;
    const letters = [...shown];
    const cut = letters.length > 2 * TAIL ? letters.length - TAIL : letters.length;
    this.head.textContent = letters.slice(0, cut).join("");
    this.tail.textContent = letters.slice(cut).join("");
    setAttr(this.node, "title", shown);
    setAttr(this.node, "aria-label", shown);
  }
}
