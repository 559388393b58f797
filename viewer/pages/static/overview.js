import { bar, data, make, state, verdictLines, wait } from "/static/parts.js";
async function follow(card) {
  for (;;) {
    let word = "";
    try {
      const now = await data(`/api/g/${card.dataset.key}/progress`);
      word = now.state;
      state(card.querySelector("[data-state]"), now.state);
      const says = card.querySelector("[data-says]");
      says.replaceChildren(make("p", {}, now.says));
      if (now.planned != null) {
        const track = make("div", { class: "bar", role: "img" });
        bar(track, now);
        says.append(track);
        if (now.verdicts.length) says.append(...verdictLines(now, 1));
      }
    } catch (error) {
      card.querySelector("[data-says]").replaceChildren(make("p", { class: "problem" }, error.message));
    }
    await wait(word === "running" ? 2000 : 8000);
  }
}
document.querySelectorAll(".card:not([data-problem])").forEach(follow);
async function watch() {
  const known = new Set([...document.querySelectorAll(".card")].map((card) => card.dataset.key));
  for (;;) {
    await wait(5000);
    try {
      const groups = await data("/api/groups");
      if (groups.length !== known.size || groups.some((each) => !known.has(each.key))) location.reload();
    } catch { /* the server is gone: the cards say so */ }
  }
}
watch();
