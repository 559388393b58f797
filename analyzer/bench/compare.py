"""`kvt bench compare A B`: two bench groups, load by load, paired where their schedules match.

Requests are paired by their place in the schedule when both groups drew it from the same seed for the same workload:
the i-th request then has the same length and the same arrival, so that its difference is the server's, not the
load's. The interval of the difference comes from the paired differences (sign test's order statistics for medians), or
from both groups' own intervals where nothing pairs. 'No detectable difference' is a result.
"""

import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from analyzer.bench import facts
from analyzer.bench.points import Point, points
from analyzer.bench.results import Result, result_of
from analyzer.bench.spread import Estimate, quantile_interval
from analyzer.bench.words import columns, ms, name_of, plain
from analyzer.tables import newest_group, snapshot
from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.paths import DB_NAME
from kvt_async.contract.schema import connect_for_reading

ALPHA = 0.05
TIMES = {"ttft": "TTFT p50", "tpot": "TPOT p50", "latency": "latency p50"}
RATES = {"requests_per_s": "done/s", "output_tokens_per_s": "output tok/s"}
NONE = "no detectable difference"


@dataclass(frozen=True, slots=True)
class Difference:
    """B minus A: seconds, or per second. `n_pairs` 0: not paired."""

    load: str
    figure: str
    a: float
    b: float
    change: Estimate
    n_pairs: int
    is_time: bool

    @property
    def verdict(self) -> str:
        low, high = self.change.low, self.change.high
        if math.isnan(low) or math.isnan(high):
            return "cannot tell"
        if low <= 0 <= high:
            return NONE
        better = (high < 0) == self.is_time
        return "B is better" if better else "B is worse"


def compare(a: str, b: str) -> dict[str, Any]:
    """`a`, `b`: name under runs/, run directory, or database. Raises MissingPrerequisiteError."""
    left, right = _read(a), _read(b)
    common = [(p, q) for p in left for q in right if (p.level, p.load) == (q.level, q.load)]
    if not common:
        raise MissingPrerequisiteError(
            "the two groups have no load in common, so nothing can be compared",
            details=(f"A: {', '.join(name_of(p) for p in left)}", f"B: {', '.join(name_of(q) for q in right)}"),
            do="Bench both at the same loads.",
        )
    other = _what_differs(left[0].results[0], right[0].results[0])
    alpha = ALPHA / (len(common) * (len(RATES) + len(TIMES)))
    found = [difference for p, q in common for difference in _differences(p, q, alpha)]
    return {
        "a": a,
        "b": b,
        "compared": other,
        "differences": [
            {"load": d.load, "figure": d.figure, "a": _json(d.a), "b": _json(d.b), "change": _json(d.change.value),
             "low": _json(d.change.low), "high": _json(d.change.high), "n_pairs": d.n_pairs, "verdict": d.verdict}
            for d in found
        ],
        "lines": _lines(a, b, other, found),
    }  # fmt: skip


def _read(name: str) -> list[Point]:
    where = Path(name)
    if not where.exists():
        where = Path("runs") / name
    conn = connect_for_reading(where / DB_NAME if where.is_dir() else where)
    try:
        with snapshot(conn) as reader:
            return points([r for r in _results(reader) if r.n_started], ALPHA)
    finally:
        conn.close()


def _results(conn: sqlite3.Connection) -> list[Result]:
    group, generation, _ = newest_group(conn)
    return [result_of(conn, stage, ALPHA) for stage in facts.stages(conn, group, generation)]


def _what_differs(a: Result, b: Result) -> list[str]:
    """Everything but the loads that isn't the same: what the comparison is about, or what spoils it."""
    pairs = {
        "model": (a.stage.model_name, b.stage.model_name),
        "server": (a.stage.engine_name, b.stage.engine_name),
        "workload": (a.stage.workload, b.stage.workload),
        "seed": (a.stage.seed, b.stage.seed),
        "prefix cache": (a.cache.label, b.cache.label),
        "client": (a.client.verdict, b.client.verdict),
    }
    return [f"{name}: {x} / {y}" for name, (x, y) in pairs.items() if x != y]


