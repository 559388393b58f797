"""`kvt bench compare A B`: two bench groups, figure by figure and load by load.

A and B are the figures that each group's own report prints, `B - A` is B minus A. Whether the two servers differ is
known only where runs of one configuration are known to differ: with three repeats or more on both sides, Welch's t over
the logarithms of the repeats' figures, at a level that holds for all figures together (Bonferroni). With fewer, an
interval that excludes 0 says that these two runs differ, and no more. Nothing is claimed that this client's own error
could have made, or that fewer requests sent than planned, and times of answered requests stand beside how many failed.
`paired_median` is another figure: the median of the differences of requests at the same place of one schedule, where
both groups drew the same.
"""

import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from analyzer.bench.figures.distributions import t_quantile
from analyzer.bench.figures.points import BOUND_SHARE, RATES, Point, points
from analyzer.bench.figures.spread import FEWEST_REPEATS, OVER_REPEATS, WITHIN, Estimate
from analyzer.bench.figures.stage_results import StageResult, result_of
from analyzer.bench.read import stage_facts
from analyzer.bench.report.bench_verdict import columns, name_of
from analyzer.bench.report.numbers import ms, plain
from analyzer.bench.report.trust import client_part, figure_title
from analyzer.read.runs import newest_group
from analyzer.read.snapshot import snapshot
from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.paths import DB_NAME
from kvt_async.contract.schema import connect_for_reading

ALPHA = 0.05
MOST_LOG = 20.0  # of an interval on the scale of logarithms: beyond it nothing is known, and exp would overflow
TIMES = ("ttft_p50_s", "ttft_p99_s", "tpot_p50_s", "latency_p50_s", "latency_p99_s")
PER_SECOND = {"requests_per_s": "done/s", "output_tokens_per_s": "output tok/s"}
NONE = "no detectable difference"
UNKNOWN = "cannot tell"


@dataclass(frozen=True, slots=True)
class FigureDifference:
    """B minus A: seconds, or per second. `client_s`: how much of it the clients' own errors may have made."""

    load: str
    name: str  # as in --json: ttft_p99_s, requests_per_s
    a: float
    b: float
    change: Estimate
    client_s: float
    sent: bool  # both sent what was planned
    n_pairs: int = 0
    paired_median: float = math.nan

    @property
    def is_time(self) -> bool:
        return self.name in TIMES

    @property
    def title(self) -> str:
        return figure_title(self.name) if self.is_time else PER_SECOND[self.name]

    @property
    def verdict(self) -> str:
        low, high = self.change.low, self.change.high
        if math.isnan(low) or math.isnan(high):
            return UNKNOWN
        if low <= 0 <= high:
            return NONE
        if not self.sent:
            return f"{UNKNOWN}: CLIENT-BOUND, the planned rate was not sent"
        size = abs(self.change.value)
        if self.is_time and self.client_s >= size:
            return f"{UNKNOWN}: CLIENT-BOUND, ±{ms(self.client_s)} ms"
        bound = (
            f" (CLIENT-BOUND, ±{ms(self.client_s)} ms)" if self.is_time and self.client_s > BOUND_SHARE * size else ""
        )
        if self.change.method != OVER_REPEATS:
            return f"these two runs differ{bound}"
        return ("B is better" if (high < 0) == self.is_time else "B is worse") + bound

    def as_json(self) -> dict[str, Any]:
        return {
            "load": self.load,
            "figure": self.title,
            "name": self.name,
            "a": _json(self.a),
            "b": _json(self.b),
            "change": _json(self.change.value),
            "low": _json(self.change.low),
            "high": _json(self.change.high),
            "method": self.change.method,
            "client_error": _json(self.client_s) if self.is_time else None,
            "n_pairs": self.n_pairs,
            "paired_median": _json(self.paired_median),
            "verdict": self.verdict,
        }


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
    alpha = ALPHA / (len(common) * (len(PER_SECOND) + len(TIMES)))
    differences = [difference for p, q in common for difference in _differences(p, q, alpha)]
    clients = {"A": client_part([p for p, _ in common]), "B": client_part([q for _, q in common])}
    failed = [
        {"load": name_of(p), "a": [p.n_failed, p.n_started], "b": [q.n_failed, q.n_started]}
        for p, q in common
        if p.n_failed or q.n_failed
    ]
    return {
        "a": a,
        "b": b,
        "compared": other,
        "client": clients,
        "failed": failed,
        "differences": [difference.as_json() for difference in differences],
        "lines": _lines(a, b, other, clients, failed, differences),
    }


def _read(name: str) -> list[Point]:
    where = Path(name)
    if not where.exists():
        where = Path("runs") / name
    conn = connect_for_reading(where / DB_NAME if where.is_dir() else where)
    try:
        with snapshot(conn) as reader:
            return points([r for r in _results(reader) if r.n_started and not r.stage.is_unloaded], ALPHA)
    finally:
        conn.close()


def _results(conn: sqlite3.Connection) -> list[StageResult]:
    group, generation, _ = newest_group(conn)
    return [result_of(conn, stage, ALPHA) for stage in stage_facts.stages(conn, group, generation)]


def _what_differs(a: StageResult, b: StageResult) -> list[str]:
    """Everything but the loads that isn't the same: what the comparison is about, or what spoils it."""
    pairs = {
        "model": (a.stage.model_name, b.stage.model_name),
        "server": (a.stage.engine_name, b.stage.engine_name),
        "workload": (a.stage.workload, b.stage.workload),
        "models": (_models(a), _models(b)),
        "seed": (a.stage.seed, b.stage.seed),
        "prefix cache": (a.cache.state, b.cache.state),
    }
    return [f"{name}: {x} / {y}" for name, (x, y) in pairs.items() if x != y]


