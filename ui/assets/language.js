/* Gradio takes the browser's language for its own few words, and writes it into <html lang>, whatever
   language the page was sent in. The page's own counts. May run after Gradio began. Knows no page. */
(() => {
  const page = document.documentElement;
  const sent = page.dataset.language || page.lang;
  const keep = () => {
    if (page.lang !== sent) page.lang = sent;
  };
  Object.defineProperty(navigator, "language", { value: sent });
  new MutationObserver(keep).observe(page, { attributes: true, attributeFilter: ["lang"] });
  keep();
})();
