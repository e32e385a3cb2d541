// Follows the events that concern this page. At each the page is asked for again, and its parts `data-refresh` are
// replaced: what it shows is made on the server alone. What makes no event is looked at again after `data-again` seconds,
// as long as the page has something of the kind. A page in the background follows nothing.
import { dress } from "./dress.js";
import { released } from "./press.js";

const FIRST_MS = 120; // several events at once are one look
const LEAST_MS = 1000; // between two looks, however much happens; a page may say more (`data-least`)
const LEAVING_MS = 10000; // a page that was to be left this long ago is left, or stays: the way led to a download
const PAUSED = "ringback.paused";
const WORDS = { live: "Live", paused: "Paused", waiting: "Connecting" };

export function follow(main) {
  const button = document.getElementById("live");
  if (!main || !button) return { refresh: () => location.reload(), toggle() {} };
  let source = null;
  let timer = null;
  let again = null;
  let lookedAt = 0;
  let leftAt = -Infinity;
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
    const least = Number(main.dataset.least ?? LEAST_MS);
    timer = setTimeout(refresh, Math.max(FIRST_MS, lookedAt + least - Date.now()));
  }

  function lookAgain() {
    clearTimeout(again);
    const seconds = [...document.querySelectorAll("[data-again]")].map((each) => Number(each.dataset.again));
    if (seconds.length && source) again = setTimeout(soon, Math.min(...seconds) * 1000);
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
      // The session has ended, perhaps by signing out: to load the page again would take the place of the way out.
      const rest = leftAt + LEAVING_MS - Date.now();
      if (rest <= 0) location.reload();
      else setTimeout(soon, rest);
      return;
    }
    if (response.ok) {
      const next = new DOMParser().parseFromString(await response.text(), "text/html");
      await released();
      const stay = firstSeen();
      replace(next);
      stay();
    }
    lookAgain();
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
  addEventListener("beforeunload", () => (leftAt = Date.now()));
  addEventListener("pagehide", disconnect);
  addEventListener("pageshow", (event) => {
    if (event.persisted) connect();
  });
  if (isPaused) show("paused");
  else connect();
  return { refresh, toggle };
}

// Returns a function that puts the row that the reader sees first back to where it was, if the page is scrolled.
function firstSeen() {
  const isSeen = (each) => each.getBoundingClientRect().bottom > 0;
  const row = scrollY > 0 ? [...document.querySelectorAll("[data-row]")].find(isSeen) : null;
  const before = row ? top(row) : 0;
  return () => {
    const same = row && document.querySelector(`[data-row="${CSS.escape(row.dataset.row)}"]`);
    if (same) scrollBy({ top: top(same) - before, behavior: "instant" });
  };
}

function top(element) {
  return element.getBoundingClientRect().top;
}

// Replaces the parts of the page, and keeps the place of the reader: focus, scroll, and what plays.
function replace(next) {
  for (const old of document.querySelectorAll("[data-refresh][id]")) {
    const fresh = next.getElementById(old.id);
    if (fresh) keepOpen(old, fresh);
    if (!fresh || old.innerHTML === fresh.innerHTML || old.querySelector("video, audio")) continue;
    const states = new Map([...old.querySelectorAll("[data-row]")].map((row) => [row.dataset.row, row.dataset.state]));
    const focused = old.contains(document.activeElement) ? place(document.activeElement) : null;
    const checked = new Set([...old.querySelectorAll("input:checked")].map((each) => each.name));
    const scrolled = new Map([...old.querySelectorAll("pre")].map((pre, index) => [index, pre.scrollTop]));
    old.replaceChildren(...fresh.childNodes);
    for (const row of old.querySelectorAll("[data-row]")) {
      if (states.size && states.get(row.dataset.row) !== row.dataset.state) row.classList.add("changed");
    }
    old.querySelectorAll("pre").forEach((pre, index) => (pre.scrollTop = scrolled.get(index) ?? 0));
    for (const each of old.querySelectorAll("input[type=checkbox]")) each.checked = checked.has(each.name);
    dress(old);
    if (focused) focusAt(old, focused);
  }
  document.dispatchEvent(new Event("replaced"));
}

// What the reader has opened or closed stays so.
function keepOpen(old, fresh) {
  for (const each of old.querySelectorAll("details[id]")) {
    const same = fresh.querySelector(`details[id="${CSS.escape(each.id)}"]`);
    if (same) same.open = each.open;
  }
}

function place(element) {
  const row = element.closest("[data-row]");
  return { row: row?.dataset.row, label: element.getAttribute("aria-label") ?? element.textContent };
}

function focusAt(root, { row, label }) {
  const within = row ? root.querySelector(`[data-row="${CSS.escape(row)}"]`) : root;
  const all = [...(within?.querySelectorAll("a, button, input, summary, pre[tabindex]") ?? [])];
  const same = all.find((each) => (each.getAttribute("aria-label") ?? each.textContent) === label);
  (same ?? all[0])?.focus({ preventScroll: true });
}
