// The keyboard. What is typed into a field, or with Ctrl, Alt or Meta, is none of ours.
import { toggleTheme } from "./theme.js";

export function followKeys(live) {
  const help = document.getElementById("help");
  let afterG = false;

  for (const button of document.querySelectorAll("[data-help]")) {
    button.hidden = false;
    button.addEventListener("click", () => help.showModal());
  }
  if (!help) return;

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    if (event.key === "Escape") return escape(event);
    if (help.open || isField(event.target)) return;
    if (afterG) {
      afterG = false;
      const page = document.querySelector(`.nav a[data-letter="${CSS.escape(event.key)}"]`);
      if (page) page.click();
      return;
    }
    const act = ACTS[event.key];
    if (act) {
      event.preventDefault();
      act();
    }
  });

  const ACTS = {
    "/": () => document.getElementById("search")?.focus(),
    "?": () => help.showModal(),
    g: () => (afterG = true),
    j: () => move(1),
    k: () => move(-1),
    p: () => live.toggle(),
    r: () => live.refresh(),
    t: () => toggleTheme(),
    x: () => document.activeElement.closest("[data-row]")?.querySelector(".pick input")?.click(),
  };
}

function isField(element) {
  if (element.type === "checkbox") return false; // a letter does nothing to it
  return element instanceof HTMLInputElement || element instanceof HTMLTextAreaElement || element instanceof HTMLSelectElement;
}

function move(by) {
  const rows = [...document.querySelectorAll(".row-link")];
  if (!rows.length) return;
  const at = rows.findIndex((link) => link.closest("[data-row]")?.contains(document.activeElement));
  const to = at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(Math.max(at + by, 0), rows.length - 1);
  rows[to].focus();
}

function escape(event) {
  const help = document.getElementById("help");
  if (help?.open) return;
  const menu = document.querySelector("details.menu[open]");
  if (menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  } else if (isField(event.target) || document.activeElement !== document.body) {
    document.activeElement.blur();
  } else {
    const up = document.querySelector("main[data-up]");
    if (up) location.href = up.dataset.up;
  }
}
