// The daemon's page: which view is shown, and what all views share.

import { notice, setHidden, setText, showStanding } from "../common/dom.js";
import { Live, showState } from "../common/live.js";
import { rate } from "../common/format.js";
import { takeDrops } from "./actions.js";
import { TorrentList } from "./torrents.js";
import { Detail } from "./detail.js";

const main = document.getElementById("main");
const totals = document.getElementById("totals");
let view = null;
let live = null;

/** The list, and one torrent, each listen to a stream of their own: a browser has few connections. */
function route() {
  const hash = location.hash;
  if (hash && !hash.startsWith("#/")) return;
  const found = /^#\/t\/([0-9a-f]{40})$/.exec(hash);
  live?.close();
  view?.close();
  main.replaceChildren();
  setHidden(totals, true);
  document.title = "Piecework daemon";
  scrollTo(0, 0);
  view = found ? new Detail(found[1], { back }) : new TorrentList({ total: showTotals });
  main.append(view.node);
  showStanding([]);
  const handlers = { ...view.handlers, notices: (list) => {
    showStanding(list);
    view.noticesChanged?.();
  } };
  live = new Live(view.stream, handlers, { probe: view.probe, opened: () => {
    showStanding([]);
    view.opened?.();
  }, state: (kind, sentence) => {
    showState(kind, sentence);
    view.state?.(kind, sentence);
  } });
  view.start?.();
  if (found) main.focus({ preventScroll: true });
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

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", route);
addEventListener("unhandledrejection", (event) => {
  if (event.reason?.name === "Fault" || event.reason?.status !== undefined) {
    event.preventDefault();
    notice(event.reason.message, "bad");
  }
});
takeDrops();
route();
