// What is selected in a list: how many, all of the page at once, and no controls while it is nothing.
export function followSelection() {
  const bar = document.querySelector("[data-picked]");
  if (!bar) return;
  const words = bar.querySelector(".picked-words");
  const all = bar.querySelector("[data-pick-all]");
  const boxes = () => [...document.querySelectorAll(".pick input")];

  function show() {
    const count = boxes().filter((each) => each.checked).length;
    bar.querySelector(".picked-acts").hidden = count === 0;
    words.textContent = count ? `${count} selected` : "None selected";
    all.textContent = count && count === boxes().length ? "Select none" : "Select all on this page";
  }

  all.hidden = false;
  all.addEventListener("click", () => {
    const isAll = boxes().every((each) => each.checked);
    for (const each of boxes()) each.checked = !isAll;
    show();
  });
  document.addEventListener("change", (event) => {
    if (event.target.closest(".pick")) show();
  });
  document.addEventListener("replaced", show);
  addEventListener("pageshow", show); // a browser that goes back keeps the marks
  show();
}
