// Light, dark, or as the system says. Loaded before anything is drawn, so that the page does not flash;
// so it is no module.
"use strict";
(() => {
  const NAMES = ["auto", "light", "dark"];
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const kept = () => {
    try {
      const name = localStorage.getItem("piecework-theme");
      return NAMES.includes(name) ? name : "auto";
    } catch {
      // No storage in this browser: the choice lasts as long as the page.
      return root.dataset.theme ?? "auto";
    }
  };
  const use = (name) => {
    root.dataset.theme = name;
    try {
      localStorage.setItem("piecework-theme", name);
    } catch {
      // As above.
    }
    apply();
    show();
  };
  const apply = () => {
    const name = kept();
    root.dataset.shown = name === "auto" ? (dark.matches ? "dark" : "light") : name;
    dispatchEvent(new Event("themechange"));
  };
  const show = () => {
    const button = document.getElementById("theme");
    if (button) {
      const name = kept();
      const icon = { auto: "◐", light: "☀", dark: "☾" }[name];
      button.textContent = icon;
      button.title = button.ariaLabel = `Colours: ${name === "auto" ? "as the system" : name}`;
    }
  };
  apply();
  dark.addEventListener("change", apply);
  addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme")?.addEventListener("click", () => {
      use(NAMES[(NAMES.indexOf(kept()) + 1) % NAMES.length]);
    });
  });
})();
