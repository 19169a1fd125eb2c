// The daemon's settings. Only what was changed is sent.

import { announce, el, empty, notice, section, setHidden, setText } from "../common/dom.js";
import { number } from "../common/format.js";
import { ask } from "../common/live.js";
import { check, field, numberField, rateField, select, text, tiersAsText, tiersOf } from "./dialogs.js";
import { folderField } from "./folders.js";
import { asOwner, isLoggedIn, logIn, logOut } from "./login.js";

const MINUTE = 60;
const HOUR = 3600;
const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

const clock = (minutes) => `${String(Math.floor(minutes / 60)).padStart(2, "0")}:${String(minutes % 60).padStart(2, "0")}`;

/** A box that is on or off. */
function switchOf(label, value) {
  const box = check(label, value);
  return { node: box.node, get touched() { return box.input.checked !== value; }, value: () => box.input.checked };
}

/** Words; with `none`, nothing written is `null`. */
function wordOf(label, value, { hint = null, none = false, ...more } = {}) {
  const input = text(value ?? "", more);
  return { node: field(label, input, hint), get touched() { return input.value !== (value ?? ""); }, value: () => (none && input.value.trim() === "" ? null : input.value) };
}

function choiceOf(label, value, options, hint) {
  const input = select(options, value);
  return { node: field(label, input, hint), get touched() { return input.value !== value; }, value: () => input.value };
}

function folderOf(label, value, { hint = null, none = false } = {}) {
  const part = folderField(label, value ?? "", { hint });
  return { node: part.node, get touched() { return part.value() !== (value ?? ""); }, value: () => (none && part.value() === "" ? null : part.value()) };
}

function tiersField(label, value, hint) {
  const before = tiersAsText(value);
  const input = el("textarea", { rows: 4, class: "mono", spellcheck: false, value: before });
  return { node: field(label, input, hint), get touched() { return input.value !== before; }, value: () => tiersOf(input.value) };
}

/** The second pair of limits and when they hold: one setting with several parts. */
function altField(alt) {
  const on = switchOf("They hold now", alt.on);
  const down = rateField("Download at most", alt.download);
  const up = rateField("Upload at most", alt.upload);
  const scheduled = switchOf("The clock turns them on and off", alt.scheduled);
  const begin = el("input", { type: "time", value: clock(alt.begin) });
  const end = el("input", { type: "time", value: clock(alt.end) });
  const days = DAYS.map((day, i) => check(day, (alt.days & (1 << i)) !== 0));
  const bits = () => days.reduce((sum, day, i) => sum | (day.input.checked ? 1 << i : 0), 0);
  const node = el("div", { class: "group" }, on.node, el("div", { class: "fields" }, down.node, up.node), scheduled.node,
    el("div", { class: "fields" }, field("From", begin), field("Until", end)),
    el("fieldset", {}, el("legend", { text: "On these days" }), el("div", { class: "days" }, days.map((day) => day.node))));
  const minutes = (input, name) => {
    const found = /^(\d\d):(\d\d)/.exec(input.value);
    if (!found) throw new RangeError(`${name}: write a time of day`);
    return 60 * Number(found[1]) + Number(found[2]);
  };
  return {
    node,
    get touched() {
      return on.touched || down.touched || up.touched || scheduled.touched || begin.value !== clock(alt.begin) || end.value !== clock(alt.end) || bits() !== alt.days;
    },
    value: () => ({
      on: on.value(), download: down.touched ? down.value() ?? 0 : alt.download, upload: up.touched ? up.value() ?? 0 : alt.upload,
      scheduled: scheduled.value(), begin: minutes(begin, "From"), end: minutes(end, "Until"), days: bits(),
    }),
  };
}

export class SettingsView {
  constructor() {
    this.stream = "/events";
    this.handlers = { settings: (settings) => this.#told(settings) };
    this.blank = empty("Asking the daemon …", "Its settings appear here.");
    this.body = el("div", {}, this.blank);
    this.node = el("div", { class: "settings" }, el("h1", { text: "Settings" }), this.body);
    this.settings = null;
  }

  close() {}

  start() {
    this.#load();
  }

  async #load() {
    try {
      this.#build(await ask("/settings"));
    } catch (fault) {
      if (fault.status === undefined) throw fault;
      this.body.replaceChildren(empty("The settings cannot be shown", fault.message));
    }
  }

  /** Somebody changed them elsewhere: they are shown anew unless something here is not saved. */
  #told(settings) {
    if (this.settings && JSON.stringify(settings) !== JSON.stringify(this.settings) && this.#changes(true) === 0) this.#build(settings);
  }

