// The password (or the owner's token) that was entered in this browser. It is sent with each request instead
// of living in a cookie: cookies are shared by all ports of a host, so other programs on it would get it.

const KEY = "piecework-secret";

/** Where it may be kept: until the tab is closed, and for good. Either may be forbidden. */
const stores = () => {
  const found = [];
  for (const name of ["sessionStorage", "localStorage"]) {
    try {
      found.push(globalThis[name]);
    } catch {
      // No storage in this browser: it lasts as long as the page.
    }
  }
  return found;
};

let now = null;

export function secret() {
  for (const store of stores()) now ??= store.getItem(KEY);
  return now;
}

/** Keeps it for this tab, or, with `long`, in this browser. */
export function keepSecret(text, long) {
  forgetSecret();
  now = text;
  const [tab, browser] = stores();
  (long ? browser ?? tab : tab)?.setItem(KEY, text);
}

export function forgetSecret() {
  now = null;
  for (const store of stores()) store.removeItem(KEY);
}

/** Headers of every request: the secret, and that the page asks, so that the browser shows no form of its own. */
export function ownHeaders(shown = secret()) {
  const headers = { "X-Requested-With": "piecework" };
  if (shown !== null) {
    const bytes = new TextEncoder().encode(`piecework:${shown}`);
    headers.Authorization = `Basic ${btoa(String.fromCharCode(...bytes))}`;
  }
  return headers;
}
