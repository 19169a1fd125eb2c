// A stream of events that comes back by itself, and requests whose faults are sentences.

const FIRST_PAUSE = 1000;
const LONGEST_PAUSE = 15000;
/** Who has not said by then why a stream was lost is taken to be gone. */
const PROBE_FOR = 10000;
/** A page that nobody looks at lets go of its stream: a browser has six connections for each host. */
const HIDDEN_FOR = 20000;

/** Where the program is: one step above the page, also behind a proxy that serves it below a folder. */
const BASE = new URL("../", location.href.split("#")[0]);
const address = (path) => new URL(path.slice(1), BASE);

/** Why a request failed: a sentence, and the status (0: nobody answered). */
export class Fault extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

/** Asks for JSON; what is sent is JSON too. */
export async function ask(path, { method = "GET", body, signal } = {}) {
  const options = { method, signal, headers: { Accept: "application/json" }, cache: "no-store" };
  if (method !== "GET") options.headers["Content-Type"] = "application/json";
  if (body !== undefined) options.body = JSON.stringify(body);
  let response;
  try {
    response = await fetch(address(path), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault(0, "nobody answers: is the program still running?");
  }
  const text = await response.text();
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    throw new Fault(response.status, `the answer is not JSON (status ${response.status})`);
  }
  if (!response.ok) throw new Fault(response.status, answer?.error ?? `status ${response.status}`);
  return answer;
}

/**
 * Server-sent events of `path`. `handlers` take the parsed data by the event's name; `opened` is called
 * each time a stream begins, before its first event; `state(kind, sentence)` says how it stands: `live`,
 * `connecting`, `lost`, `refused` (a password is needed, or the thing is gone).
 */
export class Live {
  constructor(path, handlers, { opened = () => {}, state = () => {}, probe = path } = {}) {
    Object.assign(this, { path, handlers, opened, state, probe });
    this.pause = FIRST_PAUSE;
    this.timer = 0;
    this.source = null;
    this.ended = false;
    this.seen = () => this.#seen();
    document.addEventListener("visibilitychange", this.seen);
    this.#open();
  }

  close() {
    this.ended = true;
    clearTimeout(this.timer);
    clearTimeout(this.hiding);
    document.removeEventListener("visibilitychange", this.seen);
    this.source?.close();
    this.source = null;
  }

  /** Begins anew at once. */
  retry() {
    if (this.ended) return;
    clearTimeout(this.timer);
    this.#open();
  }

  #open() {
    this.source?.close();
    this.state("connecting", "connecting …");
    const source = new EventSource(address(this.path));
    this.source = source;
    source.onopen = () => {
      this.pause = FIRST_PAUSE;
      this.opened();
      this.state("live", "live");
    };
    source.onerror = () => {
      if (this.source === source) this.#lost();
    };
    for (const [name, handle] of Object.entries(this.handlers)) {
      source.addEventListener(name, (event) => {
        if (this.source === source) handle(JSON.parse(event.data));
      });
    }
    source.addEventListener("bye", () => {
      if (this.source === source) this.#lost("it has ended");
    });
  }

  async #lost(why) {
    // The browser would try again by itself, but silently, and without saying what was lost.
    this.source?.close();
    this.source = null;
    const pause = this.pause;
    this.pause = Math.min(LONGEST_PAUSE, 2 * pause);
    let sentence = why ?? "the connection is lost";
    // Before the program is asked, which may take its time.
    this.state("lost", sentence);
    try {
      await ask(this.probe, { signal: AbortSignal.timeout(PROBE_FOR) });
    } catch (fault) {
      if (this.ended || this.source) return;
      if (fault.status === 401 || fault.status === 404 || fault.status === 403) {
        this.state("refused", fault.status === 401 ? "a password is needed: reload this page to enter it" : fault.message);
        return;
      }
      // Without a status it took too long.
      sentence = fault.status ? fault.message : "nobody answers";
    }
    if (this.ended || this.source) return;
    this.state("lost", `${sentence}; trying again in ${Math.round(pause / 1000)} s`);
    this.timer = setTimeout(() => this.#open(), pause);
  }

  #seen() {
    clearTimeout(this.hiding);
    if (document.hidden) {
      this.hiding = setTimeout(() => {
        clearTimeout(this.timer);
        this.source?.close();
        this.source = null;
        this.state("connecting", "asleep while hidden");
      }, HIDDEN_FOR);
    } else if (!this.source && !this.ended) this.retry();
  }
}

/** Shows how a stream stands, in the page's head. */
export function showState(kind, sentence) {
  const node = document.getElementById("link");
  node.dataset.state = kind;
  const text = node.querySelector("span:last-child");
  if (text.textContent !== sentence) text.textContent = sentence;
  document.body.classList.toggle("stale", kind === "lost" || kind === "refused");
}
