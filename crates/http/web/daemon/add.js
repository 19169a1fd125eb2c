// Adding torrents: by file, address, magnet link, or name in the tracker's catalogue; then folder, files and
// whether it starts.

import { debounce, el, notice, setHidden, setText } from "../common/dom.js";
import { bytes, plural } from "../common/format.js";
import { List } from "../common/list.js";
import { ask } from "../common/live.js";
import { check, dialog, field, formDialog, text, wordsOf } from "./dialogs.js";
import { folderField } from "./folders.js";
import { asOwner } from "./login.js";

/** Bytes of the largest `.torrent` that the daemon takes of anybody. */
const LARGEST = 100 * 1024 * 1024;

/** Entries of the catalogue that are shown at a time. */
const SHOWN = 100;

const HASH = /^[0-9a-f]{40}$/i;

/** The whole file as base64: in chunks, because a call takes only so many arguments. */
async function base64(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text = "";
  for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(text);
}

async function sourceOf(file) {
  if (file.size > LARGEST) throw new RangeError(`${file.name} has ${bytes(file.size)}; a .torrent may have ${bytes(LARGEST)}`);
  return { torrent: await base64(file) };
}

/** What somebody typed: an info-hash is looked for in the catalogue, everything else is for the daemon to say. */
function sourceOfText(typed) {
  if (HASH.test(typed)) return { catalogue: { name: typed.toLowerCase(), tracker: null } };
  return { url: typed };
}

/** Takes files that were chosen or dropped: the options of one, or those that all have in common. */
export async function addFiles(files) {
  try {
    if (files.length === 1) await options(await sourceOf(files[0]), files[0].name);
    else if (files.length > 1) await severalOptions(files);
  } catch (fault) {
    if (fault.status === undefined && !(fault instanceof RangeError)) throw fault;
    notice(`${files.length === 1 ? `${files[0].name}: ` : ""}${fault.message}`, "bad");
  }
}

/** Where a torrent comes from. */
export function add() {
  const file = el("input", { type: "file", accept: ".torrent,application/x-bittorrent", multiple: true, class: "sr", id: "torrent-file", onchange: async () => {
    node.close();
    await addFiles([...file.files]);
  } });
  const link = text("", { id: "add-link", placeholder: "https://…, magnet:…, or an info-hash", class: "mono", autofocus: true });
  const fault = el("p", { class: "bad", role: "alert", hidden: true });
  const next = el("button", { type: "submit", class: "main", id: "add-next", text: "Next" });
  const go = async (source, button) => {
    button.disabled = true;
    setHidden(fault, true);
    try {
      await options(source, null, () => node.close());
    } catch (error) {
      if (error.status === undefined) throw error;
      setText(fault, error.message);
      setHidden(fault, false);
    } finally {
      button.disabled = false;
    }
  };
  const form = el("form", { method: "dialog", novalidate: true }, field("Link", link, "The address of a .torrent file, a magnet link, or the info-hash of one in the tracker's catalogue."));
  const pair = el("div", { class: "pair-field" });
  link.replaceWith(pair);
  pair.append(link, next);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const typed = link.value.trim();
    if (typed !== "") go(sourceOfText(typed), next);
  });
  const node = dialog(
    "Add a torrent",
    el("p", { text: "A .torrent file: choose it, or drop it anywhere on this page." }),
    el("div", { class: "tools start" }, file, el("label", { class: "button", for: "torrent-file", text: "Choose files" })),
    form, fault, el("hr"), ...catalogue(go),
    el("div", { class: "tools" }, el("button", { type: "button", text: "Close", onclick: () => node.close() })),
  );
}

