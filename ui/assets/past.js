/* The list of choices, for those who do not see it: each line's button is named by its prompt as well;
   opening the panel leads to its heading, closing it back to the button. Knows no data. */
(() => {
  let opener = ""; // the button that opened it last
  let asked = false;
  let shown = null;

  const look = () => {
    for (const line of document.querySelectorAll(".past-row")) {
      const [button, prompt] = [line.querySelector("button"), line.querySelector(".what")];
      if (button && prompt) button.setAttribute("aria-labelledby", `${button.id} ${prompt.id}`);
    }
    const title = document.getElementById("past-title");
    if (asked && title) {
      asked = false;
      title.closest("#past-panel").scrollIntoView({ block: "nearest" });
      title.focus({ preventScroll: true });
    }
    // Whoever has gone elsewhere meanwhile stays there.
    if (shown && !title && document.activeElement === document.body) {
      document.getElementById(opener)?.focus();
    }
    shown = title;
  };

  window.attune = {
    ...window.attune,
    pastOpened: (number) => {
      [opener, asked] = [`past-edit-${number}`, true];
      look();
    },
  };
  new MutationObserver(look).observe(document, { childList: true, subtree: true });
})();
