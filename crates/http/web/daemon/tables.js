// The tables of one torrent.

import { el, icon, setAttr, setText, visible } from "../common/dom.js";
import { bytes, dateTime, number, percent, plural, rate, span } from "../common/format.js";
import { List } from "../common/list.js";
import { paintSwatch, palette } from "../common/colors.js";
import { KEPT } from "./map.js";

const TRACKER_STATES = { idle: "not asked yet", announcing: "being asked", working: "works", failed: "failed", stopped: "told that we left" };

const SOURCES = {
  tracker: "from a tracker", dht: "from the DHT", exchange: "from another peer", local: "from the local network",
  magnet: "from a magnet link", user: "named by you", incoming: "dialled us",
};

const PEN = "M2.5 13.5l.7-3L10.6 3l2.4 2.4-7.5 7.4zM11.4 2.2l1-1 2.4 2.4-1 1z";

const PRIORITIES = ["skip", "low", "normal", "high"];

const narrow = matchMedia("(max-width: 640px)");

function swatch() {
  return el("canvas", { class: "swatch", width: 14, height: 14, "aria-hidden": "true" });
}

export function givers({ pick, slotOf }) {
  const list = new List({
    label: "Givers, and how many pieces each gave", klass: "givers",
    columns: [
      { name: "color", label: "Colour", hide: true }, { name: "who", label: "Peer", class: "who" },
      { name: "pieces", label: "Pieces", class: "num" }, { name: "share", label: "Share", class: "num" },
    ],
    key: (giver) => giver.id,
    rowHeight: () => (narrow.matches ? 54 : 46),
    make: (row, cells) => {
      row.swatch = swatch();
      cells[0].append(row.swatch);
      row.button = el("button", { type: "button", class: "plain mono", onclick: () => row.item.id >= 0 && pick(row.item.id) });
      row.client = el("span", { class: "soft small" });
      cells[1].append(row.button, row.client);
    },
    show: (row, cells, giver) => {
      const slot = giver.id === KEPT ? KEPT : slotOf(giver.id);
      if (row.slot !== slot) {
        row.slot = slot;
        row.swatch.className = giver.id === KEPT ? "swatch kept" : "swatch";
        if (giver.id === KEPT) {
          row.swatch.getContext("2d").clearRect(0, 0, 14, 14);
          row.swatch.style.background = "var(--kept)";
        } else paintSwatch(row.swatch, slot, palette());
      }
      setText(row.button, giver.peer);
      row.button.disabled = giver.id === KEPT;
      setAttr(row.button, "aria-pressed", giver.id === KEPT ? null : list.only === giver.id);
      const faults = [giver.banned ? "banned" : "", giver.failed ? `${number(giver.failed)} failed` : ""].filter(Boolean).join(", ");
      setText(row.client, [giver.client, giver.bytes ? bytes(giver.bytes) : "", faults].filter(Boolean).join(" · "));
      row.client.classList.toggle("bad", faults !== "");
      setText(cells[2], number(giver.mine));
      setText(cells[3], percent(giver.mine, list.held));
      row.node.classList.toggle("faded", list.only !== null && list.only !== undefined && list.only !== giver.id);
    },
  });
  return list;
}

export function peers({ slotOf }) {
  return new List({
    label: "Connected peers", klass: "peers",
    columns: [
      { name: "peer", label: "Peer" }, { name: "client", label: "Client", class: "mid" },
      { name: "from", label: "From it", class: "num" }, { name: "to", label: "To it", class: "num" },
      { name: "got", label: "Got", class: "num wide" }, { name: "gave", label: "Gave", class: "num wide" },
      { name: "state", label: "Has, and does", class: "wide" },
    ],
    key: (peer) => peer.addr,
    rowHeight: () => 34,
    make: (row, cells) => {
      row.swatch = swatch();
      row.addr = el("span", { class: "mono" });
      cells[0].append(row.swatch, " ", row.addr);
    },
    show: (row, cells, peer) => {
      const slot = slotOf(peer.addr);
      row.swatch.style.visibility = slot === null ? "hidden" : "visible";
      if (row.slot !== slot && slot !== null) paintSwatch(row.swatch, slot, palette());
      row.slot = slot;
      setText(row.addr, peer.addr);
      setText(cells[1], peer.client);
      setText(cells[2], rate(peer.download_rate));
      setText(cells[3], rate(peer.upload_rate));
      setText(cells[4], bytes(peer.downloaded));
      setText(cells[5], bytes(peer.uploaded));
      const words = [`${percent(peer.progress, 1)}`];
      if (SOURCES[peer.source]) words.push(SOURCES[peer.source]);
      if (peer.encryption) words.push(peer.encryption === "rc4" ? "encrypted" : "encrypted handshake");
      if (peer.we_are_interested && peer.choking_us) words.push("chokes us");
      if (peer.interested_in_us && peer.choked_by_us) words.push("choked by us");
      if (peer.outstanding) words.push(`owes ${number(peer.outstanding)}`);
      setText(cells[6], words.join(" · "));
    },
  });
}

