// Keys: `?` shows them; `g` and a letter goes to a page; an element with data-key="x" is clicked,
// or focused where it takes text, by its key. Keys do nothing while somebody types.
"use strict";
(() => {
  let going = 0;

  const typing = (target) =>
    target.closest("textarea, select, [contenteditable], input:not([type=radio], [type=checkbox])");

  const named = (attribute, key) =>
    [...document.querySelectorAll(`[${attribute}]`)].find(
      (element) => element.getAttribute(attribute) === key && element.checkVisibility(),
    );

  const use = (element) => {
    if (element.matches("textarea, select, input:not([type=radio], [type=checkbox])")) {
      element.focus();
      return;
    }
    element.focus();
    element.click();
    const details = element.matches("summary") && element.parentElement;
    if (details && details.open) {
      details.querySelector("input:not([type=hidden]), textarea, select, button")?.focus();
    }
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (typing(event.target)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const dialog = document.getElementById("keys");
    if (dialog.open) return;
    if (event.key === "?") {
      event.preventDefault();
      dialog.showModal();
      return;
    }
    const isGoing = Date.now() - going < 1500;
    going = 0;
    const found = isGoing ? named("data-go", event.key) : named("data-key", event.key);
    if (found) {
      event.preventDefault();
      use(found);
    } else if (event.key === "g" && !isGoing) {
      going = Date.now();
    }
  });

  // A server that is gone says nothing itself.
  document.addEventListener("htmx:sendError", () => {
    document.getElementById("message").textContent =
      "The server did not answer. Perhaps nothing was kept: load the page anew before you go on.";
  });

  // An error is over once something else was done.
  document.addEventListener("htmx:beforeRequest", () => {
    document.getElementById("message").replaceChildren();
  });
})();
