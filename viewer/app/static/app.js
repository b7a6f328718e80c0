// Brings the parts of a page that change while jobs run up to date; without this script the page is loaded again.
async function refresh() {
  if (!document.hidden) {
    const answer = await fetch(location.href);
    const now = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("#live");
    if (now === null) return;
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
