"""What a sweep would do and cost, before anything is sent."""

from collections.abc import Mapping

from kvt_async.contract.labels import task_level
from kvt_async.contract.settings import Settings
from kvt_async.records import Json
from kvt_async.session.invocation import Invocation
from kvt_async.store.reader import Reader
from kvt_async.sweep.pending import SweepGroup

ASSUMED_PREFILL_TOKENS_PER_S, ASSUMED_DECODE_TOKENS_PER_S = 5000.0, 30.0


def estimate(
    invocation: Invocation, group: SweepGroup, done: Mapping[str, bytearray], planned: Mapping[str, int]
) -> Json:
    """Requests and tokens of what is pending, per task and level and in all; seconds and cost. `done` and `planned` are
    by run_id.

    Time comes from this group's own attempts where there are some (`rates: measured`), else from its canary's answers,
    else from assumed rates of one stream of a GPU; output tokens are at most max_tokens each. `answer_timeout_s`: the
    longest that any answer may take.
    """
    reader, settings = invocation.reader, invocation.settings
    sql = "SELECT seq, token_len FROM manifest_entries WHERE dataset_id = ?"
    levels: list[Json] = []
    longest_s = 0.0
    for task in group.tasks:
        lengths = [(row[0], row[1]) for row in reader.rows(sql, task.dataset_id)]
        k, most = task.samples, task.settings.decoding.most_tokens
        longest_s = max(longest_s, settings.engine.timeouts.answer_s(most))
        for run in task.runs:
            mask = done[run.run_id]
            n = mask.count(0)
            prompt = sum(tokens * mask.count(0, seq * k, seq * k + k) for seq, tokens in lengths) if n else 0
            levels.append(
                {
                    **({"task": run.task} if run.task else {}),
                    "level": run.level.label,
                    "requests": n,
                    "settled": planned[run.run_id] - n,
                    "prompt_tokens": prompt,
                    "max_output_tokens": n * most,
                }
            )
    total = {
        key: sum(int(level[key]) for level in levels) for key in ("requests", "prompt_tokens", "max_output_tokens")
    }
    seconds, rates = _seconds(reader, settings, total)
    prices = settings.analysis.prices
    cost = None
    if prices is not None:
        of_prompts = total["prompt_tokens"] * prices.prompt_per_mtok
        cost = (of_prompts + total["max_output_tokens"] * prices.completion_per_mtok) / 1e6
    return {
        "levels": levels,
        "workload": settings.workload.model_dump(),
        **total,
        "expected_s": seconds,
        "rates": rates,
        "answer_timeout_s": longest_s,
        "cost_at_most": cost,
        "currency": prices.currency if prices else None,
    }


def lines(plan: Json) -> list[str]:
    """The estimate as sentences and a table, for people."""
    labels = [task_level(level.get("task", ""), level["level"]) for level in plan["levels"]]
    width = max(map(len, labels), default=5)
    out = [f"  {'level':{width}} {'requests':>9} {'settled':>9} {'prompt tokens':>14} {'output tokens':>14}"]
    for label, level in zip(labels, plan["levels"], strict=True):
        out.append(
            f"  {label:{width}} {level['requests']:>9} {level['settled']:>9} {level['prompt_tokens']:>14,} "
            f"{'<= ' + format(level['max_output_tokens'], ','):>14}"
        )
    out.append(
        f"{plan['requests']} requests, {plan['prompt_tokens']:,} prompt tokens, "
        f"at most {plan['max_output_tokens']:,} output tokens"
    )
    out += _workload_lines(plan["workload"])
    out.append(f"expected time: about {_time(plan['expected_s'])} ({plan['rates']})")
    out.append(f"one answer may take {plan['answer_timeout_s']:,.0f} s (engine.timeouts.total_s)")
    cost = plan["cost_at_most"]
    out.append(
        f"cost: at most {cost:,.2f} {plan['currency']}" if cost is not None else "cost: unknown (set analysis.prices)"
    )
    prepared = ", ".join(plan.get("prepared", ()))
    kept = f"; prepared, and kept for the sweep: {prepared}" if prepared else ""
    out = [*(f"note: {note}" for note in plan.get("notes", ())), *out, f"dry run: nothing was sent{kept}"]
    if plan.get("refused"):
        out.append("the sweep would be refused: too few examples to prove the guard (analysis.guard); see the notes")
    return out


def _workload_lines(workload: Json) -> list[str]:
    """How the turns of conversations will be sent, where that is not as any other request is."""
    lines = []
    if workload["reuse"] == "turns":
        lines.append("turns of a conversation: one after the other, to one endpoint (workload.reuse: turns)")
    if workload["history"] == "own":
        lines.append(
            "earlier answers in a prompt: what the same level answered (workload.history: own); prompt tokens are "
            "counted with the data's answers here"
        )
    return lines


def _seconds(reader: Reader, settings: Settings, total: dict[str, int]) -> tuple[float, str]:
    at_once = settings.limits.concurrency
    row = reader.rows(
        """SELECT avg(a.latency_s), count(*) FROM (SELECT latency_s FROM attempts a JOIN sessions s USING (session_id)
           WHERE s.exp_group_id = ? AND a.error_type IS NULL ORDER BY a.started_at DESC LIMIT 500) a""",
        settings.experiment.exp_group_id,
    )[0]
    if row[1] >= 5:
        return total["requests"] * row[0] / at_once, f"measured over {row[1]} of this group's requests"
    answered = reader.rows(
        """SELECT avg(p.detail_json ->> '$.latency_s'), count(*) FROM probes p JOIN sessions s USING (session_id)
           WHERE s.exp_group_id = ? AND p.kind = 'canary' AND p.answer IS NOT NULL
           AND p.detail_json ->> '$.latency_s' IS NOT NULL""",
        settings.experiment.exp_group_id,
    )[0]
    if answered[1]:
        words = f"measured over {answered[1]} answers of the canary, which were asked for one at a time"
        return total["requests"] * answered[
            0
        ] / at_once, f"{words}; reckoned for {at_once} streams, each as fast as that"
    one_stream = (
        total["prompt_tokens"] / ASSUMED_PREFILL_TOKENS_PER_S + total["max_output_tokens"] / ASSUMED_DECODE_TOKENS_PER_S
    )
    words = f"{ASSUMED_PREFILL_TOKENS_PER_S:,.0f} prompt and {ASSUMED_DECODE_TOKENS_PER_S:.0f} output tokens/s"
    return one_stream / at_once, (
        f"assumed, nothing was measured: a GPU's {words} a stream, {at_once} streams, every answer at full length; a "
        "CPU may take many times as long. After `kvt sweep --limit 1` a dry run measures it"
    )


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
