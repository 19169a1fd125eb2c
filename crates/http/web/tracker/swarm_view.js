// One torrent: who holds which piece, and the questions about it.

import { beforeFrame, debounce, el, empty, section, setHidden, setText } from "../common/dom.js";
import { bytes, copies, dateTime, number, percent, plural, span } from "../common/format.js";
import { shortRanges } from "../common/bits.js";
import { ask } from "../common/live.js";
import { Heat, age, silence } from "./heat.js";
import { Swarm } from "./swarm.js";

const ORDERS = {
  "by arrival": (a, b) => a.id - b.id,
  "most complete": (a, b) => (b.held ?? -1) - (a.held ?? -1) || a.id - b.id,
  "least complete": (a, b) => (a.held ?? -1) - (b.held ?? -1) || a.id - b.id,
  "fastest": (a, b) => (b.rate ?? 0) - (a.rate ?? 0) || a.id - b.id,
  "most silent": (a, b) => silence(b) - silence(a) || a.id - b.id,
};
const GONE = { stopped: "left", expired: "was silent too long", unreachable: "can no longer be reached", joined: "is the second address of another" };

export class SwarmView {
  /** `chosen` is the address of a peer to ask about first. */
  constructor(hash, chosen = "") {
    this.hash = hash;
    this.chosen = chosen;
    this.words = "";
    this.path = `/torrents/${hash}`;
    this.stream = `${this.path}/events`;
    this.probe = `${this.path}/map`;
    this.swarm = null;
    this.order = "by arrival";
    this.stop = new AbortController();
    this.handlers = {
      map: (map) => this.#map(map),
      have: (have) => this.#have(have),
      peer: (row) => this.#peer(row),
      gone: (gone) => this.#gone(gone),
      pulse: ({ peers }) => this.#pulse(peers),
      counts: (counts) => {
        Object.assign(this.head, counts);
        beforeFrame(this.show);
      },
    };
    this.heat = new Heat({
      pickPeer: (peer) => this.#askPeer(peer),
      pickPiece: (piece) => this.#askPiece(piece),
      tell: (text) => setText(this.under, text),
    });
    this.#build();
    this.show = () => this.#show();
    this.arrange = () => this.#arrange();
    this.timer = setInterval(() => this.#tick(), 2000);
  }

  close() {
    clearInterval(this.timer);
    this.stop.abort();
    this.heat.close();
  }

  state(kind, sentence) {
    if (kind === "refused") {
      this.node.replaceChildren(el("a", { class: "back", href: "#/", text: "← Catalogue" }),
        el("div", { class: "card" }, empty("This torrent cannot be shown", `The tracker says: ${sentence}.`)));
    }
  }

  #build() {
    this.h1 = el("h1", { text: "…" });
    this.sub = el("p", { class: "soft small mono" });
    this.facts = {};
    const fact = (name, label) => el("div", {}, el("dt", { text: label }), (this.facts[name] = el("dd", { text: "–" })));
    const risky = (name, label) => {
      const button = el("button", { type: "button", class: "plain figure", text: "–", title: "Which pieces, and who holds them?", onclick: () => this.#askRisk() });
      this.facts[name] = button;
      return el("div", {}, el("dt", { text: label }), el("dd", {}, button));
    };
    const facts = el("dl", { class: "facts" }, fact("copies", "Copies"), risky("risk0", "Pieces nobody holds"), risky("risk1", "Pieces with one holder"),
      fact("seeds", "Seeds"), fact("leechers", "Leechers"), fact("downloads", "Downloads"), fact("size", "Size"), fact("observer", "Observer"));
    this.log = el("a", { class: "button", text: "Its requests" });
    const head = el("div", { class: "card" }, el("div", { class: "title" }, el("div", {}, this.h1, this.sub), el("div", { class: "tools" }, this.log)), facts, (this.watched = el("p", { class: "small soft", hidden: true })));
    const order = el("select", { ariaLabel: "Order of the peers", onchange: () => {
      this.order = order.value;
      this.#arrange();
    } }, Object.keys(ORDERS).map((name) => el("option", { value: name, text: name })));
    const whole = el("button", { type: "button", id: "overview", text: "Whole swarm", "aria-pressed": "false", onclick: () => {
      const on = !this.heat.overview;
      whole.setAttribute("aria-pressed", on);
      this.heat.showOverview(on);
    } });
    const find = el("input", { type: "search", id: "find-peer", placeholder: "Find a peer", ariaLabel: "Find a peer by address or client", autocomplete: "off", spellcheck: false, oninput: () => {
      this.words = find.value.trim().toLowerCase();
      this.#arrange();
    } });
    this.noneFound = el("p", { class: "soft", role: "status", hidden: true, text: "No peer has that in its address or client." });
    this.under = el("p", { class: "small soft", text: "Point at the map; click a piece or a peer to ask about it: what it misses, what is lost without it, why it is not faster." });
    const swatch = (kind, text) => el("span", {}, el("i", { class: `swatch ${kind}` }), text);
    this.blank = empty("Nobody shares it just now", "The map fills as soon as a peer announces itself. Let one seed it:", "torrent-peer share FILE TRACKER", "torrent-seed --input FILE");
    this.summary = el("p", { class: "sr" });
    const mapCard = section("map", "Who holds which piece", el("div", { class: "tools" }, find, order, whole), this.blank, this.noneFound, (this.figure = el("div", {}, this.heat.node, this.summary,
      el("div", { class: "key" }, swatch("reported", "reported by the peer to us"), swatch("observed", "observed by the tracker"), swatch("announced", "announced only"), swatch("unknown", "not known"),
        swatch("", "not held"), swatch("risk0", "nobody"), swatch("risk1", "one holder"), swatch("copies", "more holders"), el("span", { text: "▢ may hold more than it says" })), this.under)));
    const piece = el("input", { type: "text", inputMode: "numeric", id: "piece", ariaLabel: "Number of a piece", placeholder: "piece", size: 8 });
    const pieceForm = el("form", { class: "tools", onsubmit: (event) => {
      event.preventDefault();
      const n = Number(piece.value.trim());
      if (this.swarm && piece.value.trim() && Number.isInteger(n) && n >= 0 && n < this.swarm.pieces) this.heat.go(n, true);
      else this.#answer("No such piece", el("p", { class: "bad", text: `Pieces are numbered from 0 to ${number((this.swarm?.pieces ?? 1) - 1)}.` }));
    } }, piece, el("button", { type: "submit", text: "Who holds it?" }));
    piece.style.width = "110px";
    const risk = el("button", { type: "button", id: "at-risk", text: "What is at risk?", onclick: () => this.#askRisk() });
    this.answerTitle = el("h3", { hidden: true });
    this.answerBody = el("div", {}, el("p", { class: "soft", text: "Ask who holds a piece, what is lost if one peer leaves, or choose a peer in the map: what does it miss, and can the others do without it?" }));
    this.answers = section("questions", "Questions", el("div", { class: "tools" }, pieceForm, risk), el("div", { class: "answer", role: "region", "aria-live": "polite", "aria-label": "Answer" }, this.answerTitle, this.answerBody));
    this.node = el("div", {}, el("a", { class: "back", href: "#/", text: "← Catalogue" }), head, mapCard, this.answers);
    setHidden(this.figure, true);
    this.countRisk = debounce(400, () => {
      if (this.swarm) {
        this.risk = this.swarm.atRisk();
        beforeFrame(this.show);
      }
    });
  }

  #map(map) {
    this.head = map;
    this.swarm = new Swarm(map.pieces);
    this.swarm.silentAfter = map.silent_after;
    const now = performance.now();
    for (const row of map.peers) this.swarm.put(row).heard = now;
    map.peers = null;
    this.risk = this.swarm.atRisk();
    this.heat.set(this.swarm);
    this.#arrange();
    beforeFrame(this.show);
    if (!this.chosen) return;
    const chosen = [...this.swarm.peers.values()].find((peer) => peer.peer === this.chosen);
    if (chosen) this.#askPeer(chosen);
    else this.#answer(this.chosen, el("p", { text: "It shares this torrent no longer." }));
    this.chosen = "";
  }

  #have(have) {
    if (!this.swarm) return;
    const peer = this.swarm.have(have, (piece) => this.heat.held(this.swarm.peers.get(have.id), piece));
    if (!peer) return;
    this.heat.touched(peer);
    this.#laterRisk();
  }

  #peer(row) {
    if (!this.swarm) return;
    const known = this.swarm.peers.has(row.id);
    const peer = this.swarm.put(row);
    peer.heard = performance.now();
    this.heat.changed(row.id);
    if (known) {
      const i = this.heat.order.findIndex((one) => one.id === row.id);
      if (i >= 0) this.heat.order[i] = peer;
    } else beforeFrame(this.arrange);
    this.#laterRisk();
  }

  /** Figures that change by themselves. */
  #pulse(rows) {
    for (const { id, ...figures } of rows) {
      const peer = this.swarm?.peers.get(id);
      if (!peer) continue;
      Object.assign(peer, figures, { heard: performance.now() });
      this.heat.touched(peer);
    }
  }

