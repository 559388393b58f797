import { at, count, data, make, number, pieces, state, table, verdictLines } from "/static/parts.js";
const { a, b } = document.body.dataset, both = `a=${a}&b=${b}`;
let levels = [], first = 0, asked = 0;
async function verdicts(side, key) {
  try {
    const now = await data(`/api/g/${key}/progress`), word = make("span");
    state(word, now.state);
    at(`verdicts-${side}`).replaceChildren(make("p", {}, word), ...(now.verdicts ? verdictLines(now) : [make("p", { class: "problem" }, now.says)]));
  } catch (error) {
    at(`verdicts-${side}`).replaceChildren(make("p", { class: "problem" }, error.message));
  }
}
const signed = (value) => (value == null ? "-" : (value >= 0 ? "+" : "−") + number(Math.abs(value)));
function compared(answer) {
  at("refusal").textContent = answer.refusal || "Accuracy on the examples that both have; 95% interval; p adjusted over all rows (Holm).";
  at("refusal").className = answer.refusal ? "problem" : "note";
  at("remarks").replaceChildren(...answer.remarks.map((text) => make("p", { class: "note" }, text)));
  if (answer.compared.length)
    table(at("levels"), ["Level", "A", "B", "B − A", "95% interval", "Better in B", "Worse in B", "Examples", "p (Holm)"],
      answer.compared.map((each) => [each.where, number(each.acc_a), number(each.acc_b), signed(each.diff == null ? null : -each.diff),
        each.diff == null ? "-" : `[${signed(-each.diff_ci_high)}, ${signed(-each.diff_ci_low)}]`, count(each.n_worse), count(each.n_better), count(each.n), each.p_holm.toPrecision(2)]));
}
async function changed() {
  const mine = ++asked, { task, level } = levels[at("level").selectedIndex];
  at("n").textContent = "Reading …";
  try {
    const answer = await data(`/api/changed?${both}&${new URLSearchParams({ task, level, after: first })}`);
    if (mine !== asked) return;
    const last = first + answer.rows.length;
    at("n").textContent = answer.n_changed ? `${count(first + 1)} to ${count(last)} of ${count(answer.n_changed)} changed answers, of ${count(answer.n_both)} that both have` : `All ${count(answer.n_both)} answers are the same.`;
    at("prev").disabled = first === 0;
    at("next").disabled = last >= answer.n_changed;
    at("next").onclick = () => { first += answer.page; changed(); };
    at("prev").onclick = () => { first = Math.max(0, first - answer.page); changed(); };
    const side = (name, each) => make("div", {}, make("p", { class: "note" }, `${name}${each.score == null ? "" : `, score ${number(each.score)}`}`), make("div", { class: "answer" }, ...pieces(each.pieces)));
    at("pairs").replaceChildren(...answer.rows.map((row) => make("li", {}, make("b", {}, row.example + (row.sample ? `, answer ${row.sample + 1}` : "")), make("div", { class: "sides" }, side("A", row.a), side("B", row.b)))));
  } catch (error) {
    if (mine === asked) at("n").textContent = error.message;
  }
}
verdicts("a", a);
verdicts("b", b);
try {
  const answer = await data(`/api/compare?${both}`);
  levels = answer.levels;
  compared(answer);
  const several = new Set(levels.map((each) => each.task)).size > 1;
  at("level").replaceChildren(...levels.map((each) => make("option", {}, several ? `${each.task}: ${each.level}` : each.level)));
  at("level").addEventListener("change", () => { first = 0; changed(); });
  if (levels.length) await changed();
  else at("n").textContent = "The two groups share no level.";
} catch (error) {
  at("refusal").textContent = error.message;
}
