import { at, count, data, make, number, pieces, wait } from "/static/parts.js";
const key = document.body.dataset.key;
const form = at("filter"), list = at("list"), detail = at("detail");
let rows = [], chosen = -1, asked = 0, page = null;
const fields = ["task", "level", "bin", "outcome", "differs", "label", "text"];
const query = () => {
  const values = new URLSearchParams();
  for (const name of fields) if (form.elements[name].value) values.set(name, form.elements[name].value);
  return values;
};
async function load(place = {}, choose = -1) {
  const mine = ++asked, values = query();
  history.replaceState(null, "", values.size ? `?${values}` : location.pathname);
  for (const [name, value] of Object.entries(place)) values.set(name, value);
  at("n").textContent = "Reading …";
  try {
    const answer = await data(`/api/g/${key}/answers?${values}`);
    if (mine !== asked) return;
    show(answer, choose);
    if (!answer.whole) {
      at("n").textContent = "The first answers; counting all of them …";
      await wait(300);
      if (mine === asked) await load(place, choose);
    }
  } catch (error) {
    if (mine === asked) at("n").textContent = error.message;
  }
}
function show(answer, choose) {
  page = answer;
  rows = answer.rows;
  chosen = -1;
  list.replaceChildren(...rows.map((row, i) => make("li", {}, entry(row, i))));
  if (answer.whole) {
    const last = answer.first + rows.length;
    at("n").textContent = answer.n ? `${count(answer.first + 1)} to ${count(last)} of ${count(answer.n)} answers` : answer.total ? "No answer passes this filter." : "There are no answers yet.";
    at("prev").disabled = answer.first === 0;
    at("next").disabled = last >= answer.n;
    for (const [name, kinds] of Object.entries(answer.counts)) choices(name, kinds);
  }
  if (choose !== -1 && rows.length) pick(choose === "last" ? rows.length - 1 : choose);
}
function choices(name, kinds) {
  const select = form.elements[name], value = select.value || new URLSearchParams(location.search).get(name) || "";
  if (value && !kinds.some(([each]) => each === value)) kinds = [...kinds, [value, 0]];
  select.replaceChildren(make("option", { value: "" }, "any"), ...kinds.map(([each, n]) => make("option", { value: each }, `${each} (${count(n)})`)));
  select.value = value;
  select.closest("[data-field]").hidden = kinds.length < 2 && !value;
}
function entry(row, i) {
  const difference = row.differs == null ? null : row.differs ? "differs" : "as full cache";
  return make("button", { type: "button", "aria-pressed": "false", onclick: () => pick(i, true) },
    make("span", { class: "head" }, make("b", {}, row.example), make("span", {}, row.level),
      make("span", { class: `outcome ${row.outcome.replace(" ", "-")}` }, row.outcome + (row.score != null && row.outcome === "partly" ? ` ${number(row.score, 2)}` : "")),
      ...[difference, row.label, page?.rows.some((each) => each.task !== row.task) && row.task, row.sample && `answer ${row.sample + 1}`, row.turn && `turn ${row.turn}`]
        .filter(Boolean).map((text) => make("span", {}, text))),
    make("span", { class: "text" }, row.text || "(empty)"));
}
async function pick(i, go = false) {
  if (i < 0 || i >= rows.length) return;
  chosen = i;
  [...list.querySelectorAll("button")].forEach((button, at) => button.setAttribute("aria-pressed", String(at === i)));
  list.children[i].firstChild.focus({ preventScroll: true });
  list.children[i].scrollIntoView({ block: "nearest" });
  try {
    const answer = await data(`/api/g/${key}/answer?id=${encodeURIComponent(rows[i].id)}`);
    if (chosen !== i) return;
    detail.replaceChildren(...one(answer));
    detail.scrollTop = 0;
    if (go && matchMedia("(max-width: 860px)").matches) { detail.scrollIntoView(); detail.focus({ preventScroll: true }); }
  } catch (error) {
    if (chosen === i) detail.replaceChildren(make("p", { class: "problem" }, error.message));
  }
}
function side(level) {
  const facts = [];
  if (level.state === "pending") facts.push("no outcome yet");
  if (level.state === "response") facts.push(level.score == null ? "not scored" : `${level.metric} ${number(level.score)}`);
  if (level.finish) facts.push(`finish reason ${level.finish}`);
  if (level.kept != null) facts.push(`kept ${number(level.kept)}`);
  if (level.label) facts.push(level.label);
  if (level.flags) facts.push(level.flags);
  const parts = level.parts.filter(([, value]) => value < 1).map(([name]) => name);
  return make("div", {}, make("h3", {}, level.level), make("p", { class: "note" }, facts.join(", ")),
    level.failure ? make("p", { class: "problem" }, `Failed: ${level.failure}`) : null,
    level.state === "response" ? make("div", { class: "answer", tabindex: "0" }, ...pieces(level.pieces)) : null,
    level.calls ? make("div", {}, make("p", { class: "note" }, "Tool calls"), make("pre", {}, level.calls)) : null,
    parts.length ? make("p", { class: "note" }, `Not right: ${parts.join(", ")}`) : null,
    level.reasoning ? make("details", {}, make("summary", {}, "Reasoning"), make("pre", {}, level.reasoning)) : null,
    level.told.length ? make("details", {}, make("summary", {}, "What it was told that it had answered before"), ...level.told.map((text, i) => make("pre", { class: "message" }, `turn ${i}: ${text}`))) : null);
}
function one(answer) {
  const about = [`${answer.task}`, answer.tokens == null ? null : `${count(answer.tokens)} prompt tokens`, answer.cut ? "context cut in the middle" : null,
    answer.turn == null ? null : `turn ${answer.turn} of conversation ${answer.conversation}`].filter(Boolean).join(", ");
  const sides = answer.full ? [side(answer.full), side(answer.here)] : [side(answer.here)];
  const judged = answer.judged_by.length
    ? [make("h3", {}, "Judged by"), ...answer.judged_by.map(([name, text]) => make("pre", { class: "message" }, `${name}: ${text}`))]
    : [make("h3", {}, answer.golds.length > 1 ? "Accepted answers" : "Accepted answer"), answer.golds.length ? make("ul", { class: "golds" }, ...answer.golds.map((gold) => make("li", {}, gold))) : make("p", { class: "quiet" }, "none")];
  const messages = answer.messages.map((each) => make("div", { class: "message" }, make("p", { class: "note" }, each.role), make("pre", {}, each.text)));
  const offered = answer.offered.map(([name, text]) => make("div", { class: "message" }, make("p", { class: "note" }, name), make("pre", {}, text)));
  const levels = make("table");
  levels.append(make("thead", {}, make("tr", {}, ...["Level", "Score", "Answer"].map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, ...answer.others.map((each) => make("tr", {}, make("th", { scope: "row", class: "t" }, each.level + (each.here ? " (shown)" : "")),
      make("td", {}, each.state === "response" ? number(each.score) : each.state), make("td", { class: "t" }, each.text || "(empty)")))));
  const back = make("button", { type: "button", class: "back", onclick: () => list.children[chosen]?.firstChild.focus() }, "Back to the list");
  return [back, make("h2", {}, answer.example), make("p", { class: "note" }, about), make("div", { class: "sides" }, ...sides), ...judged,
    make("details", { id: "prompt" }, make("summary", {}, "Prompt"), ...messages, ...offered),
    make("details", {}, make("summary", {}, `All ${answer.others.length} answers to this example`), make("div", { class: "scroll" }, levels))];
}
const next = (choose = -1) => { if (page?.whole && !at("next").disabled) load({ after: rows.at(-1).key }, choose); };
const previous = (choose = -1) => { if (page?.whole && !at("prev").disabled) load({ before: rows[0].key }, choose); };
at("next").addEventListener("click", () => next());
at("prev").addEventListener("click", () => previous());
at("help").addEventListener("click", () => at("keys").showModal());
form.addEventListener("submit", (event) => { event.preventDefault(); load(); });
form.addEventListener("reset", () => setTimeout(() => { for (const name of fields) form.elements[name].value = ""; history.replaceState(null, "", location.pathname); load(); }));
let typing = 0;
form.addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(load, event.target.name === "text" ? 250 : 0);
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || at("keys").open) return;
  if (event.target.matches("input, select, textarea")) {
    if (event.key === "Escape") { event.target.blur(); if (rows.length) pick(Math.max(0, chosen)); }
    if (event.key === "Enter" && event.target.name === "text") { event.preventDefault(); clearTimeout(typing); load({}, 0); }
    return;
  }
  const act = {
    j: () => (chosen + 1 < rows.length ? pick(chosen + 1) : next(0)), k: () => (chosen > 0 ? pick(chosen - 1) : previous("last")),
    n: () => next(0), p: () => previous(0), "/": () => form.elements.text.focus(), "?": () => at("keys").showModal(),
    d: () => { form.elements.differs.value = form.elements.differs.value ? "" : "yes"; load({}, 0); },
    Escape: () => { if (chosen >= 0) list.children[chosen].firstChild.focus(); },
    Enter: () => { if (chosen >= 0 && list.contains(event.target)) { detail.focus(); } },
  }[event.key];
  if (!act || (event.key === "Enter" && !list.contains(event.target))) return;
  event.preventDefault();
  act();
});
for (const [name, value] of new URLSearchParams(location.search)) {
  if (!fields.includes(name)) continue;
  if (name !== "text") form.elements[name].append(make("option", { value }, value));
  form.elements[name].value = value;
}
load();
