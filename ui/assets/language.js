/* Gradio takes the browser's language for its own few words, and writes it into <html lang>, whatever
   language the page was sent in. The page's own counts. Runs before Gradio. Knows no page. */
(() => {
  const page = document.documentElement;
  const sent = page.lang;
  Object.defineProperty(navigator, "language", { value: sent });
  new MutationObserver(() => {
    if (page.lang !== sent) page.lang = sent;
  }).observe(page, { attributes: true, attributeFilter: ["lang"] });
})();
