/* Keys for the compare page: 1–4 verdicts (Shift: clearly), S skip, U undo, N never again, ? help, Esc
   closes what is open or stops the writing. They rest while somebody types or composes, with Ctrl, Alt
   or Meta, and when they are switched off. Also the guard against a click meant for the pair before:
   for a moment after another pair has come or a choice was made, the bar does not listen.
   Knows no data: it only presses the page's buttons. */
(() => {
  const SETTLE_MS = 300;
  const KEYS = {
    Digit1: "choose-a", Digit2: "choose-tie", Digit3: "choose-both_bad", Digit4: "choose-b",
    Numpad1: "choose-a", Numpad2: "choose-tie", Numpad3: "choose-both_bad", Numpad4: "choose-b",
    s: "choose-skip", u: "undo", n: "never",
  };
  const CLOSERS = ["help-close", "topics-done", "own-cancel", "stop"]; // of Esc, first come
  const BEHIND_HELP = ["header", "main", "bar"];
  let clearly = false;
  let timer = 0;

  const part = (id) => document.getElementById(id);
  const bar = () => part("bar");
  const settle = () => {
    bar()?.setAttribute("aria-disabled", "true");
    clearTimeout(timer);
    timer = setTimeout(() => bar()?.removeAttribute("aria-disabled"), SETTLE_MS);
  };
  const settling = () => bar()?.hasAttribute("aria-disabled");
  const typing = (target) =>
    target instanceof Element &&
    target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]");
  const keysOn = () => part("use-keys")?.querySelector("input")?.checked !== false;

  window.attune = {
    ...window.attune,
    // What a verdict's button sends; connection.js sees to it in case it does not arrive.
    choosing: (verdict, id, key) => {
      const strength = clearly ? 2 : 1;
      window.attune.expect({ id, verdict, strength });
      return [id, key, strength];
    },
  };

  // The day of whoever sits here begins when theirs does.
  const ahead = -new Date().getTimezoneOffset();
  document.cookie = `attune_utc_offset=${ahead}; path=/; max-age=31536000; SameSite=Lax`;

  let before = null;
  const helping = () => document.body.classList.contains("helping");
  const help = (open) => {
    const panel = part("help");
    if (!panel || helping() === open) return;
    document.body.classList.toggle("helping", open);
    panel.setAttribute("role", "dialog");
    panel.setAttribute("aria-modal", "true");
    panel.setAttribute("aria-labelledby", "help-title");
    for (const id of BEHIND_HELP) part(id)?.toggleAttribute("inert", open);
    if (open) before = document.activeElement;
    (open ? part("help-close") : before)?.focus();
  };

  const escape = () => {
    if (helping()) return help(false);
    // Out of the box for a reason: the keys are ours again, and nothing else is closed or stopped.
    const box = part("reason-text");
    if (box?.contains(document.activeElement)) return document.activeElement.blur();
    part(CLOSERS.find((id) => part(id)?.checkVisibility()))?.click();
  };

  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.keyCode === 229 || event.repeat) return;
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "Escape") return escape();
    if (typing(event.target) || !keysOn() || !bar()) return;
    if (event.key === "?") {
      event.preventDefault();
      return help(!helping());
    }
    if (helping()) return;
    const id = KEYS[event.code] ?? (event.shiftKey ? undefined : KEYS[event.key.toLowerCase()]);
    const button = id && part(id);
    if (!button || button.disabled || settling()) return;
    event.preventDefault();
    button.dispatchEvent(
      new MouseEvent("click", { bubbles: true, cancelable: true, shiftKey: event.shiftKey }),
    );
  });

  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element && event.target.closest("button");
    if (!button) return;
    if (button.id === "help-open" || button.id === "help-close") {
      return help(button.id === "help-open");
    }
    if (!button.closest("#verdicts, #choose-skip, #undo, #never")) return;
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
  let shapes = "";
  const textOf = (id) => part(id)?.textContent.trim() ?? "";
  new MutationObserver(() => {
    part("notice")?.setAttribute("role", "status");
    part("saved")?.setAttribute("role", "status");
    const boxes = [...document.querySelectorAll(":is(#own-text, #reason-text) :is(textarea, input)")];
    const box = boxes.at(-1) ?? null;
    const present = boxes.length.toString();
    if (box && (box !== asking || present !== shapes)) box.focus();
    [asking, shapes] = [box, present];
    // Another pair, or its first words; words that are added to it do not count.
    const begun = [textOf("response-a"), textOf("response-b")].map((text) => text !== "");
    const pair = [textOf("earlier"), textOf("prompt"), ...begun].join("\n");
    if (pair !== shown) {
      shown = pair;
      settle();
    }
  }).observe(document, { childList: true, subtree: true, characterData: true });
})();
