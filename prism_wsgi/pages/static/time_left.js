// Warns of the end of the session, and offers to stay. It asks without counting as use of the session.
"use strict";
(() => {
  const address = document.currentScript.src.split("?")[0];
  let box = null;
  let styled = false;

  const ask = async (query) => {
    const answer = await fetch(address + query, { credentials: "same-origin", cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    return answer.json();
  };

  const hide = () => {
    if (box) box.remove();
    box = null;
  };

  const show = (left, message, action) => {
    if (!styled) {
      const link = document.createElement("link");
      link.rel = "stylesheet";
      link.href = address + left.stylesheet;
      document.head.append(link);
      styled = true;
    }
    if (!box) {
      box = document.createElement("section");
      box.className = "prism-time-left";
      box.lang = left.lang;
      box.setAttribute("role", "alert");
      document.body.append(box);
    }
    const sentence = document.createElement("p");
    sentence.textContent = message;
    const parts = [sentence];
    if (action) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = left.stay;
      button.addEventListener("click", action);
      parts.push(button);
    }
    // A reader would say it all again, and the button lose the focus, at each look.
    if (box.textContent !== parts.map((part) => part.textContent).join("")) box.replaceChildren(...parts);
  };

  let wasLoggedIn = false;
  let isFinal = false; // staying has not helped: the session has reached the end of its absolute lifetime
  let timer = null;

  const look = async (hasStayed) => {
    let wait = 30; // seconds; where the server does not answer
    try {
      const left = await ask("");
      if (left.seconds === null) {
        if (wasLoggedIn) show(left, left.over, null);
        return;
      }
      wasLoggedIn = true;
      if (left.seconds > left.warn_before) {
        isFinal = false;
        hide();
        wait = Math.min(left.seconds - left.warn_before, 3600);
      } else {
        isFinal = isFinal || hasStayed;
        show(left, isFinal ? left.final_warning : left.warning, isFinal ? null : stay);
        wait = Math.max(1, Math.min(left.seconds, 15));
      }
    } catch {
      // Look again later.
    }
    timer = setTimeout(look, wait * 1000, false);
  };

  const stay = async () => {
    clearTimeout(timer);
    try {
      await ask("?stay");
    } catch {
      // The warning stays, and so does its button.
    }
    look(true);
  };

  look(false);
})();
