"""What `kvt bench` itself says: stages as they end, a dry run, and the counts of the end. Figures that a decision rests
on, with intervals, are the analyzer's."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from kvt_async.bench import client_ceiling
from kvt_async.bench.ladder import Done, loads_in_sight
from kvt_async.bench.load_steps import UNLOADED
from kvt_async.bench.request_counts import wanted
from kvt_async.bench.stage import Left, Stage
from kvt_async.bench.traces.trace_workload import paced, replayed_part
from kvt_async.bench.workload import Workload
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import CanaryVerdict, EndReason
from kvt_async.records import Json, Level
from kvt_async.session.session import exit_code_of
from kvt_async.store.reader import Reader

_COUNTS = """
SELECT u.run_id, s.stage_idx, s.load, s.level, u.repeat_idx, s.n_measured,
       max(ifnull(s.n_measured, 0), count(*) FILTER (WHERE b.phase = 'measured')) AS planned,
       count(*) FILTER (WHERE b.phase = 'measured' AND p.request_id IS NOT NULL) AS answered,
       count(*) FILTER (WHERE b.phase = 'measured' AND p.request_id IS NULL AND g.request_id IS NOT NULL) AS failed,
       (SELECT count(*) FROM bench_windows w WHERE w.run_id = u.run_id) AS windows,
       EXISTS (SELECT 1 FROM bench_window_ends e WHERE e.run_id = u.run_id AND e.reason = 'stop_rule') AS cut,
       (SELECT e.stop_rule FROM bench_window_ends e WHERE e.run_id = u.run_id ORDER BY e.ended_at DESC LIMIT 1)
           AS stop_rule
