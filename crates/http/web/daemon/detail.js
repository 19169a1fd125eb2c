// One torrent: its map, who gave what when, its peers, files, and what went wrong.

import { announce, beforeFrame, el, empty, notice, section, setAttr, setHidden, setText } from "../common/dom.js";
import { bytes, copies, number, percent, plural, rate, span } from "../common/format.js";
import { Slots, onTheme, paintSwatch, palette } from "../common/colors.js";
import { ask } from "../common/live.js";
import { isHashed, isPaused, remove, toggle } from "./actions.js";
import { editTrackers, rename } from "./changes.js";
import { Graph } from "./graph.js";
import { KEPT, MISSING, PieceMap } from "./map.js";
import { showMenuBelow } from "./menu.js";
import { Properties } from "./properties.js";
import { Sent } from "./sent.js";
import { Story } from "./story.js";
import { Timeline } from "./timeline.js";
import { badKey, bads, files, givers, peers, trackers } from "./tables.js";
import { done, doneOf, meterClass, part, stateClass, stateWords } from "./words.js";

const WAITS = {
  no_peers: "no peers", choked: "choked", nothing_offered: "nothing wanted offered", request_window: "request window",
  peer_upload: "peers' upload", rate_limit: "our rate limit", hash: "hashing", disk: "disk", moving: "nothing, it flows",
};

/** Bad pieces that the page keeps. */
const MAX_BAD = 5000;

/** Milliseconds between looks at what no event tells. */
const PEERS_EVERY = 2000;
const DETAIL_EVERY = 4000;
const TIMELINE_EVERY = 5000;
const SENT_EVERY = 3000;

