/* Keys for the compare page: 1–4 verdicts (Shift: clearly), S skip, U undo, Esc closes "Ask my own".
   Also the guard against a click meant for the pair before: for a moment after a pair has changed
   or a choice was made, the bar does not listen. Knows no data: it only presses the page's buttons. */
(() => {
  const SETTLE_MS = 300;
  const KEYS = {
    Digit1: "choose-a", Digit2: "choose-tie", Digit3: "choose-both_bad", Digit4: "choose-b",
    Numpad1: "choose-a", Numpad2: "choose-tie", Numpad3: "choose-both_bad", Numpad4: "choose-b",
    s: "choose-skip", u: "undo",
  };
  let clearly = false;
  let timer = 0;

  window.attune = { strength: () => (clearly ? 2 : 1) };

  const bar = () => document.getElementById("bar");
  const settle = () => {
    bar()?.setAttribute("aria-disabled", "true");
    clearTimeout(timer);
    timer = setTimeout(() => bar()?.removeAttribute("aria-disabled"), SETTLE_MS);
  };
  const settling = () => bar()?.hasAttribute("aria-disabled");
  const typing = (target) =>
    target instanceof Element && target.closest("input, textarea, select, [contenteditable]");

  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.keyCode === 229 || event.repeat) return;
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "Escape") return void document.getElementById("own-cancel")?.click();
    if (typing(event.target)) return;
    const id = KEYS[event.code] ?? (event.shiftKey ? undefined : KEYS[event.key.toLowerCase()]);
    const button = id && document.getElementById(id);
    if (!button || button.disabled || settling()) return;
    event.preventDefault();
    button.dispatchEvent(
      new MouseEvent("click", { bubbles: true, cancelable: true, shiftKey: event.shiftKey }),
    );
  });

  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element && event.target.closest("#bar button");
    if (!button) return;
    if (settling()) {
      event.stopImmediatePropagation();
      event.preventDefault();
      return;
    }
    clearly = event.shiftKey;
    settle();
  }, true);

  let shown = "";
  let asking = null;
  new MutationObserver(() => {
    document.getElementById("notice")?.setAttribute("role", "status");
    const box = document.querySelector("#own-text :is(textarea, input)");
    if (box && box !== asking) box.focus();
    asking = box;
    const pair = document.getElementById("pair")?.textContent ?? "";
    if (pair !== shown) {
      shown = pair;
      settle();
    }
  }).observe(document, { childList: true, subtree: true, characterData: true });
})();
