/* What Gradio leaves unsaid: a session that ended leads to the sign-in page, a server that failed or
   cannot be reached is announced in one quiet line. A choice that could not be sent is kept in this tab
   and sent once somebody is signed in and the server answers; one on a pair that was being written is
   only told of, for other words stand there by then. Such a pair is watched again, and a page that got
   none asks again. Knows no page but for that. */
(() => {
  const FAILED = msg("Something went wrong on our side. Please try again.");
  const AWAY = msg("Attune cannot be reached. Trying again …");
  const KEPT = msg("Attune cannot be reached. Your choice is kept and will be sent.");
  const UNSENT = msg("Your choice was not sent. Please choose again.");
  const GONE = new Set([502, 503, 504]); // a proxy without us, or we are still starting
  const SHOWN_MS = 10_000;
  const STORE = "attune-kept-choice";
  const direct = window.fetch;
  let timer = 0;
  let unreachable = false;
  let inVain = false; // a pair was asked for, and the request failed
  let expected = null; // the choice about to be sent; its id is null while the pair is being written
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
  const sayForNow = (words, then) => {
    say(words);
    timer = setTimeout(() => {
      say("");
      then();
    }, SHOWN_MS);
  };
  const says = (words) => document.getElementById("connection")?.textContent === words;
  const away = () => {
    unreachable = true;
    const choice = kept();
    say(!choice ? AWAY : choice.id === null ? UNSENT : KEPT);
  };

  // The choice this very request carries, if it carries one.
  const carried = (options) => {
    if (!expected || typeof options?.body !== "string") return null;
    const data = JSON.parse(options.body).data;
    if (!Array.isArray(data) || data.length !== 3 || data[0] !== expected.id) return null;
    const choice = expected;
    expected = null;
    return choice;
  };

  const forget = () => sessionStorage.removeItem(STORE);
  const sendKept = () => {
    // Once the page shows a pair of its own: before that, an answer would be drawn over.
    const ready = document.querySelector("#choose-a:not([disabled]), #again");
    const choice = kept();
    if (sending || refused || !choice || !ready) return;
    if (choice.id === null) {
      if (!says(UNSENT)) sayForNow(UNSENT, forget);
      return;
    }
    sending = true;
    document.getElementById("send-kept")?.click();
  };
  const arrived = (choice) => {
    if (![choice.id, null].includes(kept()?.id)) return;
    forget();
    if (says(UNSENT)) say("");
  };
  // Words that were coming in when the connection broke, or a pair that was asked for in vain: the page
  // asks anew. Not while a first answer is under way: the later one of two would be drawn over a choice.
  const resume = () => {
    const broken = document.querySelector("#progress p");
    const there = document.querySelector("#prompt h1, #verdicts button:not([disabled])");
    if (!broken && (there || !inVain)) return;
    inVain = false;
    document.getElementById("resume")?.click();
  };
  addEventListener("online", resume);
  new MutationObserver(() => {
    if (!unreachable) sendKept();
  }).observe(document, { childList: true, subtree: true, attributes: true });

  window.fetch = async (...request) => {
    const address = String(request[0]?.url ?? request[0]);
    if (!address.includes("/gradio_api/")) return direct(...request);
    const choice = carried(request[1]);
    const asks = address.includes("/queue/join");
    try {
      const response = await direct(...request);
      inVain ||= asks && response.status >= 500;
      if (response.status === 401) {
        if (choice) keep(choice);
        window.location.reload();
      } else if (GONE.has(response.status)) {
        if (choice) keep(choice);
        away();
      } else {
        if (response.status < 500 && choice) arrived(choice);
        if (response.status >= 500) {
          refused ||= Boolean(choice?.id);
          sayForNow(FAILED, () => inVain && resume());
        } else if (unreachable) {
          unreachable = false;
          say("");
          sendKept();
          resume();
        }
      }
      return response;
    } catch (error) {
      if (choice) keep(choice);
      inVain ||= asks;
      if (error.name !== "AbortError") away();
      throw error;
    } finally {
      if (choice) sending = false;
    }
  };
})();
