// Elements of text alone: nothing that a server or a data set said is ever read as HTML.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") element.className = value;
    else if (name === "onclick") element.addEventListener("click", value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}
export const at = (id) => document.getElementById(id);
export async function data(address) {
  const answer = await fetch(address, { headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Error((await answer.text()).trim() || `HTTP ${answer.status}`);
  return answer.json();
}
export const count = (n) => n.toLocaleString("en");
export const number = (value, digits = 3) => (value == null ? "-" : value.toFixed(digits).replace(/\.?0+$/, "") || "0");
export function table(target, head, rows, textColumns = 1) {
  target.replaceChildren(
    make("thead", {}, make("tr", {}, ...head.map((name, i) => make("th", { scope: "col", class: i >= textColumns ? "n" : "" }, name)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell, i) =>
      i ? make("td", { class: i >= textColumns ? "n" : "t" }, cell) : make("th", { scope: "row", class: "t" }, cell))))));
}
export function bar(target, now) {
  const all = Math.max(1, now.planned);
  const done = make("i"), failed = make("i", { class: "failed" });
  done.style.width = `${(100 * now.responses) / all}%`;
  failed.style.width = `${(100 * now.failures) / all}%`;
  target.replaceChildren(done, failed);
  target.setAttribute("aria-label", `${count(now.responses)} of ${count(now.planned)} answered, ${count(now.failures)} failed`);
}
export const WORDS = { running: "running", finished: "finished", killed: "killed", stopped: "stopped", partial: "partial", unreadable: "can't be read" };
export function state(target, word) {
  target.textContent = WORDS[word] ?? word;
  target.className = `state ${word}`;
  target.hidden = false;
}
export function verdictLines(now, most = Infinity) {
  if (!now.verdicts?.length) return [make("p", { class: "quiet" }, "No verdict yet.")];
  const overall = now.verdicts.filter((each) => each.task === "*");
  const shown = overall.length ? overall : now.verdicts;
  const several = new Set(shown.map((each) => each.task)).size > 1;
  const name = (each) => [several && each.task, each.series].filter(Boolean).join(", ");
  const lines = shown.slice(0, most).map((each) => make("p", {}, make("b", {}, name(each)), (name(each) ? ": " : "") + each.sentence));
  const more = shown.length - lines.length;
  return more > 0 ? [...lines, make("p", { class: "quiet" }, `and ${more} more series`)] : lines;
}
export function pieces(list) {
  if (!list.length) return [make("span", { class: "quiet" }, "(empty)")];
  return list.map(([text, same]) => (same ? document.createTextNode(text) : make("mark", {}, text)));
}
export const wait = (ms) => new Promise((done) => setTimeout(done, ms));