export class Detail {
  constructor(hash, { back }) {
    this.hash = hash;
    this.back = back;
    this.path = `/torrents/${hash}`;
    this.stream = `/events?torrent=${hash}`;
    this.slots = new Slots();
    this.givers = new Map();
    this.byAddr = new Map();
    this.counts = new Map();
    this.waiting = null;
    this.torrent = null;
    this.pending = null;
    this.bad = [];
    this.only = null;
    this.stop = new AbortController();
    this.handlers = {
      torrent: (torrent) => this.#take(torrent),
      removed: () => this.#removed(),
      done: () => announce("Everything is here."),
      pieces: (change) => this.#pieces(change),
    };
    const slotOf = (giver) => this.slots.of(giver);
    const nameOf = (giver) => this.givers.get(giver)?.peer ?? "a peer";
    this.map = new PieceMap({ label: "Pieces: arrow keys move", slotOf, describe: (piece) => this.#describe(piece), point: (piece, pinned) => this.#point(piece, pinned) });
    this.timeline = new Timeline({ slotOf, nameOf });
    this.story = new Story(this.path, (giver, canvas) => paintSwatch(canvas, slotOf(giver), palette()));
    this.giverList = givers({ pick: (giver) => this.highlight(giver), slotOf });
    this.peerList = peers({ slotOf: (addr) => (this.byAddr.has(addr) ? slotOf(this.byAddr.get(addr)) : null) });
    this.badList = bads();
    this.fileList = files({ change: (index, priority) => this.#priority(index, priority), rename: (path) => this.torrent && rename(this.torrent, path) });
    this.trackerList = trackers();
    this.sent = new Sent(this.path, { slotOf, signal: this.stop.signal });
    this.graph = new Graph(56);
    this.properties = new Properties(() => this.torrent);
    this.#build();
    this.showAll = () => this.#show();
    this.showGivers = () => this.#showGivers();
    this.endTheme = onTheme(() => {
      this.story.repaint();
      this.sent.repaint();
      for (const list of [this.giverList, this.peerList]) {
        for (const row of list.rows.values()) row.slot = undefined;
        list.moved();
      }
    });
    this.timers = [];
  }

  close() {
    this.stop.abort();
    this.timers.forEach(clearInterval);
    for (const part of [this.map, this.timeline, this.giverList, this.peerList, this.badList, this.fileList, this.trackerList, this.sent, this.graph]) part.close();
    this.endTheme();
  }

  start() {
    const every = (ms, job) => {
      this.timers.push(setInterval(() => {
        if (!document.hidden && this.live) this.#quietly(job);
      }, ms));
    };
    every(PEERS_EVERY, () => this.#loadPeers());
    every(DETAIL_EVERY, async () => {
      await this.#loadDetail();
      await this.#checkHeld();
    });
    every(TIMELINE_EVERY, () => (this.newArrivals ? this.#loadTimeline() : null));
    every(SENT_EVERY, () => (this.torrent?.uploaded !== this.sentAt ? this.#loadSent() : null));
    this.timers.push(setInterval(() => {
      if (this.torrent) this.graph.push(this.torrent.download_rate, this.torrent.upload_rate);
    }, 1000));
  }

  key(event) {
    if (!this.torrent) return false;
    if (event.key === "p") toggle(this.torrent);
    else if (event.key === "m") this.#showMenu();
    else if (event.key === "Delete") remove([this.torrent], this.back);
    else if (event.key === "Escape") this.back();
    else return false;
    return true;
  }

  #showMenu() {
    showMenuBelow(this.moreButton, [this.torrent], { gone: this.back });
  }

  /** It is gone, or is hashed now and listed under its own info-hash. */
  async #removed() {
    if (this.torrent && isHashed(this.torrent)) {
      try {
        const { info_hash: now } = await ask(`${this.path}?fields=info_hash`);
        location.replace(`#/t/${now}`);
        return;
      } catch (fault) {
        if (fault.status !== 404) throw fault;
      }
    }
    notice("This torrent was removed.");
    this.back();
  }

  state(kind) {
    this.live = kind === "live";
    if (kind === "refused") {
      this.node.replaceChildren(el("a", { class: "back", href: "#/", text: "← All torrents" }),
        el("div", { class: "card" }, empty("This torrent cannot be shown", "It may have been removed, or a password is needed. Reload the page, or go back to all torrents.")));
    }
  }

  /** A stream begins: everything is asked for anew, and what comes meanwhile waits. */
  opened() {
    this.pending = [];
    this.#quietly(() => this.#loadAll());
  }

  highlight(giver) {
    this.only = this.only === giver ? null : giver;
    this.map.highlight(this.only);
    this.timeline.highlight(this.only);
    this.#showGivers();
    setHidden(this.unfade, this.only === null);
  }

  #build() {
    this.h1 = el("h1", { text: "…" });
    this.stateNode = el("span", { class: "state" });
    this.pauseButton = el("button", { type: "button", id: "pause", text: "Pause", onclick: () => this.torrent && toggle(this.torrent) });
    const removeButton = el("button", { type: "button", class: "danger", id: "remove", text: "Remove …", onclick: () => this.torrent && remove([this.torrent], this.back) });
    this.moreButton = el("button", { type: "button", id: "more", text: "More …", "aria-haspopup": "menu", onclick: () => this.torrent && this.#showMenu() });
    this.fill = el("i");
    this.meter = el("div", { class: "meter wide-meter", role: "progressbar", "aria-label": "Done", "aria-valuemin": "0", "aria-valuemax": "100" }, this.fill);
    this.facts = {};
    const fact = (name, label) => el("div", {}, el("dt", { text: label }), (this.facts[name] = el("dd", { text: "–" })));
    const facts = el("dl", { class: "facts" },
      fact("done", "Done"), fact("down", "Down"), fact("up", "Up"), fact("eta", "Left"), fact("peers", "Peers"),
      fact("availability", "Copies among them"), fact("gave", "Sent"), fact("ratio", "Ratio"), fact("corrupt", "Failed"));
    this.whyText = el("p");
    this.whyParts = el("div", { class: "parts" });
    this.why = el("div", { class: "why", hidden: true }, this.whyText, this.whyParts);
    this.trouble = el("p", { class: "trouble", hidden: true });
    const head = el("div", { class: "card" },
      el("div", { class: "title" }, el("div", {}, this.h1, this.stateNode), el("div", { class: "tools" }, this.pauseButton, this.moreButton, removeButton)),
      this.meter, facts, this.trouble, this.why, this.graph.node);
    this.caption = el("p", { class: "small soft" });
    this.unfade = el("button", { type: "button", class: "plain", text: "Show all givers", hidden: true, onclick: () => this.highlight(this.only) });
    const swatch = (kind, text) => el("span", {}, el("i", { class: `swatch ${kind}` }), text);
    this.summary = el("p", { class: "sr" });
    const mapCard = section("map", "Who gave which piece", this.caption, this.map.node, this.summary,
      el("div", { class: "key" }, swatch("", "not held"), swatch("kept", "was on disk already"), swatch("failed", "failed its hash")),
      this.story.node);
    const giverCard = section("givers", "Givers", this.unfade, this.giverList.node, (this.noGivers = el("p", { class: "soft", text: "Nobody has given a piece yet." })), (this.lacks = el("p", { class: "soft", hidden: true })));
    this.noArrivals = el("p", { class: "soft", text: "Nothing has come since this torrent is here." });
    this.timeCard = section("arrivals", "Arrivals", null, this.timeline.node, this.noArrivals);
    setHidden(this.timeline.node, true);
    this.peerCount = el("p", { class: "small soft" });
    const peerCard = section("peers", "Peers", this.peerCount, this.peerList.node, (this.noPeers = empty("No peers", "None is connected just now. Its trackers are asked again by themselves; a peer you know can be told with", "torrent-set NAME --peer IP:PORT")));
    this.badCount = el("p", { class: "small soft" });
    const badCard = section("bad", "Bad pieces", this.badCount, this.badList.node, (this.noBad = el("p", { class: "soft", text: "None: every piece that came had the right hash." })));
    const all = (priority) => () => this.#priorities(priority);
    this.fileTools = el("div", { class: "tools" },
      el("button", { type: "button", class: "plain", text: "All", ariaLabel: "All files are wanted", onclick: all("normal") }),
      el("button", { type: "button", class: "plain", text: "None", ariaLabel: "None of the files is wanted", onclick: all("skip") }));
    const fileCard = section("files", "Files", this.fileTools, this.fileList.node);
    const editButton = el("button", { type: "button", class: "plain", id: "edit-trackers", text: "Edit …", onclick: () => this.torrent && this.#quietly(() => editTrackers([this.torrent])) });
    const trackerCard = section("trackers", "Trackers", editButton, this.trackerList.node, (this.noTrackers = el("p", { class: "soft", text: "It has no tracker: peers come from whoever connects, or are told with torrent-set NAME --peer IP:PORT." })));
    const propertyCard = section("properties", "About it", null, this.properties.node);
    this.mapPair = el("div", { class: "pair" }, mapCard, giverCard);
    this.badCard = badCard;
    this.node = el("div", { class: "detail" }, el("a", { class: "back", href: "#/", text: "← All torrents" }), head,
      this.mapPair, this.timeCard, this.sent.node, peerCard, trackerCard, badCard, fileCard, propertyCard);
  }

  async #loadAll() {
    const get = (rest) => ask(this.path + rest, { signal: this.stop.signal });
    const [answer, bad] = await Promise.all([this.#loadGivers(get), this.#without(get("/bad"), []), this.#loadDetail(), this.#loadPeers(), this.#loadSources(get)]);
    this.lost = { lost: answer.lost ?? 0, waiting: answer.waiting ?? 0 };
    this.givers.clear();
    this.byAddr.clear();
    for (const giver of answer.givers) this.#giver(giver);
    this.map.failed = new Set(bad.map((one) => one.piece));
    this.map.set(answer.by_piece);
    this.counts.clear();
    for (const owner of answer.by_piece) this.#count(owner, 1);
    this.bad = bad;
    const waited = this.pending ?? [];
    this.pending = null;
    for (const change of waited) this.#pieces(change);
    beforeFrame(this.showGivers);
    this.#showBad();
    if (!this.unrecorded) await Promise.all([this.#loadTimeline(), this.#loadSent()]);
  }

  /** What the `.torrent` says besides does not change, but for one that is still to be hashed. */
  async #loadSources(get) {
    this.sources = await this.#without(get("/sources"), null);
    if (this.torrent) beforeFrame(this.showAll);
  }

  async #loadSent() {
    if (this.unrecorded || this.map.pieces === 0) return;
    this.sentAt = this.torrent?.uploaded;
    await this.sent.load(this.map.pieces);
  }

  /** The journal can be written no more, or again: what it lacks has changed. */
  noticesChanged() {
    if (this.pending || this.unrecorded) return;
    this.#quietly(async () => {
      const answer = await ask(`${this.path}/givers`, { signal: this.stop.signal });
      this.lost = { lost: answer.lost ?? 0, waiting: answer.waiting ?? 0 };
      beforeFrame(this.showGivers);
    });
  }

  /** Without a journal nobody knows who gave what, but what is held can be shown all the same. */
  async #loadGivers(get) {
    try {
      const answer = await get("/givers");
      this.unrecorded = null;
      return answer;
    } catch (fault) {
      if (fault.name === "AbortError" || fault.status === 0) throw fault;
      this.unrecorded = fault.message;
      const { have, pieces } = await get("/pieces");
      const held = (piece) => (parseInt(have[piece >> 2], 16) >> (3 - (piece & 3))) & 1;
      return { givers: [], by_piece: Array.from({ length: pieces }, (_, piece) => (held(piece) ? KEPT : MISSING)) };
    }
  }

  async #without(asked, instead) {
    try {
      return await asked;
    } catch (fault) {
      if (fault.name === "AbortError" || fault.status === 0) throw fault;
      return instead;
    }
  }

  /** Events tell what comes. What is lost, by a check or a restart, shows in the number of pieces. */
  async #checkHeld() {
    const held = this.map.pieces - (this.counts.get(MISSING) ?? 0);
    const differs = this.torrent && !this.pending && this.map.pieces > 0 && held !== this.torrent.pieces_have;
    const again = differs && this.differed === held;
    this.differed = differs ? held : -1;
    if (again) {
      this.pending = [];
      await this.#loadAll();
    }
  }

  async #loadDetail() {
    const detail = await ask(this.path, { signal: this.stop.signal });
    this.waiting = detail.waiting ?? null;
    this.availability = detail.availability;
    this.detail = detail;
    this.trackerList.set(detail.trackers);
    setHidden(this.trackerList.node, detail.trackers.length === 0);
    setHidden(this.noTrackers, detail.trackers.length > 0);
    this.fileItems = detail.file_list;
    this.fileList.set(detail.file_list);
    setHidden(this.fileTools, detail.file_list.length < 2);
    this.#take(detail);
  }

  async #loadPeers() {
    const list = await ask(`${this.path}/peers`, { signal: this.stop.signal });
    list.sort((a, b) => b.download_rate - a.download_rate || b.upload_rate - a.upload_rate || (a.addr < b.addr ? -1 : 1));
    this.peerList.set(list);
    setHidden(this.noPeers, list.length > 0);
    setHidden(this.peerList.node, list.length === 0);
    const giving = list.filter((peer) => peer.download_rate > 0).length;
    setText(this.peerCount, list.length === 0 ? "" : `${number(list.length)} connected${giving ? `, ${number(giving)} giving` : ""}`);
  }

  async #loadTimeline() {
    this.newArrivals = false;
    const data = await ask(`${this.path}/timeline?buckets=${this.timeline.buckets(this.node.clientWidth, this.map.pieces - (this.counts.get(MISSING) ?? 0))}`, { signal: this.stop.signal });
    const any = data.series.length > 0;
    setHidden(this.timeline.node, !any);
    setHidden(this.noArrivals, any);
    if (any) this.timeline.set(data);
  }

  /** What is asked for again soon may fail: the stream says so if it is for long. */
  async #quietly(job) {
    try {
      await job();
    } catch (error) {
      if (error.name !== "AbortError" && error.status > 0) notice(error.message, "bad");
      else if (error.name !== "AbortError" && error.status === undefined) throw error;
    }
  }

  #giver(giver) {
    this.givers.set(giver.id, giver);
    this.byAddr.set(giver.peer, giver.id);
    this.slots.of(giver.id);
  }

  #count(owner, by) {
    this.counts.set(owner, (this.counts.get(owner) ?? 0) + by);
  }

