// Making and changing elements. Text comes from strangers: it only ever becomes text.

// What must not be obeyed: control characters, and those that reorder or hide text.
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** `text` with control and other invisible characters written as escapes. */
export function visible(text) {
  return String(text ?? "").replace(UNSAFE, (c) => {
    const code = c.charCodeAt(0);
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`;
  });
}

/**
 * An element. Of `props`, `class`, `text`, `on…` and `data` mean what they say; other names with a dash,
 * `role`, `for` and the like become attributes, the rest properties.
 */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (key === "class") node.className = value;
    else if (key === "text") node.textContent = visible(value);
    else if (key === "data") Object.assign(node.dataset, value);
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in node && !ATTRIBUTES.has(key)) node[key] = value;
    else node.setAttribute(key, value);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) node.append(typeof child === "string" ? visible(child) : child);
  }
  return node;
}

const ATTRIBUTES = new Set(["role", "for", "list", "form"]);

/** A small picture from one path in a square of 16. */
export function icon(path) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(space, "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

/** Puts `text` into `node` unless it is there already; writing costs a layout. */
export function setText(node, text) {
  const shown = visible(text);
  if (node.textContent !== shown) node.textContent = shown;
}

export function setAttr(node, name, value) {
  if (value === null || value === undefined) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

export function setHidden(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

const jobs = new Set();
let asked = 0;

/** Calls `job` once before the next frame, however often it is asked for. */
export function beforeFrame(job) {
  jobs.add(job);
  asked ||= requestAnimationFrame(() => {
    asked = 0;
    const now = [...jobs];
    jobs.clear();
    for (const job of now) job();
  });
}

/** A function that runs `job` once things have been quiet for `ms` milliseconds. */
export function debounce(ms, job) {
  let timer = 0;
  const later = (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => job(...args), ms);
  };
  later.cancel = () => clearTimeout(timer);
  return later;
}

/** Says `text` to those who listen instead of looking. */
export function announce(text) {
  const node = document.getElementById("said");
  if (node) setText(node, text);
}

/** A short notice at the foot of the page, and to screen readers. */
export function notice(text, kind = "") {
  const box = document.getElementById("notices");
  const node = el("div", { class: `notice ${kind}`, role: kind === "bad" ? "alert" : "status" });
  const close = el("button", { class: "plain", type: "button", text: "×", ariaLabel: "Close this notice", onclick: () => node.remove() });
  box.append(node);
  node.append(el("p", { text }), close);
  while (box.children.length > 4) box.firstElementChild.remove();
  if (kind !== "bad") setTimeout(() => node.remove(), 8000);
}

/** What holds until the program says otherwise: a disk that is full, records that are lost. */
export function showStanding(list) {
  const box = document.getElementById("standing");
  box.replaceChildren(...list.map((text) => el("p", { text })));
  setHidden(box, list.length === 0);
}

/** A labelled section: its heading, a place for something to its right, and its content. */
export function section(id, title, aside, ...children) {
  const heading = el("h2", { id: `${id}-title`, text: title });
  const head = el("div", { class: "section-head" }, heading, aside);
  return el("section", { id, class: "card", "aria-labelledby": `${id}-title` }, head, ...children);
}

/** What to do where there is nothing yet; `commands` are lines to type. */
export function empty(title, text, ...commands) {
  const node = el("div", { class: "empty" }, el("p", { class: "lead", text: title }), el("p", { text }));
  for (const command of commands) node.append(el("pre", { tabIndex: 0 }, el("code", { text: command })));
  return node;
}