  #build(s) {
    this.settings = s;
    const parts = {};
    this.parts = parts;
    const put = (name, part) => {
      parts[name] = part;
      return part.node;
    };
    const fields = (...nodes) => el("div", { class: "fields" }, nodes);
    const said = el("p", { role: "alert", class: "bad", hidden: true });
    this.save = el("button", { type: "submit", class: "main", id: "settings-save", text: "Save" });
    this.said = said;
    const port = el("p", { role: "status", class: "soft" });
    const list = el("p", { role: "status", class: "soft" });
    const form = el("form", { novalidate: true },
      section("speed", "Speed", null,
        fields(put("download_limit", rateField("Download at most", s.download_limit)), put("upload_limit", rateField("Upload at most", s.upload_limit))),
        el("h3", { text: "The turtle: a second pair of limits" }), put("alt", altField(s.alt))),
      section("seeding", "Queue and seeding", null,
        fields(
          put("active_downloads", numberField("Downloads at a time", s.active_downloads, { none: "all" })),
          put("active_seeds", numberField("Seeds at a time", s.active_seeds, { none: "all" })),
          put("stalled_after", numberField("Minutes without a byte until it does not count", s.stalled_after, { by: MINUTE, none: "never" })),
          put("seed_ratio", numberField("Stop seeding at a ratio of sent to received", s.seed_ratio, { none: "never", whole: false })),
          put("seed_time", numberField("Stop seeding after hours", s.seed_time, { by: HOUR, none: "never" })),
          put("seed_idle", numberField("Stop seeding after hours in which nobody asks", s.seed_idle, { by: HOUR, none: "never" })))),
      section("downloads", "Downloads", null,
        put("downloads", folderOf("Folder", s.downloads)),
        fields(put("incomplete_suffix", wordOf("Ending of unfinished files", s.incomplete_suffix))),
        put("start_added", switchOf("Torrents that are added start at once", s.start_added)),
        put("sequential", switchOf("New torrents take their pieces in order", s.sequential)),
        put("watch_folder", folderOf("Add every .torrent that appears in this folder", s.watch_folder, { none: true, hint: "Empty: no folder is watched." })),
        put("watch_delete", switchOf("Remove a .torrent from there once it is added, instead of renaming it", s.watch_delete))),
      section("connections", "Connections", null,
        fields(
          put("max_connections", numberField("Connections in all", s.max_connections)),
          put("max_peers_per_torrent", numberField("Connections of a torrent", s.max_peers_per_torrent)),
          put("upload_slots", numberField("Peers served at a time by a torrent", s.upload_slots)),
          put("choke", choiceOf("Whom to serve", s.choke, { "tit-for-tat": "the best givers, and one more in turn", closed: "everybody: all machines are one's own" })),
          put("encryption", choiceOf("Encrypt connections to peers", s.encryption, {
            plain: "none", allow: "those of peers that demand it", prefer: "all handshakes that can be", require: "all, and wholly; no others are made",
          }))),
        el("div", { class: "tools" }, el("button", { type: "button", id: "test-port", text: "Test the port", onclick: () => this.#testPort(port) }), port),
        put("block_list", switchOf("Hold the block list against peers", s.block_list)),
        el("div", { class: "tools" }, el("button", { type: "button", id: "reload-list", text: "Read the block list anew", onclick: () => this.#reload(list) }), list)),
      section("more", "Trackers and programs", null,
        put("default_trackers", tiersField("Trackers that every torrent gets that is not private", s.default_trackers, "One a line; an empty line begins the next tier.")),
        fields(
          put("on_added", wordOf("Run when a torrent is added", s.on_added, { none: true, class: "mono", hint: "The path of a program." })),
          put("on_done", wordOf("Run when a download is done", s.on_done, { none: true, class: "mono" })),
          put("on_seeded", wordOf("Run when a torrent stops at its limit", s.on_seeded, { none: true, class: "mono" })))),
      el("div", { class: "bulk", id: "save-bar" }, said, el("p", { class: "soft", role: "status", id: "unsaved" }), this.save,
        el("button", { type: "button", id: "settings-undo", text: "Undo", onclick: () => this.#build(this.settings) })));
    const look = () => {
      const count = this.#changes(true);
      setText(form.querySelector("#unsaved"), count === 0 ? "Nothing is changed." : `${number(count)} changed, not saved yet.`);
      this.save.disabled = count === 0;
    };
    form.addEventListener("input", look);
    form.addEventListener("change", look);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    const login = isLoggedIn()
      ? el("button", { type: "button", id: "log-out", text: "Log out", onclick: logOut })
      : el("button", { type: "button", id: "log-in", text: "Log in", onclick: () => logIn() });
    this.body.replaceChildren(el("div", { class: "tools" }, login), form);
    look();
  }

  /** What was changed, or with `count` how much. */
  #changes(count) {
    const touched = Object.entries(this.parts ?? {}).filter(([, part]) => part.touched);
    return count ? touched.length : Object.fromEntries(touched.map(([name, part]) => [name, part.value()]));
  }

  async #send() {
    setHidden(this.said, true);
    try {
      const body = this.#changes(false);
      if (Object.keys(body).length === 0) return;
      const settings = await asOwner(() => ask("/settings", { method: "PATCH", body }));
      this.#build(settings);
      announce("Saved");
      notice("The settings are saved.");
    } catch (fault) {
      if (fault.status === undefined && !(fault instanceof RangeError)) throw fault;
      setText(this.said, fault.message);
      setHidden(this.said, false);
    }
  }

  async #testPort(said) {
    setText(said, "Testing …");
    const answer = await ask("/test", { method: "POST" });
    setText(said, answer.open ? `${answer.addr ?? "The port"} takes connections.` : `${answer.addr ?? "The port"} takes none: ${answer.error}`);
  }

  async #reload(said) {
    const { ranges } = await asOwner(() => ask("/block-list/reload", { method: "POST" }));
    setText(said, `It has ${number(ranges)} ranges.`);
  }
}