def _differences(p: Point, q: Point, alpha: float) -> list[Difference]:
    """`alpha` of each figure, small enough that all of them together claim falsely in 5% of comparisons at most."""
    found = []
    for name, title in RATES.items():
        rate_a, rate_b = p.figures[name], q.figures[name]
        change = _apart(rate_a, rate_b, alpha)
        found.append(Difference(name_of(p), title, rate_a.value, rate_b.value, change, 0, False))
    paired = _pairable(p, q)
    for metric, title in TIMES.items():
        x, y = p.figures.get(f"{metric}_p50_s"), q.figures.get(f"{metric}_p50_s")
        if x is None or y is None:
            continue
        pairs = _pairs(p, q, metric) if paired else np.empty(0)
        if len(pairs) >= 2:
            low, high = quantile_interval(pairs, 0.5, alpha)
            change = Estimate(float(np.median(pairs)), low, high, "paired")
        else:
            change = _apart(x, y, alpha)
        found.append(Difference(name_of(p), title, x.value, y.value, change, len(pairs), True))
    return found


def _pairable(p: Point, q: Point) -> bool:
    a, b = p.results[0].stage, q.results[0].stage
    return a.seed == b.seed and a.workload == b.workload and a.arrival == b.arrival


def _pairs(p: Point, q: Point, metric: str) -> np.ndarray:
    """B minus A of requests at the same place of the same repeat's schedule; NaN where one has none is left out."""
    parts = [np.empty(0)]
    for a in p.results:
        b = next((r for r in q.results if r.stage.repeat_idx == a.stage.repeat_idx), None)
        if b is None:
            continue
        theirs = dict(zip(b.numbers, b.values[metric], strict=True))
        mine = zip(a.numbers, a.values[metric], strict=True)
        parts.append(np.array([theirs[number] - value for number, value in mine if number in theirs]))
    found = np.concatenate(parts)
    return found[~np.isnan(found)]


def _apart(x: Estimate, y: Estimate, alpha: float) -> Estimate:
    """Two independent figures: variances add, read off their own 95% intervals and widened to `alpha`."""
    change = y.value - x.value
    if any(math.isnan(v) for v in (x.low, x.high, y.low, y.high)):
        return Estimate(change, math.nan, math.nan, "apart")
    wider = NormalDist().inv_cdf(1 - alpha / 2) / NormalDist().inv_cdf(1 - ALPHA / 2)
    down = wider * math.hypot(y.value - y.low, x.high - x.value)
    up = wider * math.hypot(y.high - y.value, x.value - x.low)
    return Estimate(change, change - down, change + up, "apart")


def _lines(a: str, b: str, other: Sequence[str], found: Sequence[Difference]) -> list[str]:
    rows = [["load", "figure", "A", "B", "B - A", "interval", "pairs", ""]]
    for d in found:
        show = ms if d.is_time else plain
        interval = "-" if math.isnan(d.change.low) else f"[{show(d.change.low)}, {show(d.change.high)}]"
        rows.append([d.load, d.figure, show(d.a), show(d.b), show(d.change.value), interval, str(d.n_pairs or "-"),
                     d.verdict])  # fmt: skip
    detected = [d for d in found if d.verdict.startswith("B is")]
    summary = f"{len(detected)} of {len(found)} figures differ detectably." if detected else f"{NONE.capitalize()}."
    differs = [f"what differs besides: {', '.join(other)}"] if other else ["nothing else differs that was recorded"]
    return [
        f"A: {a}",
        f"B: {b}",
        *differs,
        "",
        *columns(rows),
        "(times in ms; 95% for all intervals together)",
        "",
        summary,
    ]


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None
