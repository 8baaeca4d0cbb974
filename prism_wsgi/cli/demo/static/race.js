// Sends one request for each article, all at the same moment, and shows what is left of what they wrote.
"use strict";
document.getElementById("race").addEventListener("submit", async (event) => {
  event.preventDefault();
  event.submitter.disabled = true;
  const form = new FormData(event.target);
  const send = (action, more) =>
    fetch(action, {
      method: "POST",
      body: new URLSearchParams({ csrf_token: form.get("csrf_token"), ...more }),
      redirect: "manual",
    });
  await send("race/clear");
  await Promise.all(form.getAll("article").map((article) => send("race/write", { article })));
  location.reload();
});
