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
const fixed = (value) => (value == null ? "-" : value.toFixed(3));
const signed = (value) => (value == null ? "-" : (value >= 0 ? "+" : "−") + fixed(Math.abs(value)));
const options = { actions: false, renderer: "svg", ast: true, defaultStyle: false, tooltip: { disableDefaultStyle: true } };
function curves(rows) {
  const wide = matchMedia("(min-width: 760px)").matches, full = rows.filter((each) => each.series === "full");
  const series = [...new Set(rows.map((each) => each.where.replace(/ [^ ]*$/, "")))].filter((name) => !name.endsWith("full"));
  const values = series.flatMap((name) => [...rows.filter((each) => each.where.replace(/ [^ ]*$/, "") === name), ...full].flatMap((each) =>
    [["A", each.acc_a], ["B", each.acc_b]].map(([group, accuracy]) => ({ series: name, budget: each.kv_budget, group, accuracy }))));
  if (!values.length) return;
  at("curves").hidden = false;
  window.vegaEmbed(at("curves").querySelector(".chart"), {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json", data: { values }, columns: wide ? 3 : 1,
    facet: { field: "series", type: "nominal", title: null, sort: series, header: { labelFontSize: 13, labelFontWeight: "bold" } },
    spec: { width: wide ? 300 : 240, height: 150, mark: { type: "line", point: true },
      encoding: { x: { field: "budget", type: "quantitative", title: "KV budget" }, y: { field: "accuracy", type: "quantitative", title: "Accuracy" },
        color: { field: "group", type: "nominal", title: "Group", scale: { range: ["#0a5a8f", "#c2571a"] } }, strokeDash: { field: "group", type: "nominal", title: "Group" }, shape: { field: "group", type: "nominal", title: "Group" },
        tooltip: ["group", "series", "budget", "accuracy"].map((field) => ({ field, type: field === "accuracy" || field === "budget" ? "quantitative" : "nominal" })) } },
  }, options).catch((error) => { at("curves").querySelector(".chart").textContent = error.message; });
}
function compared(answer) {
  at("refusal").textContent = answer.refusal || "Accuracy on the examples that both have; 95% interval; p adjusted over all rows (Holm).";
  at("refusal").className = answer.refusal ? "problem" : "note";
  at("remarks").replaceChildren(...answer.remarks.map((text) => make("p", { class: "note" }, text)));
  if (answer.compared.length) curves(answer.compared);
  if (answer.compared.length)
    table(at("levels"), ["Level", "A", "B", "B − A", "95% interval", "Better in B", "Worse in B", "Examples", "p (Holm)"],
      answer.compared.map((each) => [each.where, fixed(each.acc_a), fixed(each.acc_b), signed(each.diff == null ? null : -each.diff),
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
  const most = answer.compared.toSorted((one, other) => Math.abs(other.diff ?? 0) - Math.abs(one.diff ?? 0))[0];
  at("level").selectedIndex = Math.max(0, levels.findIndex((each) => most && `${several ? `${each.task}: ` : ""}${each.level}` === most.where));
  if (levels.length) await changed();
  else at("n").textContent = "The two groups share no level.";
} catch (error) {
  at("refusal").textContent = error.message;
}
