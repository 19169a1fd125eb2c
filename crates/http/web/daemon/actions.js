// What can be done to torrents: one, or all that are selected.

import { announce, el, notice } from "../common/dom.js";
import { bytes, plural } from "../common/format.js";
import { ask, askBlob } from "../common/live.js";
import { check, formDialog } from "./dialogs.js";
import { asOwner } from "./login.js";

/** Whether it is at rest because somebody said so. */
export const isPaused = (torrent) => torrent.state === "paused" || torrent.state === "failed";

/** Whether it is made of files of this machine, which are hashed or wait for that. */
export const isHashed = (torrent) => torrent.state === "hashing" || torrent.state === "queued-hash";

/** Whether only its magnet link is known. */
export const isLinked = (torrent) => torrent.metadata_progress < 1;

/** Requests that are under way at a time for many torrents. */
const AT_A_TIME = 6;

export const pathOf = (torrent) => `/torrents/${torrent.info_hash}`;

export const namesOf = (torrents) => (torrents.length === 1 ? torrents[0].name : plural(torrents.length, "torrent"));

/**
 * Does `work` for each of the torrents. What fails is said once, with how many failed. Gives the number of
 * those for which it worked.
 */
export async function forEach(torrents, work, done = null) {
  const left = [...torrents];
  const faults = [];
  const worker = async () => {
    for (let torrent = left.shift(); torrent; torrent = left.shift()) {
      try {
        await asOwner(() => work(torrent));
      } catch (fault) {
        if (fault.status === undefined) throw fault;
        faults.push(fault.message);
        // Whoever does not log in for one is not asked again for each.
        if (fault.status === 401) faults.push(...left.splice(0).map(() => fault.message));
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_A_TIME, left.length) }, worker));
  const worked = torrents.length - faults.length;
  if (faults.length > 0) notice(torrents.length === 1 ? faults[0] : `${faults.length} of ${torrents.length} failed: ${faults[0]}`, "bad");
  if (worked > 0 && done) announce(`${namesOf(torrents)}: ${done}`);
  return worked;
}

/** The same for a dialog: what fails for one torrent is thrown, so that the dialog stays and says it. */
export async function edit(torrents, work, done) {
  if (torrents.length > 1) return forEach(torrents, work, done);
  await asOwner(() => work(torrents[0]));
  announce(`${torrents[0].name}: ${done}`);
  return 1;
}

/** One of the actions without a body: `pause`, `resume`, `start-now`, `recheck`, `reannounce`, `overwrite`. */
export function act(torrents, action, done) {
  return forEach(torrents, (torrent) => ask(`${pathOf(torrent)}/${action}`, { method: "POST" }), done);
}

export function toggle(torrent) {
  const paused = isPaused(torrent);
  return act([torrent], paused ? "resume" : "pause", paused ? "resumed" : "paused");
}

/** Pauses all if one of them runs, and resumes all else. */
export function toggleAll(torrents) {
  const running = torrents.some((torrent) => !isPaused(torrent));
  return act(torrents, running ? "pause" : "resume", running ? "paused" : "resumed");
}

const patch = (body) => (torrent) => ask(pathOf(torrent), { method: "PATCH", body });

export function change(torrents, body, done = "changed") {
  return forEach(torrents, patch(body), done);
}

/** The same for a dialog. */
export function editSettings(torrents, body, done) {
  return edit(torrents, patch(body), done);
}

export async function queue(torrents, to) {
  const body = { torrents: torrents.map((torrent) => torrent.info_hash), to };
  try {
    await asOwner(() => ask("/queue", { method: "POST", body }));
    announce(`${namesOf(torrents)}: moved in the queue`);
  } catch (fault) {
    if (fault.status === undefined) throw fault;
    notice(fault.message, "bad");
  }
}

/** Asks first. `gone` is called when they are removed. */
export function remove(torrents, gone = () => {}) {
  const hashed = torrents.every(isHashed);
  const empty = torrents.every((torrent) => isHashed(torrent) || isLinked(torrent));
  const data = check("", false, { id: "delete-data" });
  const size = torrents.reduce((sum, torrent) => sum + torrent.bytes_have, 0);
  const folders = new Set(torrents.map((torrent) => torrent.folder));
  data.node.lastChild.append("Delete the files as well: ", el("b", { text: bytes(size) }), ` in ${[...folders][0]}${folders.size > 1 ? ` and ${plural(folders.size - 1, "other folder")}` : ""}`);
  const { go, form } = formDialog({
    title: `Remove ${namesOf(torrents)}?`, action: "Remove", id: "remove-yes", danger: true, cancel: torrents.length === 1 ? "Keep it" : "Keep them",
    content: [
      el("p", { text: hashed ? "The hashing ends, and nothing is shared. The files stay as they are."
        : "This leaves the swarm and the list. What was recorded stays in the journal." }),
      ...(empty ? [] : [data.node]),
    ],
    submit: async () => {
      const path = `?delete_data=${data.input.checked}`;
      const worked = await forEach(torrents, (torrent) => ask(pathOf(torrent) + path, { method: "DELETE" }), "removed");
      if (worked > 0) gone();
    },
  });
  // Nothing is removed by one key too many.
  form.querySelector("button[type=button]").focus();
  data.input.addEventListener("change", () => {
    go.textContent = data.input.checked ? "Remove and delete files" : "Remove";
  });
}

/** Has the browser keep the `.torrent` of each as a file. */
export function download(torrents) {
  return forEach(torrents, async (torrent) => {
    const url = URL.createObjectURL(await askBlob(`${pathOf(torrent)}/torrent`));
    const link = el("a", { href: url, download: `${torrent.name}.torrent` });
    document.body.append(link);
    link.click();
    link.remove();
    // The browser has begun by then; the memory is given back.
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  }, "the .torrent is downloaded");
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    notice("Copied");
  } catch {
    // Browsers allow it to pages of this machine and to those with HTTPS only.
    notice(`This browser does not let the page copy. It is: ${text}`);
  }
}