def _models(result: StageResult) -> str:
    """'base 3, lora-a 1': models that shared a load by weight; '-' for one."""
    return ", ".join(f"{model['name']} {model['weight']:g}" for model in result.stage.plan.get("models", ())) or "-"


def _differences(p: Point, q: Point, alpha: float) -> list[FigureDifference]:
    """`alpha` of each figure, small enough that all of them together claim falsely in 5% of comparisons at most."""
    differences, paired = [], _pairable(p, q)
    sent = p.client.sent_share is None and q.client.sent_share is None
    for name in (*PER_SECOND, *TIMES):
        x, y = p.figures.get(name), q.figures.get(name)
        if x is None or y is None or math.isnan(x.value) or math.isnan(y.value):
            continue
        change = _change(p, q, name, alpha)
        if name in PER_SECOND:
            differences.append(FigureDifference(name_of(p), name, x.value, y.value, change, 0.0, sent))
            continue
        client_s = p.client_error_s(name) + q.client_error_s(name)
        pairs = _pairs(p, q, name.split("_")[0]) if paired else np.empty(0)
        middle = float(np.median(pairs)) if len(pairs) else math.nan
        differences.append(
            FigureDifference(name_of(p), name, x.value, y.value, change, client_s, sent, len(pairs), middle)
        )
    return differences


def _change(p: Point, q: Point, name: str, alpha: float) -> Estimate:
    if min(len(p.results), len(q.results)) < FEWEST_REPEATS:
        return _apart(p.figures[name], q.figures[name], alpha)
    x, y = p.figures[name].value, q.figures[name].value
    each = [_each(point, name) for point in (p, q)]
    if min(x, y, *(values.min() for values in each)) <= 0:
        return Estimate(y - x, math.nan, math.nan, OVER_REPEATS)
    half = welch(np.log(each[0]), np.log(each[1]), alpha)
    return Estimate(y - x, y * math.exp(-half) - x, y * math.exp(half) - x, OVER_REPEATS)


def welch(x: np.ndarray, y: np.ndarray, alpha: float) -> float:
    """Half the width of the interval of a difference of means; NaN where nothing varies.

    Degrees of freedom halfway between Satterthwaite's and those of the smaller sample: at the levels that many figures
    need, Satterthwaite's alone claim too often where one side is much noisier (scripts/bench/compare_level.py).
    """
    spreads = np.array([x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)])
    if not spreads.sum() > 0:
        return math.nan
    freedom = spreads.sum() ** 2 / (spreads**2 / np.array([len(x) - 1, len(y) - 1])).sum()
    df = (int(freedom) + min(len(x), len(y)) - 1) // 2
    return min(t_quantile(1 - alpha / 2, max(1, df)) * math.sqrt(spreads.sum()), MOST_LOG)


def _each(point: Point, name: str) -> np.ndarray:
    """The figure of each repeat."""
    if name in PER_SECOND:
        return np.array([RATES[name](result.rates).value for result in point.results])
    return np.array(point.repeats[name])


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
    gaps = np.concatenate(parts)
    return gaps[~np.isnan(gaps)]


def _apart(x: Estimate, y: Estimate, alpha: float) -> Estimate:
    """Two independent figures: variances of their logarithms add, read off their own 95% intervals and widened to
    `alpha`."""
    change = y.value - x.value
    if not min(x.low, x.value, y.low, y.value) > 0 or math.isnan(x.high) or math.isnan(y.high):
        return Estimate(change, math.nan, math.nan, WITHIN)
    wider = NormalDist().inv_cdf(1 - alpha / 2) / NormalDist().inv_cdf(1 - ALPHA / 2)
    down = wider * math.hypot(math.log(y.value / y.low), math.log(x.high / x.value))
    up = wider * math.hypot(math.log(y.high / y.value), math.log(x.value / x.low))
    return Estimate(change, y.value * math.exp(-down) - x.value, y.value * math.exp(up) - x.value, WITHIN)


def _lines(
    a: str,
    b: str,
    other: Sequence[str],
    clients: dict[str, str],
    failed: Sequence[dict[str, Any]],
    differences: Sequence[FigureDifference],
) -> list[str]:
    rows = [["load", "figure", "A", "B", "B - A", "interval", ""]]
    for d in differences:
        show = ms if d.is_time else plain
        interval = "-" if math.isnan(d.change.low) else f"[{show(d.change.low)}, {show(d.change.high)}]"
        rows.append([d.load, d.title, show(d.a), show(d.b), show(d.change.value), interval, d.verdict])
    claims = [d for d in differences if d.verdict.startswith(("B is", "these"))]
    open_ones = [d for d in differences if d.verdict.startswith(UNKNOWN)]
    summary = f"{len(claims)} of {len(differences)} figures differ detectably." if claims else f"{NONE.capitalize()}."
    if len(open_ones) == len(differences):
        summary = "Nothing can be told about any of these figures."
    elif open_ones:
        summary += f" About {len(open_ones)} of {len(differences)} figures nothing can be told."
    if any(d.change.method == WITHIN for d in differences):
        summary += f" Whether the servers differ, {FEWEST_REPEATS} repeats of each load on both sides would tell."
    differs = [f"what differs besides: {', '.join(other)}"] if other else ["nothing else differs that was recorded"]
    return [
        f"A: {a}",
        f"B: {b}",
        *differs,
        *(f"{side}: {part}" for side, part in clients.items()),
        *(f"{f['load']}: A {f['a'][0]:,} of {f['a'][1]:,} failed, B {f['b'][0]:,} of {f['b'][1]:,}" for f in failed),
        "",
        *columns(rows),
        "(times in ms, of answered requests; B - A is B minus A; 95% for all intervals together)",
        "",
        summary,
    ]


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None
