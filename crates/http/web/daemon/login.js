// The form that asks for the password, where one is needed.

import { el } from "../common/dom.js";
import { ask } from "../common/live.js";
import { forgetSecret, keepSecret, secret } from "../common/secret.js";
import { check, field, formDialog } from "./dialogs.js";

let open = null;

/** Whether a secret that was entered here is in use. */
export const isLoggedIn = () => secret() !== null;

/**
 * Asks for the password. Gives whether it was right; several that ask at the same time share one form.
 */
export function logIn(why) {
  open ??= new Promise((done) => {
    const password = el("input", { type: "password", id: "password", autocomplete: "current-password", autofocus: true });
    const user = el("input", { type: "text", class: "sr", autocomplete: "username", value: "piecework", tabIndex: -1, "aria-hidden": "true" });
    const stay = check("Keep me logged in in this browser", false, { id: "stay" });
    let right = false;
    const { node } = formDialog({
      title: "Log in", action: "Log in", id: "login-yes",
      content: [
        el("p", { text: why ?? "Whoever owns this daemon may change its settings, share files, and write anywhere it may." }),
        field("Password", password, "The daemon's password, or its owner's token, which torrent-status --login prints on its machine."),
        user, stay.node,
      ],
      submit: async () => {
        const shown = password.value;
        const answer = await ask("/", { secret: shown });
        if (!answer.owner) throw new RangeError("the password is wrong");
        keepSecret(shown, stay.input.checked);
        right = true;
      },
    });
    node.addEventListener("close", () => {
      open = null;
      if (right) dispatchEvent(new Event("loggedin"));
      done(right);
    });
  });
  return open;
}

export function logOut() {
  forgetSecret();
  dispatchEvent(new Event("loggedin"));
}

/** Does `work`, and once more after a login if only the owner may. */
export async function asOwner(work) {
  try {
    return await work();
  } catch (fault) {
    if (fault.status !== 401 || !(await logIn(fault.message))) throw fault;
    return work();
  }
}