  #pieces(change) {
    if (this.pending) {
      this.pending.push(change);
      return;
    }
    for (const giver of change.givers ?? []) this.#giver(giver);
    for (const [piece, owner] of change.pieces ?? []) {
      const old = this.map.owner[piece];
      if (this.map.put(piece, owner)) {
        this.#count(old, -1);
        this.#count(owner, 1);
      }
      if (piece === this.story.piece) this.story.refresh(this.#owned(piece));
    }
    for (const bad of change.bad ?? []) {
      this.map.markFailed(bad.piece);
      this.bad = [...this.bad.filter((one) => badKey(one) !== badKey(bad)), bad].slice(-MAX_BAD);
    }
    if (change.bad?.length) this.#showBad();
    this.newArrivals = true;
    beforeFrame(this.showGivers);
  }

  #take(torrent) {
    this.torrent = torrent;
    beforeFrame(this.showAll);
  }

  #show() {
    const t = this.torrent;
    setText(this.h1, t.name);
    document.title = `${done(t)} ${t.name} – Piecework`;
    const state = stateClass(t);
    if (this.stateNode.className !== state) this.stateNode.className = state;
    setText(this.stateNode, stateWords(t));
    setText(this.pauseButton, isPaused(t) ? "Resume" : "Pause");
    const klass = `${meterClass(t)} wide-meter`;
    if (this.meter.className !== klass) this.meter.className = klass;
    this.fill.style.transform = `scaleX(${part(t).toFixed(4)})`;
    setAttr(this.meter, "aria-valuenow", Math.floor(100 * part(t)));
    const { facts } = this;
    setText(facts.done, doneOf(t));
    setText(facts.down, rate(t.download_rate));
    setText(facts.up, rate(t.upload_rate));
    setText(facts.eta, part(t) >= 1 ? "nothing" : span(t.eta));
    setText(facts.peers, `${number(t.peers)} (${plural(t.seeds, "seed")})`);
    setText(facts.availability, copies(this.availability));
    setText(facts.gave, bytes(t.uploaded));
    setText(facts.ratio, t.ratio.toFixed(2));
    setText(facts.corrupt, t.corrupt ? bytes(t.corrupt) : "nothing");
    facts.corrupt.classList.toggle("bad", t.corrupt > 0);
    setHidden(this.trouble, !t.error);
    setText(this.trouble, t.error ?? "");
    this.properties.show(t, this.detail, this.sources);
    this.#showWhy();
  }

  /** Of what nobody gave us there is nothing to be seen: what we give is then what is to be shown. */
  #showGiven(held, givers) {
    const ours = givers === 0 && this.map.pieces > 0 && held === this.map.pieces && !this.unrecorded;
    setHidden(this.mapPair, ours);
    setHidden(this.timeCard, ours);
    setHidden(this.badCard, ours && this.bad.length === 0);
    setHidden(this.facts.availability.parentElement, ours);
    setHidden(this.facts.corrupt.parentElement, ours);
    this.node.classList.toggle("ours", ours);
    setHidden(this.facts.eta.parentElement, ours);
  }

  #showWhy() {
    const sentence = this.waiting?.sentence;
    setHidden(this.why, !sentence);
    if (!sentence) return;
    setText(this.whyText, sentence);
    const shares = Object.entries(this.waiting.recent ?? {}).filter(([, value]) => value >= 0.01).sort((a, b) => b[1] - a[1]);
    this.why.classList.toggle("fine", shares.length === 0 || shares[0][0] === "moving" || shares[0][1] < 0.5);
    const words = shares.slice(0, 5).map(([name, value]) => `${WAITS[name] ?? name} ${Math.round(100 * value)} %`);
    if (words.length > 0) words.unshift("Waited in the last minute for:");
    const parts = this.whyParts;
    while (parts.children.length > words.length) parts.lastChild.remove();
    words.forEach((word, i) => setText(parts.children[i] ?? parts.appendChild(el("span")), word));
  }

  #showGivers() {
    const list = [...this.givers.values()].map((giver) => ({ ...giver, mine: this.counts.get(giver.id) ?? 0 }));
    list.sort((a, b) => b.mine - a.mine || a.id - b.id);
    const kept = this.counts.get(KEPT) ?? 0;
    const held = this.map.pieces - (this.counts.get(MISSING) ?? 0);
    this.#showGiven(held, list.length);
    this.giverList.only = this.only;
    this.giverList.held = held;
    this.giverList.set(kept > 0 ? [...list, { id: KEPT, peer: this.#kept(), client: null, mine: kept }] : list);
    setHidden(this.noGivers, list.length > 0);
    setText(this.noGivers, this.unrecorded ? `Who gave what is not known: ${this.unrecorded}` : "Nobody has given a piece yet.");
    const { lost, waiting } = this.lost ?? { lost: 0, waiting: 0 };
    const lacks = [];
    if (lost > 0) lacks.push(`${plural(lost, "record")} of who gave what ${lost === 1 ? "is" : "are"} lost, because the journal could not be written.`);
    if (waiting > 0) lacks.push(`${plural(waiting, "record")} ${waiting === 1 ? "waits" : "wait"} until the journal can be written.`);
    setText(this.lacks, lacks.join(" "));
    setHidden(this.lacks, lacks.length === 0);
    setHidden(this.giverList.node, list.length === 0 && kept === 0);
    setText(this.caption, this.map.pieces === 0 ? "" : `${number(held)} of ${plural(this.map.pieces, "piece")} held`);
    const top = list.slice(0, 5).map((giver) => `${giver.peer} gave ${number(giver.mine)}`).join(", ");
    setText(this.summary, `${number(held)} of ${number(this.map.pieces)} pieces are held. ${top ? `${top}.` : ""} ${kept ? `${number(kept)} were on disk already.` : ""} ${this.bad.length ? `${this.bad.length} failed.` : ""}`);
  }

  #showBad() {
    const newest = [...this.bad].reverse();
    this.badList.set(newest);
    setHidden(this.noBad, newest.length > 0);
    setHidden(this.badList.node, newest.length === 0);
    setText(this.badCount, newest.length ? plural(newest.length, "failure") : "");
  }

  #kept() {
    return this.unrecorded ? "held, giver not known" : "was on disk already";
  }

  #owned(piece) {
    const owner = this.map.owner[piece];
    return { owner, kept: this.#kept(), giver: this.givers.get(owner) ?? null, failed: this.map.failed.has(piece) };
  }

  #describe(piece) {
    const { owner, giver, failed } = this.#owned(piece);
    const what = owner === MISSING ? "not held" : owner === KEPT ? this.#kept() : `from ${giver?.peer ?? "a peer"}${giver?.client ? `, ${giver.client}` : ""}`;
    return `Piece ${piece}, ${what}${failed ? ", failed once" : ""}`;
  }

  #point(piece) {
    this.story.show(piece, piece < 0 ? null : this.#owned(piece));
  }

  async #priority(index, priority) {
    await ask(this.path, { method: "PATCH", body: { files: [[index, priority]] } });
    announce("Priority changed");
    await this.#loadDetail();
  }

  async #priorities(priority) {
    await ask(this.path, { method: "PATCH", body: { files: this.fileItems.map((file) => [file.index, priority]) } });
    await this.#loadDetail();
  }
}
