// How a torrent stands, in words and as a bar: the list and its own view say the same.

import { bytes, percent } from "../common/format.js";
import { isHashed, isLinked } from "./actions.js";

const STATES = {
  checking: "checking", downloading: "downloading", seeding: "seeding", "queued-check": "waits for a check",
  "queued-download": "queued", "queued-seed": "queued", moving: "moving", paused: "paused", failed: "failed",
  hashing: "hashing", "queued-hash": "waits to be hashed", metadata: "looking for metadata",
};

const BUSY = new Set(["checking", "moving", "hashing", "metadata"]);

export function meterClass(torrent) {
  if (torrent.state === "failed") return "meter failed";
  if (torrent.state === "paused") return "meter idle";
  return part(torrent) >= 1 ? "meter done" : "meter";
}

export const stateClass = (torrent) => `state ${BUSY.has(torrent.state) ? "busy" : torrent.state}`;

export function stateWords(torrent) {
  if (torrent.state === "checking" || torrent.state === "hashing") return `${torrent.state} ${percent(torrent.check_progress, 1)}`;
  if (torrent.state === "metadata" && torrent.metadata_progress > 0) return `metadata ${percent(torrent.metadata_progress, 1)}`;
  if (torrent.state === "paused" && torrent.limit_reached) return "done seeding";
  return torrent.stalled && torrent.state === "downloading" ? "stalled" : STATES[torrent.state] ?? torrent.state;
}

export function part(torrent) {
  if (isHashed(torrent)) return torrent.check_progress;
  if (isLinked(torrent)) return 0;
  return torrent.bytes_wanted > 0 ? torrent.bytes_wanted_have / torrent.bytes_wanted : 1;
}

/** How much of it is here, or is hashed. */
export function done(torrent) {
  if (isLinked(torrent)) return percent(0, 1);
  return isHashed(torrent) ? percent(torrent.check_progress, 1) : percent(torrent.bytes_wanted_have, torrent.bytes_wanted);
}

/** The same with its size, which is not known before its files are found or its metadata is here. */
export function doneOf(torrent) {
  if (isLinked(torrent)) return "size not known yet";
  return isHashed(torrent) && torrent.bytes_wanted === 0 ? done(torrent) : `${done(torrent)} of ${bytes(torrent.bytes_wanted)}`;
}