/** The tracker's catalogue with a field to search it. */
function catalogue(go) {
  const name = el("input", { type: "search", id: "catalogue-name", placeholder: "part of a name", autocomplete: "off", spellcheck: false });
  const found = el("ul", { class: "found", tabIndex: 0, "aria-label": "Catalogue" });
  const said = el("p", { class: "soft small", role: "status", text: "Asking the tracker …" });
  let all = [];
  const show = () => {
    const wanted = name.value.trim().toLowerCase();
    const fits = all.filter((entry) => entry.name.toLowerCase().includes(wanted) || entry.info_hash.startsWith(wanted));
    setText(said, all.length === 0 ? "The tracker's catalogue is empty. Put something into it with: torrent-seed --input FILE"
      : fits.length === 0 ? "Nothing has that in its name." : `${plural(fits.length, "torrent")}${fits.length > SHOWN ? `; the first ${SHOWN}` : ""}`);
    found.replaceChildren(...fits.slice(0, SHOWN).map((entry) => {
      const button = el("button", { type: "button", text: "Add", ariaLabel: `Add ${entry.name}`, onclick: () => go({ catalogue: { name: entry.info_hash, tracker: null } }, button) });
      return el("li", {}, el("span", {}, el("span", { text: entry.name }), el("br"), el("span", { class: "soft small", text: `${bytes(entry.size)} · ${plural(entry.complete, "seed")}, ${plural(entry.incomplete, "leecher")}` })), button);
    }));
  };
  name.addEventListener("input", debounce(80, show));
  ask("/torrents").then((answer) => {
    all = answer.torrents;
    show();
  }, (fault) => {
    setText(said, `The tracker gives no catalogue: ${fault.message}`);
    said.classList.add("bad");
  });
  return [field("Or one of the tracker's catalogue", name), said, found];
}

/** Fields that every torrent has that is added. */
function commonFields(settings) {
  const folder = folderField("Folder", "", { id: "add-folder", placeholder: settings.downloads, hint: "On the daemon's machine; empty: its downloads folder." });
  const labels = text("", { id: "add-labels", placeholder: "with commas between" });
  const start = check("Start it at once", settings.start_added, { id: "add-start" });
  const sequential = check("Pieces in their order, not the rarest first", settings.sequential, { id: "add-sequential" });
  return {
    nodes: [folder.node, field("Labels", labels), start.node, sequential.node],
    request: () => ({ output: folder.value() || null, labels: wordsOf(labels.value), paused: !start.input.checked, sequential: sequential.input.checked }),
  };
}

/** Shows what is in a torrent and asks how it is to be added. `known` is called when the daemon has said. */
async function options(source, called, known = () => {}) {
  const inspecting = asOwner(() => ask("/inspect", { method: "POST", body: { source } }));
  const [inspected, settings] = await Promise.all([inTime(source, inspecting), ask("/settings")]);
  known();
  if (inspected.unknown) return linkOptions(source, inspected.unknown, settings);
  const facts = [bytes(inspected.bytes), plural(inspected.files, "file"), inspected.private ? "private" : null, inspected.comment].filter(Boolean);
  const fields = commonFields(settings);
  const files = fileChoice(inspected);
  const { node } = formDialog({
    title: inspected.name, action: inspected.here ? "It is here already" : "Add", id: "add-yes",
    content: [
      el("p", { class: "soft small mono wrap", text: inspected.info_hash }),
      el("p", { text: facts.join(" · ") }),
      ...(called && called !== `${inspected.name}.torrent` ? [el("p", { class: "soft small", text: `From ${called}` })] : []),
      ...inspected.warnings.slice(0, 8).map((warning) => el("p", { class: "warn small", text: warning })),
      ...files.nodes, ...fields.nodes,
    ],
    submit: async () => {
      if (inspected.here) return;
      await leech({ source, ...fields.request(), only_files: files.chosen() });
    },
  });
  node.addEventListener("close", () => files.close());
}

/** The answer of the daemon, or for a magnet link what is missing: its metadata may come much later. */
async function inTime(source, inspecting) {
  if (!isLink(source)) return inspecting;
  const late = new Promise((resolve) => setTimeout(resolve, METADATA_PATIENCE, { unknown: "No peer has given its metadata yet." }));
  // A link that leads to no tracker and no peer is refused.
  const refused = (fault) => {
    if (fault.status !== 404 || !/[?&](tr|x\.pe)=/.test(source.url)) throw fault;
    return { unknown: fault.message };
  };
  return Promise.race([inspecting.catch(refused), late]);
}

const isLink = (source) => source.url !== undefined && source.url.toLowerCase().startsWith("magnet:");

/** How long the metadata of a magnet link is waited for, ms, before it can be added without. */
const METADATA_PATIENCE = 6_000;

