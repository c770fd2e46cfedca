/* Lines that answer what somebody did are read out when they change. Knows no page. */
(() => {
  const mark = () => {
    for (const line of document.querySelectorAll(".say:not([role])")) {
      line.setAttribute("role", "status");
    }
  };
  new MutationObserver(mark).observe(document, { childList: true, subtree: true });
})();