/** The same failure told again, with more known about it, is still that failure. */
export const badKey = (bad) => `${bad.time} ${bad.piece} ${bad.got}`;

export function bads() {
  return new List({
    label: "Bad pieces and their evidence", klass: "bads",
    columns: [
      { name: "time", label: "Time", class: "wide" }, { name: "piece", label: "Piece", class: "num" },
      { name: "block", label: "Block", class: "num mid" }, { name: "peer", label: "From" },
      { name: "expected", label: "Right hash" }, { name: "got", label: "Hash of what came" },
    ],
    key: badKey,
    rowHeight: () => 34,
    make: (row, cells) => {
      cells[4].classList.add("mono");
      cells[5].classList.add("mono", "bad");
    },
    show: (row, cells, bad) => {
      if (row.shown === bad) return;
      row.shown = bad;
      setText(cells[0], dateTime(bad.time));
      setText(cells[1], number(bad.piece));
      setText(cells[2], bad.block === null || bad.block === undefined ? "–" : number(bad.block));
      const from = bad.peer ? `${bad.peer}${bad.client ? ` ${bad.client}` : ""}` : `one of ${plural(bad.givers, "giver")}`;
      // Of the block, once it is known which one was wrong; of the whole piece before.
      const right = bad.block_right ?? bad.expected;
      const got = bad.block_sent ?? bad.got;
      for (const [i, text] of [[3, from], [4, right], [5, got]]) {
        setText(cells[i], text);
        setAttr(cells[i], "title", i === 3 ? visible(text) : `SHA-1 of the ${bad.block_sent ? "block" : "piece"}: ${text}`);
      }
    },
  });
}

export function trackers() {
  return new List({
    label: "Trackers", klass: "trackers",
    columns: [
      { name: "url", label: "Tracker" }, { name: "state", label: "State" }, { name: "peers", label: "Seeds, leechers", class: "num mid" },
      { name: "next", label: "Asked again", class: "num mid" },
    ],
    key: (tracker) => `${tracker.tier} ${tracker.url}`,
    rowHeight: () => (narrow.matches ? 58 : 52),
    make: (row, cells) => {
      row.url = el("span", { class: "mono line" });
      row.more = el("span", { class: "small soft line" });
      cells[0].append(row.url, row.more);
    },
    show: (row, cells, tracker) => {
      setText(row.url, tracker.url);
      setAttr(row.url, "title", visible(tracker.url));
      const asked = tracker.announced_at ? `, asked ${span(Date.now() / 1000 - tracker.announced_at)} ago` : "";
      const more = tracker.error ?? tracker.warning ?? `tier ${tracker.tier + 1}${tracker.peers ? `, gave ${plural(tracker.peers, "address", "addresses")}` : ""}${asked}`;
      setText(row.more, more);
      setAttr(row.more, "title", visible(more));
      row.more.classList.toggle("bad", tracker.error !== null);
      setText(cells[1], TRACKER_STATES[tracker.state] ?? tracker.state);
      cells[1].className = `cell ${tracker.state === "failed" ? "bad" : ""}`;
      setText(cells[2], tracker.seeds === null && tracker.leechers === null ? "–" : `${number(tracker.seeds)}, ${number(tracker.leechers)}`);
      const wait = tracker.next_announce_at === null ? null : tracker.next_announce_at - Date.now() / 1000;
      setText(cells[3], wait === null ? "–" : wait <= 0 ? "now" : `in ${span(wait)}`);
    },
  });
}

export function files({ change, rename }) {
  return new List({
    label: "Files", klass: "files",
    columns: [
      { name: "path", label: "File" }, { name: "size", label: "Size", class: "num mid" },
      { name: "done", label: "Done", class: "num" }, { name: "priority", label: "Priority" },
      { name: "rename", label: "Rename", class: "act", hide: true },
    ],
    key: (file) => file.index,
    rowHeight: () => 40,
    make: (row, cells) => {
      row.select = el("select", { onchange: () => change(row.item.index, row.select.value) }, PRIORITIES.map((name) => el("option", { value: name, text: name })));
      cells[3].append(row.select);
      row.rename = el("button", { type: "button", class: "icon plain-icon", title: "Rename", onclick: () => rename(row.item.path) }, icon(PEN));
      cells[4].append(row.rename);
    },
    show: (row, cells, file) => {
      setText(cells[0], file.path);
      setAttr(cells[0], "title", file.path);
      setText(cells[1], bytes(file.bytes));
      setText(cells[2], percent(file.bytes_have, file.bytes));
      setAttr(row.rename, "aria-label", `Rename ${file.path}`);
      setAttr(row.select, "aria-label", `Priority of ${file.path}`);
      if (row.select.value !== file.priority && document.activeElement !== row.select) row.select.value = file.priority;
    },
  });
}
