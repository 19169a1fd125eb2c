// A stream of events that comes back by itself, and requests whose faults are sentences.

import { ownHeaders } from "./secret.js";

const FIRST_PAUSE = 1000;
const LONGEST_PAUSE = 15000;
/** A page that nobody looks at lets go of its stream: a browser has six connections for each host. */
const HIDDEN_FOR = 20000;

/** Where the program is: one step above the page, also behind a proxy that serves it below a folder. */
const BASE = new URL("../", location.href.split("#")[0]);
export const address = (path) => new URL(path.slice(1), BASE);

/** Why a request failed: a sentence, and the status (0: nobody answered). */
export class Fault extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

/** Sends a request; what is sent is JSON. Who does not answer is a fault, whoever answers is none. */
async function send(path, { method = "GET", body, signal, accept = "application/json", secret } = {}) {
  const options = { method, signal, headers: { Accept: accept, ...ownHeaders(secret) }, cache: "no-store" };
  if (method !== "GET") options.headers["Content-Type"] = "application/json";
  if (body !== undefined) options.body = JSON.stringify(body);
  try {
    return await fetch(address(path), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault(0, "nobody answers: is the program still running?");
  }
}

/** Asks for a file. */
export async function askBlob(path) {
  const response = await send(path, { accept: "*/*" });
  if (!response.ok) await answerOf(response);
  return response.blob();
}

/** Asks for JSON. */
export async function ask(path, options) {
  return answerOf(await send(path, options));
}

async function answerOf(response) {
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
  constructor(path, handlers, { opened = () => {}, state = () => {} } = {}) {
    Object.assign(this, { path, handlers, opened, state });
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
    this.#drop();
  }

  /** Begins anew at once. */
  retry() {
    if (this.ended) return;
    clearTimeout(this.timer);
    this.#open();
  }

  #drop() {
    this.source?.abort();
    this.source = null;
  }

  /** A request and no EventSource, which can send no password and tells no status. */
  async #open() {
    this.#drop();
    this.state("connecting", "connecting …");
    const source = new AbortController();
    this.source = source;
    const isMine = () => this.source === source;
    try {
      const response = await send(this.path, { accept: "text/event-stream", signal: source.signal });
      if (!response.ok) await answerOf(response);
      if (!isMine()) return;
      this.pause = FIRST_PAUSE;
      this.opened();
      this.state("live", "live");
      await eachEvent(response.body, (name, data) => {
        if (!isMine()) return;
        if (name === "bye") this.#lost("it has ended");
        else this.#handle(name, data);
      });
      if (isMine()) this.#lost("the connection is lost");
    } catch (fault) {
      if (!isMine()) return;
      if (!(fault instanceof Fault)) this.#lost("the connection is lost");
      else this.#lost(fault.status === 0 ? "nobody answers" : fault.message, fault.status);
    }
  }

  /** What a handler throws is a fault of the page: it must not pass for a lost connection. */
  #handle(name, data) {
    try {
      this.handlers[name]?.(JSON.parse(data));
    } catch (error) {
      reportError(error);
    }
  }

  #lost(sentence, status = 0) {
    this.#drop();
    if (status === 401 || status === 403 || status === 404) {
      this.state("refused", status === 401 ? "a password is needed" : sentence, status);
      return;
    }
    const pause = this.pause;
    this.pause = Math.min(LONGEST_PAUSE, 2 * pause);
    this.state("lost", `${sentence}; trying again in ${Math.round(pause / 1000)} s`);
    this.timer = setTimeout(() => this.#open(), pause);
  }

  #seen() {
    clearTimeout(this.hiding);
    if (document.hidden) {
      this.hiding = setTimeout(() => {
        clearTimeout(this.timer);
        this.#drop();
        this.state("connecting", "asleep while hidden");
      }, HIDDEN_FOR);
    } else if (!this.source && !this.ended) this.retry();
  }
}

/** Reads server-sent events: `handle(name, data)` for each, until the stream ends. */
async function eachEvent(body, handle) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let [rest, name, data] = ["", "message", ""];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (data !== "") handle(name, data);
        [name, data] = ["message", ""];
      } else if (line.startsWith("data:")) data += (data && "\n") + line.slice(line[5] === " " ? 6 : 5);
      else if (line.startsWith("event:")) name = line.slice(6).trim();
    }
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
