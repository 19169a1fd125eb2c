// Dialogs and the parts of forms. A dialog is a form: Enter does it, Escape and a click beside it do not.

import { el, setHidden, setText } from "../common/dom.js";

let count = 0;

/** An id that no other element has. */
export const newId = (name) => `${name}-${(count += 1)}`;

/** A dialog that is closed by Escape, by its buttons, and gone then. */
export function dialog(title, ...content) {
  const id = newId("dialog");
  const node = el("dialog", { "aria-labelledby": id }, el("h2", { id, text: title }), ...content);
  node.addEventListener("close", () => node.remove());
  node.addEventListener("pointerdown", (event) => {
    if (event.target === node) node.close();
  });
  // Keys of the page behind it are not meant.
  node.addEventListener("keydown", (event) => event.stopPropagation());
  document.body.append(node);
  node.showModal();
  return node;
}

/**
 * A dialog with fields, of which that with `autofocus` has the focus first. `submit()` does what was asked; it closes unless that throws, and then shows the
 * sentence. `danger` colours the button.
 */
export function formDialog({ title, content, action, submit, danger = false, cancel = "Cancel", id = "dialog-yes" }) {
  const fault = el("p", { class: "bad", role: "alert", hidden: true });
  const go = el("button", { type: "submit", class: danger ? "danger main" : "main", id, text: action });
  const form = el("form", { method: "dialog", novalidate: true }, ...content, fault,
    el("div", { class: "tools" }, el("button", { type: "button", text: cancel, onclick: () => node.close() }), go));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (go.disabled) return;
    go.disabled = true;
    setHidden(fault, true);
    try {
      await submit();
      node.close();
    } catch (error) {
      if (error.status === undefined && !(error instanceof RangeError)) throw error;
      setText(fault, error.message);
      setHidden(fault, false);
    } finally {
      go.disabled = false;
    }
  });
  // Enter does it at once unless there is a field to begin with.
  if (!form.querySelector("[autofocus]")) go.autofocus = true;
  const node = dialog(title, form);
  return { node, form, go };
}

/** A label above what it labels, and a hint below. */
export function field(label, input, hint = null) {
  input.id ||= newId("field");
  const below = hint === null ? null : el("p", { class: "soft small", id: `${input.id}-hint` }, hint);
  if (below) input.setAttribute("aria-describedby", below.id);
  return el("div", { class: "field" }, el("label", { for: input.id, text: label }), input, below);
}

export function text(value = "", more = {}) {
  return el("input", { type: "text", value, autocomplete: "off", spellcheck: false, ...more });
}

export function check(label, checked = false, more = {}) {
  const input = el("input", { type: "checkbox", checked, ...more });
  input.id ||= newId("check");
  return { input, node: el("label", { class: "check", for: input.id }, input, el("span", { text: label })) };
}

export function select(options, value, more = {}) {
  const node = el("select", more, Object.entries(options).map(([name, label]) => el("option", { value: name, text: label })));
  node.value = value;
  return node;
}

const RATES = { KiB: 1024, MiB: 1024 * 1024 };

/** A whole number that may be left out: what was typed, or `null`; a `RangeError` if it is none. */
export function numberOf(input, name) {
  const typed = input.value.trim();
  if (typed === "") return null;
  const value = Number(typed.replace(",", "."));
  if (!Number.isFinite(value) || value < 0) throw new RangeError(`${name}: \`${typed}\` is not a number`);
  return value;
}

/**
 * A rate: a number and its unit; empty means none. `value()` is bytes a second or `null`; `touched` says
 * whether somebody changed it.
 */
export function rateField(label, value, { hint = null, none = "no limit" } = {}) {
  const unit = value !== null && value >= RATES.MiB && value % (RATES.MiB / 10) < 1 ? "MiB" : "KiB";
  const shown = value === null || value === 0 ? "" : String(Math.round((value / RATES[unit]) * 10) / 10);
  const input = text(shown, { inputMode: "decimal", placeholder: none });
  const units = select({ KiB: "KiB/s", MiB: "MiB/s" }, unit, { ariaLabel: `${label}: unit` });
  const node = field(label, input, hint);
  const pair = el("div", { class: "pair-field" });
  input.replaceWith(pair);
  pair.append(input, units);
  return {
    node, input,
    get touched() {
      return input.value !== shown || units.value !== unit;
    },
    value() {
      const typed = numberOf(input, label);
      return typed === null || typed === 0 ? null : Math.max(1, Math.round(typed * RATES[units.value]));
    },
  };
}

/** A number that may be left out, in a unit of `by`: `value()` is a whole number of the daemon's units. */
export function numberField(label, value, { by = 1, hint = null, none = "no limit", whole = true } = {}) {
  const shown = value === null || value === undefined ? "" : String(Math.round((value / by) * 1000) / 1000);
  const input = text(shown, { inputMode: "decimal", placeholder: none });
  return {
    node: field(label, input, hint), input,
    get touched() {
      return input.value !== shown;
    },
    value() {
      const typed = numberOf(input, label);
      return typed === null ? null : whole ? Math.round(typed * by) : typed * by;
    },
  };
}

/** Words with commas between, as a list. */
export const wordsOf = (typed) => [...new Set(typed.split(",").map((word) => word.trim()).filter(Boolean))];

/** Addresses, one a line; an empty line begins a tier. */
export function tiersOf(typed) {
  const tiers = typed.split(/\n\s*\n/).map((tier) => tier.split("\n").map((line) => line.trim()).filter(Boolean));
  return tiers.filter((tier) => tier.length > 0);
}

export const tiersAsText = (tiers) => tiers.map((tier) => tier.join("\n")).join("\n\n");
