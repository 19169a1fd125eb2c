// Which torrents are shown: by what they do, and by their labels, with how many there are of each.

import { el, setAttr, setHidden, setText } from "../common/dom.js";
import { number } from "../common/format.js";
import { isHashed } from "./actions.js";

export const KINDS = {
  all: ["All", () => true],
  active: ["Active", (t) => t.download_rate > 0 || t.upload_rate > 0],
  downloading: ["Downloading", (t) => t.state === "downloading" || t.state === "queued-download" || t.state === "metadata"],
  seeding: ["Seeding", (t) => t.state === "seeding" || t.state === "queued-seed" || isHashed(t)],
  paused: ["Paused", (t) => t.state === "paused"],
  failed: ["Failed", (t) => t.state === "failed" || t.error !== null],
};

/** Labels that have a button; with more, the most used ones have. */
const MAX_LABELS = 30;

export class Filters {
  /** `changed()` is called when another choice was made. */
  constructor(changed) {
    this.changed = changed;
    this.kind = "all";
    this.label = null;
    this.kinds = new Map();
    const kinds = el("div", { class: "chips", role: "group", "aria-label": "Show" });
    for (const [name, [label]] of Object.entries(KINDS)) {
      const count = el("span", { class: "count" });
      const button = el("button", { type: "button", class: "chip", "aria-pressed": String(name === "all"), data: { kind: name }, onclick: () => this.#pick({ kind: name }) }, label, count);
      this.kinds.set(name, { button, count });
      kinds.append(button);
    }
    this.labels = el("div", { class: "chips", role: "group", "aria-label": "Labels", hidden: true });
    this.buttons = new Map();
    this.node = el("div", { class: "filters" }, kinds, this.labels);
  }

  fits(torrent) {
    return KINDS[this.kind][1](torrent) && (this.label === null || torrent.settings.labels.includes(this.label));
  }

  get isAll() {
    return this.kind === "all" && this.label === null;
  }

  clear() {
    this.#pick({ kind: "all", label: null });
  }

  #pick({ kind = this.kind, label = this.label }) {
    this.kind = kind;
    this.label = label;
    for (const [name, { button }] of this.kinds) setAttr(button, "aria-pressed", String(name === kind));
    for (const [name, { button }] of this.buttons) setAttr(button, "aria-pressed", String(name === label));
    this.changed();
  }

  /** Counts all torrents. */
  count(torrents) {
    const counts = new Map(Object.keys(KINDS).map((name) => [name, 0]));
    const labels = new Map();
    for (const torrent of torrents) {
      for (const [name, [, fits]] of Object.entries(KINDS)) if (fits(torrent)) counts.set(name, counts.get(name) + 1);
      for (const label of torrent.settings.labels ?? []) labels.set(label, (labels.get(label) ?? 0) + 1);
    }
    for (const [name, { count }] of this.kinds) setText(count, number(counts.get(name)));
    this.#showLabels(labels);
  }

  #showLabels(counts) {
    const most = [...counts].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0])).slice(0, MAX_LABELS);
    if (this.label !== null && !counts.has(this.label)) this.#pick({ label: null });
    const shown = new Map(most.sort((a, b) => a[0].localeCompare(b[0])));
    for (const [label, { button }] of this.buttons) {
      if (shown.has(label)) continue;
      button.remove();
      this.buttons.delete(label);
    }
    let before = null;
    for (const [label, count] of shown) {
      let chip = this.buttons.get(label);
      if (!chip) {
        const node = el("span", { class: "count" });
        const button = el("button", { type: "button", class: "chip label", "aria-pressed": "false", data: { label }, onclick: () => this.#pick({ label: this.label === label ? null : label }) }, label, node);
        chip = { button, count: node };
        this.buttons.set(label, chip);
        if (before) before.after(button);
        else this.labels.prepend(button);
      }
      setText(chip.count, number(count));
      before = chip.button;
    }
    setHidden(this.labels, shown.size === 0);
  }
}
