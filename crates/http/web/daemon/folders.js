// Choosing a folder or file of the daemon's machine.

import { debounce, el, setAttr, setHidden, setText } from "../common/dom.js";
import { bytes, number } from "../common/format.js";
import { ask } from "../common/live.js";
import { field, formDialog, newId, text } from "./dialogs.js";
import { asOwner } from "./login.js";

const below = (folder, name) => (folder.endsWith("/") ? folder + name : `${folder}/${name}`);

/**
 * Lets somebody choose one, beginning at `at`; `share` allows files as well. Gives its path, or `null`.
 */
function choose({ at, share }) {
  const title = share ? "Choose a file or folder" : "Choose a folder";
  const here = el("p", { class: "mono wrap", id: "choose-here", role: "status" });
  const filter = el("input", { type: "search", id: "choose-filter", placeholder: "part of a name", autocomplete: "off", spellcheck: false });
  const entries = el("ul", { class: "found entries", "aria-label": "What is in it" });
  const said = el("p", { class: "soft small", role: "status" });
  const roots = el("div", { class: "chips" });
  let list = null;
  let chosen = null;
  let asked = 0;

  const open = async (path) => {
    const mine = (asked += 1);
    const query = new URLSearchParams({ for: share ? "share" : "output", ...(path ? { path } : {}) });
    try {
      const answer = await asOwner(() => ask(`/folders?${query}`));
      if (mine !== asked) return;
      list = answer;
      filter.value = "";
      show();
    } catch (fault) {
      if (fault.status === undefined) throw fault;
      if (mine !== asked) return;
      // What was typed leads nowhere that may be looked into.
      if (list === null && path) await open(null);
      setText(said, fault.message);
      said.classList.add("bad");
    }
  };

  /** One entry; of all of them one is reached by Tab, the others by the arrow keys. */
  const entry = (label, name, run) => {
    const button = el("button", { type: "button", class: "plain", tabIndex: -1, text: name, onclick: run });
    if (label) button.ariaLabel = label;
    return el("li", {}, button);
  };
  const take = (path) => {
    chosen = path;
    node.close();
  };
  const show = () => {
    const wanted = filter.value.trim().toLowerCase();
    const fits = (name) => name.toLowerCase().includes(wanted);
    const had = entries.contains(document.activeElement);
    const { path } = list;
    setText(here, path);
    const rows = list.parent === null ? [] : [entry("The folder above", "↑ ..", () => open(list.parent))];
    rows.push(...list.folders.filter(fits).map((name) => entry(null, `${name}/`, () => open(below(path, name)))));
    rows.push(...list.files.filter(fits).map((name) => entry(`Choose the file ${name}`, name, () => take(below(path, name)))));
    entries.replaceChildren(...rows);
    setHidden(entries, rows.length === 0);
    const first = entries.querySelector("button");
    if (first) first.tabIndex = 0;
    if (had) (first ?? filter).focus();
    const count = list.folders.length + list.files.length;
    said.classList.remove("bad");
    setText(said, list.more ? `The first ${number(count)} are shown: type the path of another.` : count === 0 ? (share ? "Nothing is in it." : "No folder is in it.") : rows.length === 0 ? "Nothing has that in its name." : "");
    roots.replaceChildren(...list.roots.map((root) => el("button", { type: "button", class: "chip", text: root, onclick: () => open(root) })));
    for (const chip of roots.children) setAttr(chip, "aria-pressed", chip.textContent === path);
    setHidden(roots, list.roots.length < 2);
  };
  filter.addEventListener("input", debounce(60, () => list && show()));
  filter.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") {
      event.preventDefault();
      entries.querySelector("button")?.focus();
    }
  });
  entries.addEventListener("keydown", (event) => {
    const all = [...entries.querySelectorAll("button")];
    const now = all.indexOf(document.activeElement);
    const to = { ArrowDown: now + 1, ArrowUp: now - 1, Home: 0, End: all.length - 1, PageDown: Math.min(now + 8, all.length - 1), PageUp: Math.max(now - 8, 0) }[event.key];
    if (event.key === "ArrowLeft" && list.parent !== null) open(list.parent);
    else if (event.key === "ArrowRight" && all[now]?.textContent.endsWith("/")) all[now].click();
    else if (to === undefined) return;
    event.preventDefault();
    if (to === -1) filter.focus();
    if (!all[to]) return;
    all[now].tabIndex = -1;
    all[to].tabIndex = 0;
    all[to].focus();
  });

  const { node } = formDialog({
    title, action: "Use this folder", id: "choose-yes",
    content: [here, roots, field("Look for", filter), entries, said],
    submit: () => {
      if (list === null) throw new RangeError("no folder is shown yet");
      chosen = list.path;
    },
  });
  node.classList.add("choosing");
  filter.focus();
  open(at);
  return new Promise((done) => node.addEventListener("close", () => done(chosen)));
}

/** Puts a button beside `input`, which has its place already, that lets somebody choose what to write there. */
export function withChooser(input, { share = false, at = () => input.value.trim() } = {}) {
  const button = el("button", { type: "button", class: "browse", text: "Browse …", ariaLabel: share ? "Browse for a file or folder" : "Browse for a folder", onclick: async () => {
    const path = await choose({ at: at(), share });
    if (path !== null) {
      input.value = path;
      input.dispatchEvent(new Event("input", { bubbles: true }));
    }
    input.focus();
  } });
  const pair = el("div", { class: "pair-field" });
  input.replaceWith(pair);
  pair.append(input, button);
}

/** A folder of the daemon's machine, with the room that is left there. */
export function folderField(label, value, { hint = null, placeholder = "", id = newId("folder"), autofocus = false } = {}) {
  const input = text(value, { placeholder, id, autofocus, class: "mono" });
  const room = el("p", { class: "soft small", role: "status" });
  const node = field(label, input, hint);
  withChooser(input, { at: () => input.value.trim() || placeholder });
  node.append(room);
  let asked = 0;
  const look = async () => {
    const mine = (asked += 1);
    const folder = input.value.trim() || placeholder;
    let told = "";
    if (folder) {
      try {
        const space = await ask(`/free-space?path=${encodeURIComponent(folder)}`);
        told = `${bytes(space.free)} of ${bytes(space.total)} are free there`;
      } catch (fault) {
        if (fault.status === undefined) throw fault;
        told = fault.message;
      }
    }
    if (mine === asked) setText(room, told);
  };
  input.addEventListener("input", debounce(300, look));
  look();
  return { node, input, value: () => input.value.trim() };
}
