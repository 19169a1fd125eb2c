// Keys of the whole page, and the list of all keys.

import { el } from "../common/dom.js";
import { dialog } from "./dialogs.js";

const KEYS = [
  ["Anywhere", [
    ["?", "this list"], ["/", "find"], ["a", "add a torrent"], ["h", "share a file or folder of the daemon's machine"],
    ["t", "the second pair of limits, on and off"], ["s", "settings"], ["l", "the list of torrents"],
  ]],
  ["In the list", [
    ["↑ ↓", "the torrent above, below"], ["Page ↑ ↓, Home, End", "further"], ["Enter", "its own view"],
    ["Space", "select it"], ["Shift ↑ ↓", "select several"], ["Ctrl A", "select all that are shown"], ["Esc", "select none"],
    ["m, Shift F10", "what can be done to it, or to all selected"], ["p", "pause or resume"], ["Delete", "remove"],
  ]],
  ["In a torrent's view", [
    ["p", "pause or resume"], ["m", "what can be done to it"], ["Delete", "remove"], ["← → ↑ ↓", "in a map: the next piece"], ["Esc", "back"],
  ]],
];

export function showKeys() {
  const groups = KEYS.map(([title, keys]) => el("section", {}, el("h3", { text: title }),
    el("dl", { class: "keys" }, keys.flatMap(([key, what]) => [el("dt", {}, el("kbd", { text: key })), el("dd", { text: what })]))));
  const node = dialog("Keys", el("div", { class: "key-groups" }, groups),
    el("div", { class: "tools" }, el("button", { type: "button", text: "Close", autofocus: true, onclick: () => node.close() })));
}

/** Whether a key was meant for what has the focus. */
function isTyping(target) {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName) && target.type !== "checkbox");
}

/** `commands`: what to do at a key; `view()` is asked about other keys. */
export function listenToKeys(commands, view) {
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || isTyping(event.target)) return;
    const run = commands[event.key];
    if (run) run();
    else if (!view()?.key?.(event)) return;
    event.preventDefault();
  });
}