/** Asks how a torrent is to be added whose metadata is not here. */
function linkOptions(source, why, settings) {
  const fields = commonFields(settings);
  const name = new URLSearchParams(source.url.slice(source.url.indexOf("?") + 1)).get("dn");
  formDialog({
    title: name || "Magnet link", action: "Add", id: "add-yes",
    content: [
      el("p", { class: "warn small", text: why }),
      el("p", { text: "It can be added now. It is listed, and its download begins when a peer gives its metadata." }),
      ...fields.nodes,
    ],
    submit: () => leech({ source, ...fields.request() }),
  });
}

/** Which files are wanted: a table with a box for each. */
function fileChoice({ file_list: list, files }) {
  if (list.length < 2) return { nodes: [], chosen: () => null, close: () => {} };
  const wanted = new Uint8Array(list.length).fill(1);
  const sum = el("p", { class: "soft small", role: "status" });
  const said = () => {
    const [count, size] = list.reduce(([n, sum], [, length], i) => (wanted[i] ? [n + 1, sum + length] : [n, sum]), [0, 0]);
    setText(sum, `${count} of ${plural(list.length, "file")}, ${bytes(size)}${files > list.length ? `; ${plural(files - list.length, "more file")} are taken as well` : ""}`);
  };
  const table = new List({
    label: "Files", klass: "choice", key: (item) => item.index, rowHeight: () => 34,
    columns: [{ name: "want", label: "Wanted", hide: true }, { name: "path", label: "File" }, { name: "size", label: "Size", class: "num" }],
    make: (row, cells) => {
      row.box = el("input", { type: "checkbox", onchange: () => {
        wanted[row.item.index] = row.box.checked ? 1 : 0;
        said();
      } });
      cells[0].append(row.box);
    },
    show: (row, cells, item) => {
      row.box.checked = wanted[item.index] === 1;
      row.box.ariaLabel = item.path;
      setText(cells[1], item.path);
      setText(cells[2], bytes(item.length));
    },
  });
  const items = list.map(([path, length], index) => ({ index, path, length }));
  table.set(items);
  const all = (value) => () => {
    wanted.fill(value);
    said();
    table.refresh();
  };
  said();
  const tools = el("div", { class: "tools start" },
    el("button", { type: "button", class: "plain", id: "files-all", text: "All files", onclick: all(1) }),
    el("button", { type: "button", class: "plain", id: "files-none", text: "No file", onclick: all(0) }), sum);
  return {
    nodes: [tools, table.node], close: () => table.close(),
    /** As the daemon reads it: numbers from 1, ranges; `null` for all. */
    chosen: () => {
      if (wanted.every(Boolean)) return null;
      const parts = [];
      for (let i = 0; i < list.length; i += 1) {
        if (!wanted[i]) continue;
        let end = i;
        while (end + 1 < list.length && wanted[end + 1]) end += 1;
        parts.push(end > i ? `${i + 1}-${end + 1}` : `${i + 1}`);
        i = end;
      }
      if (parts.length === 0) throw new RangeError("choose a file at least");
      if (files > list.length) parts.push(`${list.length + 1}-${files}`);
      return parts.join(",");
    },
  };
}

async function severalOptions(files) {
  const fields = commonFields(await ask("/settings"));
  formDialog({
    title: `Add ${plural(files.length, "torrent")}`, action: "Add", id: "add-yes",
    content: [el("ul", { class: "found", tabIndex: 0, "aria-label": "Files" }, files.map((file) => el("li", { text: file.name }))), ...fields.nodes],
    submit: async () => {
      const request = fields.request();
      for (const file of files) {
        try {
          await leech({ source: await sourceOf(file), ...request });
        } catch (fault) {
          if (fault.status === undefined && !(fault instanceof RangeError)) throw fault;
          notice(`${file.name}: ${fault.message}`, "bad");
        }
      }
    },
  });
}

async function leech(body) {
  const answer = await asOwner(() => ask("/leech", { method: "POST", body }));
  notice([answer.duplicate ? `${answer.name} is here already` : `${answer.name} is added`, ...answer.warnings].join("; "));
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
