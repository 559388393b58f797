"""Where more load stops giving more: the knee of a ladder, and the highest rate that keeps the objectives.

Both are told as the transition zone of a budget is: proven up to here, proven broken from there, open in between.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from analyzer.bench.points import Point
from analyzer.bench.slo import MET, MISSED

SUSTAINED_SHARE = 0.95  # completions per second over arrivals per second
PLATEAU_SHARE = 0.95  # of the best output rate


@dataclass(frozen=True, slots=True)
class Zone:
    """`low`: the highest load that is proven to lie on the near side; `high`: the lowest proven to lie beyond.

    `seen`: the answer by the point estimates alone. None: no load that was tried.
    """

    low: float | None
    high: float | None
    seen: float | None


def knee(ladder: Sequence[Point]) -> Zone | None:
    """Of one level's loads; None for fewer than two.

    Open loop: a rate is sustained when the server completes as much as arrives; proven when the interval of completed
    per second lies above 95% of the arrivals, proven not when it lies below. `seen`: the highest sustained rate.
    Closed loop: the best output rate is the plateau; a concurrency is short of it when its own output is proven below
    95% of that. `seen`: the lowest concurrency on the plateau.
    """
    ordered = sorted(ladder, key=lambda point: point.value)
    if len(ordered) < 2:
        return None
    if ordered[0].loop == "open":
        shares = [sustained(point) for point in ordered]
        return _zone(
            ordered,
            proven=[low >= SUSTAINED_SHARE for _, low, _ in shares],
            broken=[high < SUSTAINED_SHARE for _, _, high in shares],
            seen=[share >= SUSTAINED_SHARE for share, _, _ in shares],
        )
    output = [point.figures["output_tokens_per_s"] for point in ordered]
    plateau = PLATEAU_SHARE * max(estimate.value for estimate in output)
    proven = [p.value for p, o in zip(ordered, output, strict=True) if o.low >= plateau]
    reached = [p.value for p, o in zip(ordered, output, strict=True) if o.value >= plateau]
    seen = min(reached, default=None)
    short = [p.value for p, o in zip(ordered, output, strict=True) if o.high < plateau]
    below = [load for load in short if seen is None or load < seen]  # beyond the plateau output may fall again
    return Zone(max(below, default=None), min(proven, default=None), seen)


def highest_within(ladder: Sequence[Point]) -> Zone | None:
    """The highest load that keeps every objective of bench.slo; None without objectives.

    `low`: every load up to it is proven to; `high`: the lowest that is proven not to.
    """
    ordered = sorted(ladder, key=lambda point: point.value)
    if not ordered or not ordered[0].findings:
        return None
    return _zone(
        ordered,
        proven=[all(finding.verdict == MET for finding in point.findings) for point in ordered],
        broken=[any(finding.verdict == MISSED for finding in point.findings) for point in ordered],
        seen=[all(finding.holds for finding in point.findings) for point in ordered],
    )


def sustained(point: Point) -> tuple[float, float, float]:
    """(share, low, high): completed over arrived per second."""
    done, due = point.figures["requests_per_s"], point.figures["arrivals_per_s"].value
    if not due > 0:
        return math.nan, math.nan, math.nan
    return done.value / due, done.low / due, done.high / due


def _zone(ordered: list[Point], *, proven: list[bool], broken: list[bool], seen: list[bool]) -> Zone:
    """From the bottom up: a claim holds at a load only where it holds at every lower one."""
    loads = [point.value for point in ordered]
    return Zone(
        low=_last(loads, proven),
        high=next((load for load, is_broken in zip(loads, broken, strict=True) if is_broken), None),
        seen=_last(loads, seen),
    )


def _last(loads: list[float], holds: list[bool]) -> float | None:
    found = None
    for load, it_does in zip(loads, holds, strict=True):
        if not it_does:
            break
        found = load
    return found
