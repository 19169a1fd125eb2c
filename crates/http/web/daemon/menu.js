// The menu of one torrent or of all that are selected: by the other mouse button, by a key, or by a button.

import { el } from "../common/dom.js";
import { act, change, copy, download, isHashed, isLinked, isPaused, namesOf, queue, remove } from "./actions.js";
import { editLabels, editLimits, editTrackers, moveData, rename } from "./changes.js";

let open = null;

/** What can be done to these torrents: `[label, what to do]`, a third `true` for a mark; `null` is a line. */
export function entries(torrents, { gone } = {}) {
  const one = torrents.length === 1 ? torrents[0] : null;
  const every = (test) => torrents.every(test);
  const some = (test) => torrents.some(test);
  if (every(isHashed)) return [["Remove …", () => remove(torrents, gone)]];
  if (every(isLinked)) {
    return [
      some(isPaused) && ["Resume", () => act(torrents, "resume", "resumed")],
      some((t) => !isPaused(t)) && ["Pause", () => act(torrents, "pause", "paused")],
      null,
      ["Limits and priority …", () => editLimits(torrents)],
      ["Labels …", () => editLabels(torrents)],
      one && ["Copy the info-hash", () => copy(one.info_hash)],
      null,
      ["Remove …", () => remove(torrents, gone)],
    ].filter((entry) => entry !== false);
  }
  const sequential = every((t) => t.settings.sequential);
  return [
    some(isPaused) && ["Resume", () => act(torrents, "resume", "resumed")],
    some((t) => !isPaused(t)) && ["Pause", () => act(torrents, "pause", "paused")],
    ["Start now, whatever the queue says", () => act(torrents, "start-now", "started")],
    some((t) => t.state === "failed") && ["Replace files that have its names", () => act(torrents, "overwrite", "files are replaced")],
    null,
    ["Ask trackers again", () => act(torrents, "reannounce", "trackers are asked")],
    ["Check files anew", () => act(torrents, "recheck", "being checked")],
    null,
    ["Limits and priority …", () => editLimits(torrents)],
    ["Pieces in order", () => change(torrents, { sequential: !sequential }, sequential ? "rarest pieces first" : "pieces in order"), sequential],
    ["Labels …", () => editLabels(torrents)],
    ["Trackers …", () => editTrackers(torrents)],
    ["Move files …", () => moveData(torrents)],
    one && ["Rename …", () => rename(one, one.name)],
    null,
    ["To the front of the queue", () => queue(torrents, "top")],
    ["Forward in the queue", () => queue(torrents, "up")],
    ["Back in the queue", () => queue(torrents, "down")],
    ["To the end of the queue", () => queue(torrents, "bottom")],
    null,
    [one ? "Download the .torrent" : "Download the .torrent files", () => download(torrents)],
    one && ["Copy the info-hash", () => copy(one.info_hash)],
    null,
    ["Remove …", () => remove(torrents, gone)],
  ].filter((entry) => entry !== false);
}

/** Shows the menu with its corner at `x`, `y`; when it closes the focus goes back to where it was. */
export function showMenu(torrents, x, y, more = {}) {
  open?.close();
  const before = document.activeElement;
  const items = [];
  const menu = el("div", { class: "menu", role: "menu", "aria-label": namesOf(torrents), tabIndex: -1 });
  const title = el("p", { class: "menu-title", "aria-hidden": "true", text: namesOf(torrents) });
  menu.append(title);
  let line = false;
  for (const entry of entries(torrents, more)) {
    if (!entry) {
      line = items.length > 0;
      continue;
    }
    if (line) menu.append(el("div", { role: "separator" }));
    line = false;
    const [label, run, marked] = entry;
    const item = el("div", { role: marked === undefined ? "menuitem" : "menuitemcheckbox", tabIndex: -1, text: label, "aria-checked": marked === undefined ? null : String(marked) });
    item.addEventListener("click", () => {
      close();
      run();
    });
    item.addEventListener("pointermove", () => item.focus());
    items.push(item);
    menu.append(item);
  }
  const close = () => {
    if (open?.menu !== menu) return;
    open = null;
    menu.remove();
    for (const [name, handle] of Object.entries(outside)) removeEventListener(name, handle, true);
    if (before?.isConnected) before.focus();
  };
  const outside = {
    pointerdown: (event) => {
      if (!menu.contains(event.target)) close();
    },
    resize: close,
    hashchange: close,
    blur: (event) => {
      if (event.target === window) close();
    },
  };
  menu.addEventListener("keydown", (event) => {
    event.stopPropagation();
    const at = items.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at < 0 ? items.length - 1 : at - 1, Home: 0, End: items.length - 1 }[event.key];
    if (to !== undefined) items[(to + items.length) % items.length].focus();
    else if (event.key === "Escape" || event.key === "Tab") close();
    else if ((event.key === "Enter" || event.key === " ") && at >= 0) items[at].click();
    else if (event.key.length === 1) {
      const wanted = event.key.toLowerCase();
      const order = [...items.slice(at + 1), ...items.slice(0, at + 1)];
      order.find((item) => item.textContent.toLowerCase().startsWith(wanted))?.focus();
    } else return;
    event.preventDefault();
  });
  menu.addEventListener("contextmenu", (event) => event.preventDefault());
  document.getElementById("main").append(menu);
  const box = menu.getBoundingClientRect();
  menu.style.left = `${Math.max(4, Math.min(x, innerWidth - box.width - 4))}px`;
  menu.style.top = `${Math.max(4, Math.min(y, innerHeight - box.height - 4))}px`;
  for (const [name, handle] of Object.entries(outside)) addEventListener(name, handle, true);
  open = { menu, close };
  items[0]?.focus();
}

/** The same below a button. */
export function showMenuBelow(button, torrents, more) {
  const box = button.getBoundingClientRect();
  showMenu(torrents, box.left, box.bottom + 4, more);
}
