// What can be done to a torrent, with the questions that come before.

import { announce, el, notice } from "../common/dom.js";
import { ask } from "../common/live.js";
import { bytes, plural } from "../common/format.js";

/** Whether it is at rest because somebody said so. */
export const isPaused = (torrent) => torrent.state === "paused" || torrent.state === "failed";

/** Whether it is made of files of this machine, which are hashed or wait for that. */
export const isHashed = (torrent) => torrent.state === "hashing" || torrent.state === "queued-hash";

/** Says what went wrong, and that it did. */
async function attempt(work, done) {
  try {
    const answer = await work();
    if (done) announce(done);
    return { ok: true, answer };
  } catch (fault) {
    notice(fault.message, "bad");
    return { ok: false };
  }
}

export function act(torrent, action, done) {
  return attempt(() => ask(`/torrents/${torrent.info_hash}/${action}`, { method: "POST" }), done);
}

export function toggle(torrent) {
  const paused = isPaused(torrent);
  return act(torrent, paused ? "resume" : "pause", `${torrent.name}: ${paused ? "resumed" : "paused"}`);
}

/** A dialog that is closed by Escape, by its buttons, and gone then. */
function dialog(title, ...content) {
  const heading = el("h2", { id: "dialog-title", text: title });
  const node = el("dialog", { "aria-labelledby": "dialog-title" }, heading, ...content);
  node.addEventListener("close", () => node.remove());
  node.addEventListener("click", (event) => {
    if (event.target === node) node.close();
  });
  document.body.append(node);
  node.showModal();
  return node;
}

export function remove(torrent, gone = () => {}) {
  const data = el("input", { type: "checkbox", id: "delete-data" });
  const go = el("button", { type: "button", class: "danger main", id: "remove-yes", text: "Remove", onclick: async () => {
    const path = `/torrents/${torrent.info_hash}?delete_data=${data.checked}`;
    const { ok } = await attempt(() => ask(path, { method: "DELETE" }), `${torrent.name} is removed`);
    if (!ok) return;
    node.close();
    gone();
  } });
  data.addEventListener("change", () => {
    go.textContent = data.checked ? "Remove and delete files" : "Remove";
  });
  const node = dialog(
    `Remove ${torrent.name}?`,
    el("p", { text: isHashed(torrent) ? "Its hashing ends, and it is not shared. Its files stay as they are."
      : "It leaves the swarm and this list. What was recorded about it stays in the journal." }),
    isHashed(torrent) ? "" : el("label", { class: "check", for: "delete-data" }, data, el("span", {}, "Delete its files as well: ", el("b", { text: bytes(torrent.bytes_have) }), ` in ${torrent.folder}`)),
    el("div", { class: "tools" }, el("button", { type: "button", text: "Keep it", autofocus: true, onclick: () => node.close() }), go),
  );
}

/** The whole file as base64: in chunks, because a call takes only so many arguments. */
async function base64(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text = "";
  for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(text);
}

async function leech(source, said) {
  const { ok, answer } = await attempt(() => ask("/leech", { method: "POST", body: { source } }));
  if (!ok) return null;
  const told = answer.duplicate ? `${answer.name} is here already` : `${answer.name} is added`;
  notice([told, ...answer.warnings].join("; "));
  said?.();
  return answer;
}

async function addFiles(files) {
  for (const file of files) {
    if (file.size > 10 * 1024 * 1024) {
      notice(`${file.name} has ${bytes(file.size)}; a .torrent may have 10 MiB`, "bad");
    } else await leech({ torrent: await base64(file) });
  }
}

/** By file, or by name from the tracker's catalogue. */
export function add() {
  const file = el("input", { type: "file", accept: ".torrent,application/x-bittorrent", multiple: true, class: "sr", id: "torrent-file", onchange: async () => {
    node.close();
    await addFiles([...file.files]);
  } });
  const name = el("input", { type: "search", id: "catalogue-name", placeholder: "part of a name", autocomplete: "off", spellcheck: false });
  const found = el("ul", { class: "found", tabIndex: 0, "aria-label": "Catalogue" });
  const said = el("p", { class: "soft small", role: "status", text: "Asking the tracker …" });
  let all = [];
  const show = () => {
    const wanted = name.value.trim().toLowerCase();
    const fits = all.filter((entry) => entry.name.toLowerCase().includes(wanted) || entry.info_hash.startsWith(wanted));
    said.textContent = all.length === 0 ? "The tracker's catalogue is empty. Put something into it with: torrent-seed --input FILE"
      : fits.length === 0 ? "Nothing has that in its name." : `${plural(fits.length, "torrent")}${fits.length > 100 ? "; the first 100" : ""}`;
    found.replaceChildren(...fits.slice(0, 100).map((entry) => el("li", {},
      el("span", {}, el("span", { text: entry.name }), el("br"), el("span", { class: "soft small", text: `${bytes(entry.size)} · ${plural(entry.complete, "seed")}, ${plural(entry.incomplete, "leecher")}` })),
      el("button", { type: "button", text: "Add", ariaLabel: `Add ${entry.name}`, onclick: () => leech({ catalogue: { name: entry.info_hash, tracker: null } }, () => node.close()) }))));
  };
  name.addEventListener("input", show);
  const node = dialog(
    "Add a torrent",
    el("p", { text: "A .torrent file: choose it, or drop it anywhere on this page." }),
    el("div", { class: "tools start" }, file, el("label", { class: "button", for: "torrent-file", text: "Choose a file" })),
    el("hr"),
    el("label", { for: "catalogue-name", text: "Or one of the tracker's catalogue" }),
    name, said, found,
    el("div", { class: "tools" }, el("button", { type: "button", text: "Close", onclick: () => node.close() })),
  );
  ask("/torrents").then((answer) => {
    all = answer.torrents;
    show();
  }, (fault) => {
    said.textContent = `The tracker gives no catalogue: ${fault.message}`;
    said.classList.add("bad");
  });
}

/** Takes what is dropped on the page, whatever it shows. */
export function takeDrops() {
  let depth = 0;
  const is = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const mark = (on) => document.body.classList.toggle("dropping", on);
  const handlers = {
    dragenter: (event) => {
      if (!is(event)) return;
      event.preventDefault();
      depth += 1;
      mark(true);
    },
    dragover: (event) => {
      if (is(event)) event.preventDefault();
    },
    dragleave: () => {
      depth = Math.max(0, depth - 1);
      if (depth === 0) mark(false);
    },
    drop: (event) => {
      depth = 0;
      mark(false);
      if (!is(event)) return;
      event.preventDefault();
      addFiles([...event.dataTransfer.files]);
    },
  };
  for (const [name, handle] of Object.entries(handlers)) addEventListener(name, handle);
}
