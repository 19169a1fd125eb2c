// The daemon's page: which view is shown, and what all views share.

import { announce, el, empty, notice, setAttr, setHidden, setText, showStanding } from "../common/dom.js";
import { Live, ask, showState } from "../common/live.js";
import { rate } from "../common/format.js";
import { add, takeDrops } from "./add.js";
import { Detail } from "./detail.js";
import { listenToKeys, showKeys } from "./keys.js";
import { asOwner, logIn } from "./login.js";
import { SettingsView } from "./settings.js";
import { share } from "./share.js";
import { TorrentList } from "./torrents.js";

const main = document.getElementById("main");
const totals = document.getElementById("totals");
const turtle = document.getElementById("turtle");
let view = null;
let live = null;
let settings = null;

function make(hash) {
  const found = /^#\/t\/([0-9a-f]{40})$/.exec(hash);
  if (found) return new Detail(found[1], { back });
  return hash === "#/settings" ? new SettingsView() : new TorrentList({ total: showTotals });
}

/** Each view listens to a stream of its own: a browser has few connections. */
function route() {
  const hash = location.hash;
  if (hash && !hash.startsWith("#/")) return;
  live?.close();
  view?.close();
  setHidden(totals, true);
  document.title = "Piecework daemon";
  scrollTo(0, 0);
  view = make(hash);
  main.replaceChildren(view.node);
  for (const link of document.querySelectorAll(".top nav a")) {
    const isSettings = link.getAttribute("href") === "#/settings";
    setAttr(link, "aria-current", isSettings === (hash === "#/settings") ? "page" : null);
  }
  showStanding([]);
  const handlers = { ...view.handlers, notices: (list) => {
    showStanding(list);
    view?.noticesChanged?.();
  }, settings: (now) => {
    showTurtle(now);
    view?.handlers.settings?.(now);
  } };
  live = new Live(view.stream, handlers, { opened: () => {
    showStanding([]);
    view?.opened?.();
    readSettings();
  }, state: (kind, sentence, status) => {
    showState(kind, sentence);
    if (status === 401) shutOut();
    else view?.state?.(kind, sentence);
  } });
  view?.start?.();
  if (hash.startsWith("#/t/")) main.focus({ preventScroll: true });
}

/** Without the password there is nothing to be seen, and nothing is asked until it is entered. */
function shutOut() {
  view?.close();
  view = null;
  const why = "This daemon has a password.";
  const again = el("button", { type: "button", class: "main", id: "log-in", text: "Log in", onclick: () => logIn(why) });
  main.replaceChildren(el("div", { class: "card" }, empty("A password is needed", "Log in to see what this daemon does."), el("div", { class: "tools center" }, again)));
  logIn(why);
}

function back() {
  location.hash = "#/";
}

function showTotals({ down, up }) {
  const [one, two] = totals.querySelectorAll("b");
  setText(one, rate(down));
  setText(two, rate(up));
  setHidden(totals, false);
}

async function readSettings() {
  try {
    showTurtle(await ask("/settings"));
  } catch (fault) {
    // The stream says whether the daemon is there.
    if (fault.status === undefined) throw fault;
  }
}

function showTurtle(now) {
  settings = now;
  const { alt } = now;
  const words = `${rate(alt.download) === "–" ? "no limit" : rate(alt.download)} down, ${rate(alt.upload) === "–" ? "no limit" : rate(alt.upload)} up`;
  setHidden(turtle, false);
  setAttr(turtle, "aria-pressed", String(alt.on));
  turtle.title = alt.on ? `The second pair of limits holds: ${words}` : `Slow down: ${words}`;
}

async function toggleTurtle() {
  if (!settings) return;
  try {
    showTurtle(await asOwner(() => ask("/settings", { method: "PATCH", body: { alt: { ...settings.alt, on: !settings.alt.on } } })));
    announce(settings.alt.on ? "The second pair of limits holds" : "The usual limits hold");
  } catch (fault) {
    if (fault.status === undefined) throw fault;
    notice(fault.message, "bad");
  }
}

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
turtle.addEventListener("click", toggleTurtle);
document.getElementById("keys").addEventListener("click", showKeys);
addEventListener("hashchange", route);
addEventListener("loggedin", route);
addEventListener("unhandledrejection", (event) => {
  const { reason } = event;
  if (reason?.name === "AbortError") event.preventDefault();
  else if (reason?.status !== undefined) {
    event.preventDefault();
    notice(reason.message, "bad");
  }
});
listenToKeys({
  "?": showKeys, a: () => add(), h: () => share(), t: toggleTurtle, l: back,
  s: () => {
    location.hash = "#/settings";
  },
}, () => view);
takeDrops();
route();
