// Every page works without this file. With it: runs are live, lists know the keyboard, filters act at once.
"use strict";

const typing = (element) => element.closest("input, select, textarea, [contenteditable]") !== null;

function move(step) {
  const links = [...document.querySelectorAll("table.keys tbody th a")];
  if (links.length === 0) return;
  const at = links.indexOf(document.activeElement);
  const next = at < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(Math.max(at + step, 0), links.length - 1);
  links[next].focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  if (event.key === "/") {
    const search = document.querySelector("input[type=search]");
    if (search) { search.focus(); event.preventDefault(); } else { location.href = "/keys"; }
  } else if (event.key === "j") { move(1); } else if (event.key === "k") { move(-1); }
});

for (const select of document.querySelectorAll("form.filter select")) {
  select.addEventListener("change", () => select.form.requestSubmit());
}

const live = document.querySelector("#live[data-run]");
if (live && "EventSource" in window) {
  const run = encodeURIComponent(live.dataset.run);
  const source = new EventSource(`/runs/${run}/events`);
  let asking = false, again = false;
  const renew = async () => {
    if (asking) { again = true; return; }
    asking = true;
    try {
      do {
        again = false;
        const reply = await fetch(`/runs/${run}/now`, { headers: { Accept: "text/html" } });
        if (reply.ok && !reply.redirected) put(await reply.text());
      } while (again);
    } finally { asking = false; }
  };
  // Whoever types a confirmation keeps it: text and focus are put back by their ids.
  const put = (text) => {
    const held = [...live.querySelectorAll("input[type=text]")].map((i) => [i.id, i.value]);
    const at = document.activeElement;
    const fresh = new DOMParser().parseFromString(text, "text/html");
    const says = fresh.body.querySelector("[data-says]").dataset.says;
    const status = document.querySelector("#says");
    if (status.textContent !== says) status.textContent = says;
    const focused = live.contains(at) ? at.id : "";
    live.replaceChildren(...fresh.body.childNodes);
    for (const [id, value] of held) {
      const input = document.getElementById(id);
      if (input) input.value = value;
    }
    if (focused) {
      const same = document.getElementById(focused);
      if (same) same.focus({ preventScroll: true });
    }
  };
  source.addEventListener("step", renew);
  source.addEventListener("over", async () => { source.close(); await renew(); });
}
