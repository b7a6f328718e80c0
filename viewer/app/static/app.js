// Brings the part of a page that changes while jobs run up to date; without scripts the page is loaded again.

// Of what was asked for, the superclass alone: the records themselves, perhaps sought for seconds, stay as they are.
const superclass = new URLSearchParams(location.search).get("superclass");
const address = location.pathname + (superclass ? `?superclass=${encodeURIComponent(superclass)}` : "");

async function refresh() {
  const answer = document.hidden ? null : await fetch(address).catch(() => null);
  if (answer?.ok) {
    const now = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("#live");
    document.querySelector("#live").innerHTML = now.innerHTML;
    if (!("live" in now.dataset)) return;
  }
  setTimeout(refresh, 2000);
}

if (document.querySelector("[data-live]") !== null) setTimeout(refresh, 2000);

// Names the files that were dropped or chosen: the browser's own words for them lie under the area.
document.querySelector("#files")?.addEventListener("change", (event) => {
  const names = [...event.target.files].map((file) => file.name);
  document.querySelector("#chosen").textContent = names.join(", ");
});
