// The search of the reference, at once. Without this the form asks the server, which answers the same.
const search = document.getElementById("search");
const entries = [...document.querySelectorAll("[data-entry]")].map((element) => ({ element, text: null }));
const whole = document.querySelector("[data-whole]");

if (search && whole) {
  search.addEventListener("input", () => filter(search.value));
  search.form.addEventListener("submit", (event) => {
    event.preventDefault();
    filter(search.value);
  });
  addEventListener("hashchange", reveal);
}
// The keys of the dashboard are for who is signed in; this one is for everyone.
if (search && !document.getElementById("help")) {
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.altKey || event.metaKey || event.target === search) return;
    event.preventDefault();
    search.focus();
  });
}

function filter(query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const found = new Set();
  for (const entry of entries) {
    entry.text ??= textOf(entry.element);
    const is = words.every((word) => entry.text.includes(word));
    entry.element.hidden = !is;
    if (is) found.add(entry.element.id);
  }
  for (const section of document.querySelectorAll("[data-section]")) {
    section.hidden = !section.querySelector("[data-entry]:not([hidden])");
    if (!section.hidden) found.add(section.id);
  }
  for (const item of document.querySelectorAll("[data-nav]")) item.hidden = !found.has(item.dataset.nav);
  whole.hidden = words.length > 0;
  document.getElementById("none").hidden = found.size > 0;
  const url = new URL(location.href);
  if (words.length) url.searchParams.set("q", query.trim());
  else url.searchParams.delete("q");
  url.hash = "";
  history.replaceState(null, "", url);
}

// What the server searches too: all up to the first part that is folded.
function textOf(element) {
  const parts = [element.id];
  const texts = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  while (texts.nextNode() && !texts.currentNode.parentElement.closest("details")) parts.push(texts.currentNode.data);
  return parts.join(" ").toLowerCase();
}

// A link to what the search has left out shows everything again.
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target?.closest("[hidden]")) return;
  const hash = location.hash;
  search.value = "";
  filter("");
  location.replace(hash);
}
