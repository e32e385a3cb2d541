// Adds to what the server made: the reader's own time on hover, and buttons that copy.
const LOCAL = { dateStyle: "medium", timeStyle: "long" };

export function dress(root) {
  for (const time of root.querySelectorAll("time:not([data-dressed])")) {
    time.dataset.dressed = "";
    time.title = `${time.title}\n${new Date(time.dateTime).toLocaleString(undefined, LOCAL)} here`;
  }
  for (const button of root.querySelectorAll("[data-copy][hidden]")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
  }
  for (const button of root.querySelectorAll("[data-confirm]:not([data-dressed])")) {
    button.dataset.dressed = "";
    button.addEventListener("click", (event) => {
      if (!confirm(button.dataset.confirm)) event.preventDefault();
    });
  }
}
