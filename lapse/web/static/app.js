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
  let first = true;
  const renew = async () => {
    const reply = await fetch(`/runs/${run}/now`, { headers: { Accept: "text/html" } });
    if (!reply.ok) return;
    // Whoever types a confirmation keeps it: the fields are put back.
    const held = [...live.querySelectorAll("input[type=text]")].map((i) => [i.id, i.value, i === document.activeElement]);
    const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
    live.replaceChildren(...fresh.body.childNodes);
    for (const [id, value, focused] of held) {
      const input = document.getElementById(id);
      if (input) { input.value = value; if (focused) input.focus(); }
    }
  };
  source.addEventListener("step", () => { if (first) { first = false; } renew(); });
  source.addEventListener("over", () => { source.close(); location.reload(); });
}
