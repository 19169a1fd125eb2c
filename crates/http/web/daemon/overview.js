// What the daemon moves in all: rates as lines, totals, and the room that is left.

import { el, setHidden, setText } from "../common/dom.js";
import { bytes, rate } from "../common/format.js";
import { ask } from "../common/live.js";
import { Graph } from "./graph.js";

const TOTALS_EVERY = 5000;
const KEY = "piecework-overview";

function kept() {
  try {
    const state = localStorage.getItem(KEY);
    // A small screen has no room for it above the list.
    return state === null ? !matchMedia("(max-width: 640px)").matches : state === "open";
  } catch {
    // No storage in this browser.
    return true;
  }
}

export class Overview {
  constructor() {
    this.rates = { down: 0, up: 0 };
    this.graph = new Graph();
    this.facts = {};
    const fact = (name, label) => el("div", {}, el("dt", { text: label }), (this.facts[name] = el("dd", { text: "–" })));
    const facts = el("dl", { class: "facts" }, fact("down", "Down"), fact("up", "Up"), fact("got", "Received"), fact("gave", "Sent"), fact("ratio", "Ratio"), fact("room", "Free"));
    const details = el("details", { class: "card overview", id: "overview", open: kept() }, el("summary", { text: "Transfer" }), el("div", { class: "overview-parts" }, this.graph.node, facts));
    details.addEventListener("toggle", () => {
      try {
        localStorage.setItem(KEY, details.open ? "open" : "closed");
      } catch {
        // As above.
      }
      this.graph.again();
    });
    this.node = details;
    this.timers = [
      setInterval(() => this.#second(), 1000),
      setInterval(() => {
        if (!document.hidden && details.open) this.load();
      }, TOTALS_EVERY),
    ];
  }

  close() {
    this.timers.forEach(clearInterval);
    this.graph.close();
  }

  show(rates) {
    this.rates = rates;
  }

  #second() {
    const { down, up } = this.rates;
    this.graph.push(down, up);
    setText(this.facts.down, rate(down));
    setText(this.facts.up, rate(up));
  }

  /** What no event tells. */
  async load() {
    try {
      const status = await ask("/status?limit=0");
      const { downloaded_ever: got, uploaded_ever: gave } = status;
      setText(this.facts.got, bytes(got));
      setText(this.facts.gave, bytes(gave));
      setText(this.facts.ratio, got > 0 ? (gave / got).toFixed(2) : "–");
      const { downloads } = await ask("/settings");
      const space = await ask(`/free-space?path=${encodeURIComponent(downloads)}`);
      setText(this.facts.room, bytes(space.free));
      this.facts.room.title = `of ${bytes(space.total)} in ${downloads}`;
      setHidden(this.facts.room.parentElement, false);
    } catch (fault) {
      if (fault.status === undefined) throw fault;
      // The folder may be gone, or a password needed; the page says so elsewhere.
      setHidden(this.facts.room.parentElement, true);
    }
  }
}
