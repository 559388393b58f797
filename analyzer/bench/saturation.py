"""Where more load stops giving more: the knee of a ladder, and the highest rate that keeps the objectives.

Both are told as the transition zone of a budget is: proven up to here, proven broken from there, open in between. What
is said of a whole ladder is false in at most 2.5% of ladders: each comparison is made at its share of that.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from analyzer.bench.points import Point, rate_of
from analyzer.bench.slo import MET, MISSED
from analyzer.bench.spread import rate_over_repeats
from kvt_async.contract.throughput import FALSE_LADDERS, Rate, growth_bounds

SUSTAINED_SHARE = 0.95  # of what arrived
PLATEAU_SHARE = 0.95  # of the output that any higher load gave
LEAST_SLOWING = 0.5  # on a plateau output grows by less than this power of the load
LEAST_SPAN = 1.25  # of loads, for a plateau to be seen over


@dataclass(frozen=True, slots=True)
class Zone:
    """`low`: the highest load that is proven to lie on the near side; `high`: the lowest proven to lie beyond.

    `seen`: the answer by the point estimates alone. None: no load that was tried.
    """

    low: float | None
    high: float | None
    seen: float | None


def knee(ladder: Sequence[Point]) -> Zone | None:
    """Of one level's loads; None for fewer than two. Loads whose rates can't be told prove nothing.

    Open loop: a rate is sustained when requests come out as fast as they go in; proven when the share lies above 95%,
    proven not when it lies below. `seen`: the highest sustained rate.
    Closed loop: the plateau begins at the lowest load of which it is proven that no higher one gave 5% more output, nor
    grew by half of what the load did. `high` and `seen` are that load, None where none is proven; `low` is the highest
    load that is proven to be short: a higher one gave over 5% more.
    """
    ordered = sorted(ladder, key=lambda point: point.value)
    if len(ordered) < 2:
        return None
    if ordered[0].loop == "open":
        shares, level = [kept_up(point) for point in ordered], 1 - FALSE_LADDERS / len(ordered)
        return _zone(
            ordered,
            proven=[share.bound(1 - level) >= SUSTAINED_SHARE for share in shares],
            broken=[share.bound(level) < SUSTAINED_SHARE for share in shares],
            seen=[share.value >= SUSTAINED_SHARE for share in shares],
        )
    return plateau([(point.value, rate_of("output_tokens_per_s", point.results)) for point in ordered])


def plateau(ladder: Sequence[tuple[float, Rate]]) -> Zone:
    """The knee of a closed loop: (requests in flight, output per second) from the lowest load up."""
    known = [(load, rate) for load, rate in ladder if rate.value > 0]
    n = len(known)
    top = known[-1][0] if known else 0.0
    level, pairs = 1 - FALSE_LADDERS / max(n - 1, 1), 1 - FALSE_LADDERS / max(n * (n - 1) // 2, 1)

    def flat(i: int) -> bool:
        load, rate = known[i]
        for higher, more in known[i + 1 :]:
            most = min(-math.log(PLATEAU_SHARE), LEAST_SLOWING * math.log(higher / load))
            if growth_bounds(rate, more, level)[1] > most:
                return False
        return top >= LEAST_SPAN * load

    begins = next((known[i][0] for i in range(n) if flat(i)), None)
    short = [
        load for i, (load, rate) in enumerate(known) if (begins is None or load < begins)
        and any(growth_bounds(rate, more, pairs)[0] > -math.log(PLATEAU_SHARE) for _, more in known[i + 1 :])
    ]  # fmt: skip
    return Zone(max(short, default=None), begins, begins)


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


def kept_up(point: Point) -> Rate:
    """Share of the arrivals that came out answered, as fast as they went in; NaN where it can't be told."""
    return rate_over_repeats([result.rates.kept_up for result in point.results])


def sustained(point: Point) -> tuple[float, float, float]:
    """(share, low, high): completed over arrived per second, 95%."""
    share = kept_up(point)
    return share.value, *share.interval(2 * FALSE_LADDERS)


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
