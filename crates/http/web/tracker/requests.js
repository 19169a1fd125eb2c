// The request log, as it flows.

import { beforeFrame, el, empty, setAttr, setHidden, setText, visible } from "../common/dom.js";
import { number, plural, timeOfDay } from "../common/format.js";
import { List } from "../common/list.js";
import { ask } from "../common/live.js";

/** Requests that the page keeps; the tracker keeps more. */
const KEPT = 3000;
const AT_FIRST = 1000;

export class Requests {
  constructor(words) {
    this.stream = "/events?requests=true";
    this.probe = "/stats";
    this.rows = [];
    this.serial = 0;
    this.lost = 0;
    this.paused = false;
    this.words = words.toLowerCase();
    this.stop = new AbortController();
    this.handlers = {
      request: (request) => this.#take(request),
      dropped: ({ count }) => {
        this.lost += count;
        beforeFrame(this.refresh);
      },
    };
    this.list = new List({
      label: "Requests, the newest first", klass: "requests", key: (row) => row.serial, rowHeight: () => 32,
      columns: [
        { name: "time", label: "Time" }, { name: "peer", label: "Peer" }, { name: "client", label: "Client", class: "wide mid" },
        { name: "event", label: "Event" }, { name: "name", label: "Torrent" }, { name: "given", label: "Peers", class: "num wide mid" },
        { name: "via", label: "Over", class: "mid" }, { name: "outcome", label: "Outcome", class: "wide mid" },
      ],
      make: (row, cells) => {
        row.link = el("a");
        cells[4].append(row.link);
        cells[1].classList.add("mono");
      },
      show: (row, cells, { request }) => {
        if (row.shown === request) return;
        row.shown = request;
        setText(cells[0], timeOfDay(request.time));
        setAttr(cells[0], "title", request.time);
        setText(cells[1], request.peer);
        setText(cells[2], request.client ?? "–");
        setText(cells[3], request.event);
        setText(row.link, request.name ?? request.info_hash?.slice(0, 12) ?? "");
        setAttr(row.link, "href", request.info_hash && request.ok ? `#/t/${request.info_hash}` : null);
        setText(cells[5], request.peers.length ? number(request.peers.length) : "");
        setAttr(cells[5], "title", request.peers.length ? visible(request.peers.slice(0, 20).map((one) => one.peer).join(" ")) : null);
        setText(cells[6], request.via);
        const outcome = request.ok ? ["ok", request.note].filter(Boolean).join(", ") : request.error;
        setText(cells[7], outcome);
        setAttr(cells[7], "title", outcome);
        row.node.classList.toggle("bad", !request.ok);
      },
    });
    this.search = el("input", { type: "search", id: "search", value: words, placeholder: "Peer, client, event, torrent, error", ariaLabel: "Filter the requests", oninput: () => {
      this.words = this.search.value.trim().toLowerCase();
      beforeFrame(this.refresh);
    } });
    this.pauseButton = el("button", { type: "button", id: "hold", text: "Hold", "aria-pressed": "false", onclick: () => {
      this.paused = !this.paused;
      setAttr(this.pauseButton, "aria-pressed", this.paused);
      setText(this.pauseButton, this.paused ? "Go on" : "Hold");
      this.held = this.paused ? [...this.rows] : null;
      beforeFrame(this.refresh);
    } });
    this.count = el("p", { class: "soft small" });
    this.blank = empty("No requests yet", "Announces, scrapes, and what is asked of the catalogue appear here as they come. Let a peer announce itself:", `torrent-peer get NAME ${location.host}`);
    this.node = el("div", {}, el("h1", { class: "sr", text: "Requests" }), el("div", { class: "card" },
      el("div", { class: "tools" }, el("div", { class: "grow" }, this.search), this.pauseButton), this.blank, this.list.node, this.count));
    this.refresh = () => this.#refresh();
    setHidden(this.list.node, true);
  }

  close() {
    this.stop.abort();
    this.list.close();
  }

  /** A stream begins: what was before comes from the log, and what comes meanwhile waits. */
  async opened() {
    this.pending = [];
    let answer;
    try {
      answer = await ask(`/logs/requests?limit=${AT_FIRST}`, { signal: this.stop.signal });
    } catch (error) {
      if (error.name === "AbortError") return;
      this.pending = null;
      throw error;
    }
    const waited = this.pending ?? [];
    this.pending = null;
    const same = (a, b) => a.time === b.time && a.peer === b.peer && a.event === b.event && a.info_hash === b.info_hash;
    const latest = answer.requests.slice(-200);
    this.rows = [];
    for (const request of answer.requests) this.#add(request);
    for (const request of waited) if (!latest.some((one) => same(one, request))) this.#add(request);
    beforeFrame(this.refresh);
  }

  #take(request) {
    if (this.pending) {
      this.pending.push(request);
      return;
    }
    this.#add(request);
    beforeFrame(this.refresh);
  }

  #add(request) {
    const words = [request.peer, request.client, request.event, request.name, request.info_hash, request.error, request.note, request.via];
    this.serial += 1;
    this.rows.push({ serial: this.serial, request, words: words.filter(Boolean).join(" ").toLowerCase() });
    if (this.rows.length > KEPT + 500) this.rows.splice(0, this.rows.length - KEPT);
  }

  #refresh() {
    const { words } = this;
    const rows = this.held ?? this.rows;
    const fits = [];
    for (let i = rows.length - 1; i >= 0; i -= 1) if (!words || rows[i].words.includes(words)) fits.push(rows[i]);
    this.list.set(fits);
    setHidden(this.blank, rows.length > 0);
    setHidden(this.list.node, rows.length === 0);
    const waiting = this.held ? this.rows.length - this.held.length : 0;
    setText(this.count, rows.length === 0 ? "" : [
      words ? `${number(fits.length)} of ${plural(rows.length, "request")}` : plural(rows.length, "request"),
      this.paused ? `held${waiting > 0 ? `, ${number(waiting)} newer wait` : ""}` : "",
      this.lost ? `${number(this.lost)} not shown: they came too fast` : "",
    ].filter(Boolean).join("; "));
  }
}
