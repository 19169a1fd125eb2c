// Long names, cut where their kind differs least.

import { el, setAttr } from "./dom.js";

/** Characters at the end of a long name that are always shown: names of a series differ there. */
const TAIL = 12;

/** Two parts of a name of which the first gives way: what is too long is cut in its middle. */
export class MiddleCut {
  constructor(node) {
    this.node = node;
    // Of names that are written from right to left the first part stands right.
    node.dir = "auto";
    this.head = el("span", { class: "head" });
    this.tail = el("span", { class: "tail" });
    node.classList.add("middle");
    node.append(this.head, this.tail);
  }

  show(shown) {
    if (this.shown === shown) return;
    this.shown = shown;
    const letters = [...shown];
    const cut = letters.length > 2 * TAIL ? letters.length - TAIL : letters.length;
    this.head.textContent = letters.slice(0, cut).join("");
    this.tail.textContent = letters.slice(cut).join("");
    setAttr(this.node, "title", shown);
    setAttr(this.node, "aria-label", shown);
  }
}
