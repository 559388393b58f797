import { at, bar, count, data, make, number, state, table, verdictLines, wait } from "/static/parts.js";
const key = document.body.dataset.key;
function span(seconds) {
  if (seconds == null) return "unknown";
  const whole = Math.round(seconds), hours = Math.floor(whole / 3600), minutes = Math.floor((whole % 3600) / 60);
  return hours ? `${hours} h ${minutes} min` : minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}
function figures(live) {
  const rows = [
    ["Done", `${number(live.done_per_s, 1)}/s`], ["Sent", `${number(live.sent_per_s, 1)}/s`],
    ["Output", `${number(live.output_tokens_per_s, 0)} tokens/s`], ["In flight", count(live.in_flight)],
    ["Time left", span(live.left_s)],
    ["TTFT p50", live.ttft_p50_ms == null ? "-" : `${number(live.ttft_p50_ms, 0)} ms`],
    ["TTFT p99", live.ttft_p99_ms == null ? "-" : `${number(live.ttft_p99_ms, 0)} ms`],
    ["Retries", count(live.retries)], ["Client", live.client],
  ];
  if (live.server?.running != null) rows.push(["Server", `${live.server.running} running, ${live.server.waiting ?? 0} waiting`]);
  if (live.server?.kv_usage != null) rows.push(["KV cache in use", `${number(100 * live.server.kv_usage, 0)}%`]);
  return rows.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)));
}
function spark(history) {
  const values = history.map((each) => each.done_per_s), most = Math.max(...values, 1e-9);
  at("spark").toggleAttribute("hidden", values.length < 2);
  at("sparksays").textContent = values.length < 2 ? "" : `Requests done a second since ${history[0].at.slice(11, 19)} UTC; at most ${number(most, 1)}/s.`;
  if (values.length < 2) return;
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", values.map((value, i) => `${(600 * i) / (values.length - 1)},${86 - (80 * value) / most}`).join(" "));
  at("spark").replaceChildren(line);
}
function show(now) {
  state(at("state"), now.state);
  at("says").textContent = now.says;
  if (now.planned == null) return;
  bar(at("bar"), now);
  at("counts").textContent = `${count(now.planned)} planned: ${count(now.responses)} answered, ${count(now.failures)} failed, ${count(now.pending)} pending. Generation ${now.generation}.`;
  at("alarms").replaceChildren(...now.broken.map((text) => make("p", { class: "alarm" }, `The counts contradict each other: ${text}`)));
  at("live").hidden = now.live == null && now.history.length < 2;
  at("livehead").textContent = now.live ? "Now" : "The last session at work";
  at("figures").replaceChildren(...(now.live ? figures(now.live) : []));
  spark(now.history);
  const several = now.levels.some((level) => level.task);
  table(at("levels"), [...(several ? ["Task"] : []), "Level", "Planned", "Queued", "Answered", "Failed", "Pending", ""],
    now.levels.map((level) => {
      const track = make("div", { class: "bar", role: "img" });
      bar(track, level);
      return [...(several ? [level.task] : []), level.level, ...["planned", "requests", "responses", "failures", "pending"].map((name) => count(level[name])), track];
    }), several ? 2 : 1);
  const types = Object.entries(now.failures_by_type);
  at("failures").hidden = !types.length;
  table(at("types"), ["What was wrong", "Requests"], types.map(([name, n]) => [name, count(n)]));
  table(at("sessions"), ["Started (UTC)", "Ended", "How", "Client", "Command"],
    now.sessions.toReversed().map((each) => [each.started_at.slice(0, 19).replace("T", " "), each.ended_at ? each.ended_at.slice(11, 19) : "-",
      each.ended_at ? `${each.reason} (exit ${each.exit_code})` : each === now.sessions.at(-1) && now.running ? "at work" : "killed",
      each.client ?? "-", each.command]), 5);
  at("verdicts").hidden = !now.verdicts.length;
  at("verdictlines").replaceChildren(...verdictLines(now));
}
for (;;) {
  let word = "";
  try {
    const now = await data(`/api/g/${key}/progress`);
    word = now.state;
    show(now);
  } catch (error) {
    at("says").textContent = `This page can't be brought up to date: ${error.message}`;
  }
  await wait(word === "running" ? 1000 : 2000);
}
