/* What is wider or taller than its box can be reached with Tab and scrolled with arrow keys: tables,
   code and formulas. Only while there is something to scroll. Knows no page. */
(() => {
  const BOXES = ".table.block, .md :is(pre, table, .katex-display)";
  let asked = 0;
  const look = () => {
    asked = 0;
    for (const box of document.querySelectorAll(BOXES)) {
      const scrolls =
        box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1;
      if (scrolls) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };
  // Once a frame, however many words came.
  const ask = () => (asked ||= requestAnimationFrame(look));
  new MutationObserver(ask).observe(document, { childList: true, subtree: true });
  addEventListener("resize", ask);
})();
