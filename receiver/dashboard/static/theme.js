// Light or dark: at once, and kept in a cookie for the pages that follow.
const YEAR = 31536000;

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

export function toggleTheme() {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  const path = new URL(document.getElementById("theme-form").action).pathname.replace(/\/theme$/, "") || "/";
  document.cookie = `ringback_theme=${theme}; path=${path}; max-age=${YEAR}; samesite=lax`;
  name();
}

export function followTheme() {
  const form = document.getElementById("theme-form");
  if (!form) return;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    toggleTheme();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();
}

function name() {
  const button = document.querySelector("#theme-form button");
  if (button) button.textContent = isDark() ? "Light" : "Dark";
}