  #gone({ id, peer, why }) {
    if (!this.swarm?.drop(id)) return;
    setText(this.under, `${peer} ${GONE[why] ?? why}`);
    this.heat.changed(id);
    beforeFrame(this.arrange);
    this.#laterRisk();
  }

  /** Counting all pieces takes a moment, so not with every event; but also while they never stop. */
  #laterRisk() {
    beforeFrame(this.show);
    if (performance.now() - (this.riskAt ?? 0) > 1000) {
      this.riskAt = performance.now();
      this.risk = this.swarm.atRisk();
    } else this.countRisk();
  }

  #tick() {
    if (!this.swarm || document.hidden) return;
    if (this.order !== "by arrival") this.#arrange();
    else for (const row of this.heat.rows.values()) if (row.peer) this.heat.touched(row.peer);
  }

  #arrange() {
    if (!this.swarm) return;
    const { words } = this;
    const fits = (peer) => !words || peer.peer.includes(words) || (peer.client ?? "").toLowerCase().includes(words);
    const found = [...this.swarm.peers.values()].filter(fits);
    setHidden(this.noneFound, found.length > 0 || this.swarm.peers.size === 0);
    this.heat.arrange(found.sort(ORDERS[this.order]));
    beforeFrame(this.show);
  }

  #show() {
    const { head, facts, swarm, risk } = this;
    if (!swarm) return;
    setText(this.h1, head.name);
    document.title = `${head.name} – Piecework tracker`;
    setText(this.sub, head.info_hash);
    this.log.href = `#/requests/${encodeURIComponent(head.name)}`;
    setText(facts.copies, copies(head.copies));
    facts.copies.classList.toggle("bad", head.copies < 1);
    setText(facts.risk0, number(risk.none));
    facts.risk0.classList.toggle("bad", risk.none > 0);
    setText(facts.risk1, number(risk.one));
    facts.risk1.classList.toggle("warn", risk.one > 0);
    setText(facts.seeds, number(head.complete));
    setText(facts.leechers, number(head.incomplete));
    setText(facts.downloads, number(head.downloads));
    setText(facts.size, `${bytes(head.size)} in ${plural(head.pieces, "piece")}`);
    const any = swarm.peers.size > 0;
    setText(facts.observer, head.observer?.on ? `connected to ${number(head.observer.connected)} of ${number(swarm.peers.size)}` : "off");
    const watched = any ? this.#watched() : "";
    setText(this.watched, watched);
    setHidden(this.watched, !watched);
    setHidden(this.blank, any);
    if (this.figure.hidden === any) {
      setHidden(this.figure, !any);
      this.heat.layout();
    }
    setText(this.summary, `${plural(swarm.peers.size, "peer")}, ${number(head.complete)} of them with everything; ${copies(head.copies)} copies; ${plural(risk.none, "piece")} nobody holds, ${number(risk.one)} one peer alone.`);
  }

  /** Why the observer is not connected to all peers, and what is known of the others. */
  #watched() {
    const peers = [...this.swarm.peers.values()];
    const count = (test) => peers.filter(test).length;
    const reported = count((peer) => peer.source === "reported");
    const refused = count((peer) => peer.source !== "reported" && peer.reachable === false);
    const closing = count((peer) => peer.reason);
    const unknown = count((peer) => peer.source === null && peer.reachable !== false && !peer.reason);
    if (!this.head.observer?.on) return reported < peers.length ? "The tracker connects to no peer of this torrent: of clients other than Piecework it knows only what they announce." : "";
    if (this.head.observer.connected >= peers.length) return "";
    const parts = [
      reported ? `${plural(reported, "peer tells", "peers tell")} by themselves what they hold, and need no connection` : "",
      refused ? `${plural(refused, "peer takes", "peers take")} no connection from the tracker` : "",
      closing ? `${plural(closing, "peer closes", "peers close")} the connection at the tracker's handshake, plain and encrypted` : "",
      unknown ? `of ${plural(unknown, "peer")} it is not known yet what they hold` : "",
    ].filter(Boolean);
    return parts.length ? `${parts.join("; ")}.` : "The others were looked at before, and are looked at again by and by.";
  }

  /** Sentences on why a peer is not faster, from what the tracker knows of it and of the others. */
  #why(peer) {
    const { swarm } = this;
    const lines = [];
    const quiet = silence(peer);
    if (quiet >= (swarm.silentAfter ?? Infinity)) lines.push(`Nothing was heard of it for ${span(quiet)}: it may be gone.`);
    if (peer.reason) lines.push(`It ${peer.reason}. The tracker cannot see what it holds.`);
    if (peer.whole) return ["It has everything: it gives, and gets nothing.", ...lines];
    if (peer.bits === null) return ["It is not known what it holds, so neither what it waits for.", ...lines];
    const { missing, none, one, sources } = swarm.prospects(peer);
    if (missing === 0) return ["It has everything: it gives, and gets nothing.", ...lines];
    if (sources === 0) lines.push("Nobody else holds anything that it misses: it waits for somebody who does.");
    else {
      lines.push(`${plural(sources, "other peer holds", "other peers hold")} something that it misses.`);
      if (none > 0) lines.push(`${plural(none, "piece")} that it misses ${none === 1 ? "is" : "are"} held by nobody.`);
      if (one > 0) lines.push(`${plural(one, "piece")} that it misses ${one === 1 ? "is" : "are"} held by one peer alone, which can give only so much.`);
    }
    if (peer.reachable === false && !peer.reason) lines.push("It takes no connection from the tracker: if other peers cannot connect to it either, it gets only from those it connects to itself.");
    const rates = [...swarm.peers.values()].filter((other) => other !== peer && other.rate > 0).map((other) => other.rate).sort((a, b) => a - b);
    const middle = rates[Math.floor(rates.length / 2)];
    if (middle && (peer.rate ?? 0) < middle / 2) lines.push(`It gets ${(peer.rate ?? 0).toFixed(1)} pieces a second; half of the others get ${middle.toFixed(1)} or more.`);
    else if (middle && sources > 0) lines.push("It gets about as much as the others: the swarm gives no more, or its own limits or line are reached.");
    return lines;
  }

  #answer(title, ...nodes) {
    setText(this.answerTitle, title);
    setHidden(this.answerTitle, !title);
    this.answerBody.replaceChildren(...nodes);
    if (title) this.answers.scrollIntoView({ block: "nearest" });
  }

  async #question(title, work) {
    this.#answer(title, el("p", { class: "soft", text: "…" }));
    const serial = (this.serial = (this.serial ?? 0) + 1);
    try {
      const nodes = await work((rest) => ask(this.path + rest, { signal: this.stop.signal }));
      if (serial === this.serial) this.#answer(title, ...nodes);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (serial === this.serial) this.#answer(title, el("p", { class: "bad", text: error.message }));
    }
  }

  #askPiece(piece) {
    return this.#question(`Who holds piece ${number(piece)}?`, async (get) => {
      const answer = await get(`/pieces/${piece}`);
      const names = answer.holders.slice(0, 400).map((one) => el("li", {}, el("span", { class: "mono", text: one.peer }), ` ${[one.also_at ? `also at ${one.also_at}` : "", one.client, one.source, one.sure === false ? "may hold more" : ""].filter(Boolean).join(" · ")}`));
      return [el("p", { text: answer.count === 0 ? "Nobody: unless somebody who has it comes back, nobody can complete." : `${plural(answer.count, "peer")}${answer.count === 1 ? " alone: if it leaves, the piece is lost." : "."}` }), el("ul", { tabIndex: 0, ariaLabel: "Holders", role: "list" }, names)];
    });
  }

  #askPeer(peer) {
    const same = this.heat.picked === peer.id;
    this.heat.pick(same ? null : peer);
    if (same) {
      this.#answer("", el("p", { class: "soft", text: "No peer is chosen." }));
      return null;
    }
    return this.#question(`${peer.peer}${peer.client ? `, ${peer.client}` : ""}`, async (get) => {
      const who = encodeURIComponent(peer.peer);
      const [missing, without] = await Promise.all([get(`/missing?peer=${who}`), get(`/without?peer=${who}`)]);
      const how = [peer.source ? `${peer.source}${peer.sure === false ? ", may hold more than it says" : ""}` : "not known what it holds", peer.rate ? `${peer.rate.toFixed(1)} pieces/s` : "", peer.eta ? `${span(peer.eta)} left` : "", `heard of ${span(silence(peer))} ago`];
      return [
        el("p", { class: "soft", text: `${peer.held === null ? "" : `${percent(peer.held, this.swarm.pieces)} · `}${how.filter(Boolean).join(" · ")}` }),
        peer.also_at ? el("p", {}, el("b", { text: "Also at: " }), el("span", { class: "mono", text: peer.also_at })) : "",
        el("p", {}, el("b", { text: "Misses: " }), missing.count === null ? "it is not known what it holds." : missing.count === 0 ? "nothing." : `${plural(missing.count, "piece")}: ${shortRanges(missing.pieces)}.`),
        el("p", {}, el("b", { text: "As of: " }), peer.as_of ? `${dateTime(peer.as_of)}, ${span(age(peer))} ago.` : "never told or shown."),
        el("p", { class: without.can_complete ? "" : "bad" }, el("b", { text: "Without it: " }), without.can_complete
          ? `the others can complete; ${copies(without.copies)} copies remain.`
          : `nobody can complete: ${plural(without.count, "piece")} would be lost: ${shortRanges(without.pieces)}.`),
        el("p", {}, el("b", { text: "Why it is not faster: " }), this.#why(peer).join(" ")),
      ];
    });
  }

  #askRisk() {
    return this.#question("Pieces with one holder or none", async (get) => {
      const answer = await get("/at-risk?k=1");
      if (answer.count === 0) return [el("p", { class: "good", text: "None: every piece has at least two holders." })];
      const groups = answer.groups.slice(0, 200).map((group) => el("li", {}, el("span", { class: "mono", text: group.holders.join(", ") || "nobody" }), ` ${plural(group.count, "piece")}: ${shortRanges(group.pieces, 4)}`));
      if (answer.more > 0) groups.push(el("li", { text: `and ${plural(answer.more, "more group")}` }));
      return [el("p", { text: `${plural(answer.count, "piece")} would be lost if one peer left, or are lost already.` }), el("ul", { tabIndex: 0, ariaLabel: "Pieces at risk by holder", role: "list" }, groups)];
    });
  }
}