FROM bench_stages s JOIN runs u USING (run_id) JOIN requests r USING (run_id) JOIN bench_arrivals b USING (request_id)
LEFT JOIN responses p USING (request_id)
LEFT JOIN (SELECT DISTINCT request_id FROM give_ups) g USING (request_id)
WHERE u.exp_group_id = ? AND u.generation = ? GROUP BY u.run_id ORDER BY s.stage_idx
"""


@dataclass(slots=True)
class BenchReport:
    """The runner's answer. Counts are of measured requests of all stages of the group's generation."""

    exp_group_id: str
    db: str
    generation: int = 1
    session_id: str | None = None  # None: there was nothing to send
    reason: EndReason = EndReason.FINISHED
    stages: list[Json] = field(default_factory=list)
    plan: Json | None = None  # of a dry run
    canary: CanaryVerdict | None = None  # None: nothing to ask

    def read(self, reader: Reader) -> None:
        """Take the counts from the database."""
        self.stages = [dict(row) for row in reader.rows(_COUNTS, self.exp_group_id, self.generation)]

    @property
    def failed(self) -> int:
        return sum(stage["failed"] for stage in self.stages)

    @property
    def pending(self) -> int:
        """Requests that are owed: those that bench.max_s left out are not."""
        return sum(stage["planned"] - stage["answered"] - stage["failed"] for stage in self.stages if not stage["cut"])

    @property
    def exit_code(self) -> int:
        return exit_code_of(self.reason) or (exit_code_of(EndReason.FAILURES) if self.failed else 0)

    def as_json(self) -> Json:
        if self.plan is not None:
            return self.plan
        shown = {key: value for key, value in asdict(self).items() if key != "plan"}
        return {**shown, "failed": self.failed, "pending": self.pending, "exit_code": self.exit_code}

    def lines(self) -> list[str]:
        if self.plan is not None:
            return _plan_lines(self.plan)
        answered = sum(stage["answered"] for stage in self.stages)
        out = [
            f"{self.exp_group_id}: {len(self.stages)} stages, {answered} measured requests answered, {self.failed} "
            f"failed, {self.pending} pending"
        ]
        if self.reason == EndReason.INTERRUPTED:
            out.append("interrupted: everything finished so far is committed; run the same command again to resume")
        elif self.reason == EndReason.SERVER:
            out.append("the server went away; run the same command again once it is back")
        elif self.reason == EndReason.REFUSED:
            out.append("the server refuses our key; run the same command again with one it takes")
        return [*out, f"  {self.db}"]


def stage_line(stage: Stage, left: Left | None, workload: Workload, cut: str | None = None) -> str:
    """What is said as a stage begins; `cut`: why it has fewer requests than its rates need."""
    n = f"{stage.n_measured} requests" if stage.n_measured is not None else f"{stage.duration_s:g} s"
    text = f"{stage.name}: {n}" + (f" ({cut})" if cut else "") + f", {stage.n_warm_up} to warm up"
    if left is not None:
        text += f"; resumed, {len(left.seqs)} are left of it: a window of its own, with its own warm-up"
    if workload.size is not None and (stage.n_measured or 0) + stage.n_warm_up > workload.size:
        text += f"; the file has {workload.size} prompts, so some are sent again"
        text += "" if stage.salt else " and a prefix cache may answer them"
    return text


def stage_summary(stage: Stage, one: Done) -> str:
    """What is said as a stage ends: its failures, its rates, and plain percentiles of what was answered."""
    figures, rates = one.figures, one.rates
    parts = [f"{stage.name}: {int(figures.ok.sum())} answered, {int((~figures.ok).sum())} failed"]
    if rates.reason is not None:
        needs = f"; about {rates.n_needed:,} requests would" if rates.n_needed else ""
        parts.append(f"rates cannot be told ({rates.reason}{needs})")
    else:
        if stage.load.is_open:
            parts.append(f"the server kept up with {min(rates.kept_up.value, 1):.0%} of the arrivals")
        parts.append(f"{rates.requests.value:.3g} requests/s, {rates.output_tokens.value:.0f} output tok/s")
    for metric in ("ttft", "tpot", "latency"):
        p50, p99 = (figures.value(f"{metric}_{stat}_ms", of_answered=True) for stat in ("p50", "p99"))
        if not math.isnan(p50):
            parts.append(f"{metric.upper() if metric != 'latency' else metric} p50 {p50:.1f} p99 {p99:.1f} ms")
    return ", ".join(parts)


def estimate(settings: Settings, workload: Workload, levels: Sequence[Level], ceilings: Json | None) -> Json:
    """What a run would send, as far as that is known before; nothing is created."""
    bench, out = settings.bench, workload.mean_output_tokens()
    stages = []
    unloaded = [UNLOADED] * bench.unloaded if bench.scored else []
    under_load = [paced(workload, load) for load in loads_in_sight(bench)]
    for load in [*unloaded[:1], *under_load, *unloaded[1:]]:
        n: float = wanted(bench, load, None, workload.size)
        rate, duration_s = load.requests_per_s, None if load.unloaded else bench.duration_s
        if duration_s is not None:
            n = rate * duration_s if rate else math.nan
        seconds = duration_s or (n / rate if rate else math.nan)
        if (part := replayed_part(workload, load)) is not None:
            n, seconds = part.n, part.seconds / (load.speed or 1.0)
        elif load.shape is not None:
            n, seconds = load.shape.area if load.is_open else math.nan, load.shape.seconds
        stages.append(
            {
                "load": load.label,
                "requests": None if math.isnan(n) else round(n),
                "output_tokens": None if math.isnan(n) else round(n * out),
                "seconds": None if math.isnan(seconds) else round(seconds, 1),
                "ceiling": client_ceiling.share(settings, load, out, ceilings),
            }
        )
    more = bench.search_rate or "auto" in (bench.sweep_rate, bench.sweep_concurrency)
    return {
        "exp_group_id": settings.experiment.exp_group_id,
        "levels": len(levels),
        "repeats": bench.repeats,
        "stages_in_sight": stages,
        "more_stages_follow": more,
        "workload": workload.describe(),
        "models": {model.name: model.weight for model in bench.models},
        "client_ceiling": ceilings,
    }


def _plan_lines(plan: Json) -> list[str]:
    out = [f"{plan['exp_group_id']}: nothing is sent; {plan['levels']} level(s), {plan['repeats']} repeat(s) of"]
    for stage in plan["stages_in_sight"]:
        parts = [
            f"{stage[name]} {text}"
            for name, text in (("requests", "requests"), ("output_tokens", "output tokens"), ("seconds", "s"))
            if stage[name] is not None
        ]
        ceiling = f"; {stage['ceiling']['sentence']}" if stage["ceiling"] else ""
        out.append(f"  {stage['load']}: {', '.join(parts) or 'as many requests as go'}{ceiling}")
    if plan["models"]:
        total = sum(plan["models"].values())
        shares = ", ".join(f"{name} {weight / total:.0%}" for name, weight in plan["models"].items())
        out.append(f"  models: {shares} of the requests")
    if plan["more_stages_follow"]:
        out.append("  and further loads, chosen by what these show")
    return out
