/* What Gradio leaves unsaid: a session that ended leads to the sign-in page, a server that failed or
   cannot be reached is announced in one quiet line. A choice that could not be sent is kept in this tab
   and sent once somebody is signed in and the server answers; a pair that was being written is watched
   again. Knows no page but for that. */
(() => {
  const FAILED = msg("Something went wrong on our side. Please try again.");
  const AWAY = msg("Attune cannot be reached. Trying again …");
  const KEPT = msg("Attune cannot be reached. Your choice is kept and will be sent.");
  const GONE = new Set([502, 503, 504]); // a proxy without us, or we are still starting
  const FAILED_SHOWN_MS = 10_000;
  const STORE = "attune-kept-choice";
  const direct = window.fetch;
  let timer = 0;
  let expected = null; // the choice about to be sent
  let sending = false;
  let refused = false; // by a fault of ours: tried again when the page is loaded again

  const kept = () => JSON.parse(sessionStorage.getItem(STORE) ?? "null");
  const keep = (choice) => sessionStorage.setItem(STORE, JSON.stringify(choice));

  window.attune = {
    ...window.attune,
    expect: (choice) => {
      expected = choice;
    },
    kept: () => {
      const choice = kept();
      if (!choice) return [null, null, null];
      expected = choice;
      return [choice.id, choice.verdict, choice.strength];
    },
  };

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
  const saysAway = () =>
    [AWAY, KEPT].includes(document.getElementById("connection")?.textContent);
  const away = () => say(kept() ? KEPT : AWAY);

  // The choice this very request carries, if it carries one.
  const carried = (options) => {
    if (!expected || typeof options?.body !== "string") return null;
    const data = JSON.parse(options.body).data;
    if (!Array.isArray(data) || data.length !== 3 || data[0] !== expected.id) return null;
    const choice = expected;
    expected = null;
    return choice;
  };

  const sendKept = () => {
    // Once the page shows a pair of its own: before that, an answer would be drawn over.
    const ready = document.querySelector("#choose-a:not([disabled]), #again");
    if (sending || refused || !kept() || !ready) return;
    sending = true;
    document.getElementById("send-kept")?.click();
  };
  // Words that were coming in when the connection broke: the page watches the pair anew.
  const resume = () => {
    if (document.querySelector("#progress p")) document.getElementById("resume")?.click();
  };
  addEventListener("online", resume);
  new MutationObserver(() => {
    if (!saysAway()) sendKept();
  }).observe(document, { childList: true, subtree: true, attributes: true });

  window.fetch = async (...request) => {
    const address = String(request[0]?.url ?? request[0]);
    if (!address.includes("/gradio_api/")) return direct(...request);
    const choice = carried(request[1]);
    try {
      const response = await direct(...request);
      if (response.status === 401) {
        if (choice) keep(choice);
        window.location.reload();
      } else if (GONE.has(response.status)) {
        if (choice) keep(choice);
        away();
      } else {
        if (response.status < 500 && choice?.id === kept()?.id) sessionStorage.removeItem(STORE);
        if (response.status >= 500) {
          refused ||= choice !== null;
          say(FAILED);
          timer = setTimeout(() => say(""), FAILED_SHOWN_MS);
        } else if (saysAway()) {
          say("");
          sendKept();
          resume();
        }
      }
      return response;
    } catch (error) {
      if (choice) keep(choice);
      if (error.name !== "AbortError") away();
      throw error;
    } finally {
      if (choice) sending = false;
    }
  };
})();
