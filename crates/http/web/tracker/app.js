// The tracker's page: which view is shown.

import { notice, setAttr, showStanding } from "../common/dom.js";
import { Live, ask, showState } from "../common/live.js";
import { Catalogue } from "./catalogue.js";
import { Requests } from "./requests.js";
import { SwarmView } from "./swarm_view.js";

const main = document.getElementById("main");
let view = null;
let live = null;

/** The text of an escaped part of the address; none where somebody wrote it wrongly, such as `%`. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return "";
  }
}

function make(hash) {
  const torrent = /^#\/t\/([0-9a-f]{40})(?:\/(.*))?$/.exec(hash);
  if (torrent) return new SwarmView(torrent[1], decoded(torrent[2] ?? ""));
  const requests = /^#\/requests(?:\/(.*))?$/.exec(hash);
  if (requests) return new Requests(decoded(requests[1] ?? ""));
  return new Catalogue();
}

/** Each view listens to one stream: a browser has few connections. */
function route() {
  const hash = location.hash;
  if (hash && !hash.startsWith("#/")) return;
  live?.close();
  view?.close();
  scrollTo(0, 0);
  document.title = "Piecework tracker";
  view = make(hash);
  main.replaceChildren(view.node);
  for (const link of document.querySelectorAll(".top nav a")) {
    const here = link.getAttribute("href") === "#/" ? !hash.startsWith("#/requests") : hash.startsWith("#/requests");
    setAttr(link, "aria-current", here ? "page" : null);
  }
  live = new Live(view.stream, view.handlers, { probe: view.probe, opened: () => view.opened?.(), state: (kind, sentence) => {
    showState(kind, sentence);
    view.state?.(kind, sentence);
  } });
  if (hash.startsWith("#/t/")) main.focus({ preventScroll: true });
}

/** What the tracker cannot write just now. Whether it answers at all is for the stream to say. */
async function lookAtNotices() {
  if (document.hidden) return;
  try {
    showStanding((await ask("/stats")).notices ?? []);
  } catch (fault) {
    if (fault.status === undefined) throw fault;
  }
}

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", route);
addEventListener("unhandledrejection", (event) => {
  if (event.reason?.status !== undefined) {
    event.preventDefault();
    notice(event.reason.message, "bad");
  }
});
route();
lookAtNotices();
setInterval(lookAtNotices, 15000);
