// Follows the events that concern this page. At each the page is asked for again, and its parts `data-refresh` are
// replaced: what it shows is made on the server alone. A page in the background follows nothing.
import { dress } from "./dress.js";

const FIRST_MS = 120; // several events at once are one look
const LEAST_MS = 1000; // between two looks, however much happens
const PAUSED = "ringback.paused";
const WORDS = { live: "Live", paused: "Paused", waiting: "Connecting" };

export function follow(main) {
  const button = document.getElementById("live");
  if (!main || !button) return { refresh: () => location.reload(), toggle() {} };
  let source = null;
  let timer = null;
  let again = null;
  let lookedAt = 0;
  let isPaused = sessionStorage.getItem(PAUSED) === "yes";

  function show(state) {
    button.dataset.is = state;
    button.querySelector(".live-word").textContent = WORDS[state];
    button.setAttribute("aria-pressed", String(isPaused));
    button.setAttribute("aria-label", isPaused ? "Paused: go on" : "Live: pause");
  }

  function connect() {
    if (source || isPaused || document.hidden) return;
    show("waiting");
    source = new EventSource(main.dataset.live);
    source.onopen = () => {
      show("live");
      soon(); // what happened since the page was made
    };
    source.onmessage = () => soon();
    source.onerror = () => {
      show("waiting");
      if (source && source.readyState === EventSource.CLOSED) {
        disconnect();
        setTimeout(() => refresh().then(connect), 5000);
      }
    };
  }

  function disconnect() {
    if (source) source.close();
    source = null;
    clearTimeout(timer);
    clearTimeout(again);
    timer = null;
  }

  function soon() {
    if (timer !== null) return;
    timer = setTimeout(refresh, Math.max(FIRST_MS, lookedAt + LEAST_MS - Date.now()));
  }

  async function refresh() {
    clearTimeout(timer);
    timer = null;
    lookedAt = Date.now();
    let response;
    try {
      response = await fetch(location.href, { headers: { accept: "text/html" } });
    } catch {
      return; // the service is away: the stream finds it again
    }
    if (response.redirected) {
      location.reload(); // the session has ended
      return;
    }
    if (response.ok) replace(new DOMParser().parseFromString(await response.text(), "text/html"));
    later();
  }

  // What no event tells of is looked at again after the seconds that a part of the page asks for.
  function later() {
    const seconds = document.querySelector("[data-again]")?.dataset.again;
    clearTimeout(again);
    if (seconds && source) again = setTimeout(soon, seconds * 1000);
  }

  function toggle() {
    isPaused = !isPaused;
    sessionStorage.setItem(PAUSED, isPaused ? "yes" : "no");
    if (isPaused) {
      disconnect();
      show("paused");
    } else {
      connect();
    }
  }

  button.hidden = false;
  button.addEventListener("click", toggle);
  document.addEventListener("visibilitychange", () => {
    if (isPaused) return;
    if (document.hidden) {
      disconnect();
    } else {
      connect();
    }
  });
  addEventListener("pagehide", disconnect);
  addEventListener("pageshow", (event) => {
    if (event.persisted) connect();
  });
  if (isPaused) show("paused");
  else connect();
  return { refresh, toggle };
}

// Replaces the parts of the page, and keeps the place of the reader: focus, scroll, and what plays.
function replace(next) {
  for (const old of document.querySelectorAll("[data-refresh][id]")) {
    const fresh = next.getElementById(old.id);
    if (!fresh || old.innerHTML === fresh.innerHTML || old.querySelector("video, audio")) continue;
    const states = new Map([...old.querySelectorAll("[data-row]")].map((row) => [row.dataset.row, row.dataset.state]));
    const focused = old.contains(document.activeElement) ? place(document.activeElement) : null;
    const scrolled = new Map([...old.querySelectorAll("pre")].map((pre, index) => [index, pre.scrollTop]));
    old.replaceChildren(...fresh.childNodes);
    for (const row of old.querySelectorAll("[data-row]")) {
      if (states.size && states.get(row.dataset.row) !== row.dataset.state) row.classList.add("changed");
    }
    old.querySelectorAll("pre").forEach((pre, index) => (pre.scrollTop = scrolled.get(index) ?? 0));
    dress(old);
    if (focused) focusAt(old, focused);
  }
}

function place(element) {
  const row = element.closest("[data-row]");
  return { row: row?.dataset.row, label: element.getAttribute("aria-label") ?? element.textContent };
}

function focusAt(root, { row, label }) {
  const within = row ? root.querySelector(`[data-row="${CSS.escape(row)}"]`) : root;
  const all = [...(within?.querySelectorAll("a, button, pre[tabindex]") ?? [])];
  const same = all.find((each) => (each.getAttribute("aria-label") ?? each.textContent) === label);
  (same ?? all[0])?.focus({ preventScroll: true });
}
