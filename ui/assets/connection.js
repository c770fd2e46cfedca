/* What Gradio leaves unsaid: a session that ended leads to the sign-in page, a server that failed or
   cannot be reached is announced in one quiet line. Knows no page. */
(() => {
  const FAILED = "Something went wrong on our side. Please try again.";
  const AWAY = "Attune cannot be reached. Trying again …";
  const GONE = new Set([502, 503, 504]); // a proxy without us, or we are still starting
  const FAILED_SHOWN_MS = 10_000;
  const direct = window.fetch;
  let timer = 0;

  const say = (words) => {
    let line = document.getElementById("connection");
    if (!line) {
      line = document.createElement("div");
      line.id = "connection";
      line.setAttribute("role", "status");
      document.body.append(line);
    }
    line.textContent = words;
    clearTimeout(timer);
  };

  window.fetch = async (...request) => {
    const address = String(request[0]?.url ?? request[0]);
    if (!address.includes("/gradio_api/")) return direct(...request);
    try {
      const response = await direct(...request);
      const line = document.getElementById("connection");
      if (response.status === 401) window.location.reload();
      else if (GONE.has(response.status)) say(AWAY);
      else if (response.status >= 500) {
        say(FAILED);
        timer = setTimeout(() => say(""), FAILED_SHOWN_MS);
      } else if (line?.textContent === AWAY) say("");
      return response;
    } catch (error) {
      if (error.name !== "AbortError") say(AWAY);
      throw error;
    }
  };
})();
