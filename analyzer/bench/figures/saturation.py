"""Where more load stops giving more: the knee of a ladder, and the highest rate that keeps the objectives.

Both are told as the transition zone of a budget is: proven up to here, proven broken from there, open in between. What
is said of a whole ladder is false in at most 2.5% of ladders: loads are tested in a fixed order, each at that level,
until one test fails (a fixed sequence keeps the level of a single test).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from analyzer.bench.figures.points import Point, rate_of
from analyzer.bench.figures.slo import MET, MISSED
from analyzer.bench.figures.spread import rate_over_repeats
from kvt_async.contract.formulas.throughput import FALSE_LADDERS, Rate, growth_bounds

SUSTAINED_SHARE = 0.95  # of what arrived
PLATEAU_SHARE = 0.95  # of the output that any higher load gave
LEAST_SLOWING = 0.5  # on a plateau output grows by less than this power of the load
LEAST_SPAN = 1.25  # of loads, for a plateau to be seen over


@dataclass(frozen=True, slots=True)
class LoadZone:
    """`low`: the highest load that is proven to lie on the near side; `high`: the lowest proven to lie beyond.

    `seen`: the answer by the point estimates alone. None: no load that was tried.
    """

    low: float | None
    high: float | None
    seen: float | None


def knee(ladder: Sequence[Point]) -> LoadZone | None:
    """The knee of one level's loads; None for fewer than two. Loads whose rates can't be told prove nothing.

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
        return keeping_up([(point.value, kept_up(point)) for point in ordered])
    return plateau([(point.value, rate_of("output_tokens_per_s", point.results)) for point in ordered])


def keeping_up(ladder: Sequence[tuple[float, Rate]]) -> LoadZone:
    """The knee of an open loop: (arrivals per second, share kept up with) from the lowest load up.

    Kept up with is proven from the lowest load up, fallen behind from the highest down; a load of which nothing can be
    told proves neither, and is passed over on the way down.
    """
    loads = [load for load, _ in ladder]
    behind = None
    for load, share in reversed([(load, share) for load, share in ladder if not math.isnan(share.value)]):
        if not share.bound(1 - FALSE_LADDERS) < SUSTAINED_SHARE:
            break
        behind = load
    return LoadZone(
        low=_last(loads, [share.bound(FALSE_LADDERS) >= SUSTAINED_SHARE for _, share in ladder]),
        high=behind,
        seen=_last(loads, [share.value >= SUSTAINED_SHARE for _, share in ladder]),
    )


def plateau(ladder: Sequence[tuple[float, Rate]]) -> LoadZone:
    """The knee of a closed loop: (requests in flight, output per second) from the lowest load up."""
    rated = [(load, rate) for load, rate in ladder if rate.value > 0]
    n = len(rated)
    begins = None
    for i in reversed(range(n - 1)):
        load, rate = rated[i]
        if not all(_flat(load, rate, higher, more) for higher, more in rated[i + 1 :]):
            break
        begins = load if rated[-1][0] >= LEAST_SPAN * load else begins
    level = 1 - FALSE_LADDERS / max(n * (n - 1) // 2, 1)
    short = [
        load
        for i, (load, rate) in enumerate(rated)
        if (begins is None or load < begins)
        and any(growth_bounds(rate, more, level)[0] > -math.log(PLATEAU_SHARE) for _, more in rated[i + 1 :])
    ]
    return LoadZone(max(short, default=None), begins, begins)


def _flat(load: float, rate: Rate, higher: float, more: Rate) -> bool:
    """Whether it is proven that the higher load gave less than 5% more, or grew by less than half of what the load
    did."""
    most = min(-math.log(PLATEAU_SHARE), LEAST_SLOWING * math.log(higher / load))
    return growth_bounds(rate, more, 1 - FALSE_LADDERS)[1] <= most


def highest_within(ladder: Sequence[Point]) -> LoadZone | None:
    """The highest load that keeps every objective of bench.slo; None without objectives.

    `low`: every load up to it is proven to; `high`: the lowest that is proven not to.
    """
    ordered = sorted(ladder, key=lambda point: point.value)
    if not ordered or not ordered[0].findings:
        return None
    return _zone(
        [point.value for point in ordered],
        proven=[all(finding.verdict == MET for finding in point.findings) for point in ordered],
        broken=[any(finding.verdict == MISSED for finding in point.findings) for point in ordered],
        seen=[all(finding.holds for finding in point.findings) for point in ordered],
    )


def kept_up(point: Point) -> Rate:
    """Share of the arrivals that came out answered, as fast as they went in, of the repeats in which it can be told;
    NaN where it can be told in none. Unlike a rate it does not depend on how many requests fell into a repeat."""
    shares = [result.rates.kept_up for result in point.results if result.rates.reason is None]
    return rate_over_repeats(shares)


def sustained(point: Point) -> tuple[float, float, float]:
    """(share, low, high): completed over arrived per second, 95%."""
    share = kept_up(point)
    return share.value, *share.interval(2 * FALSE_LADDERS)


def _zone(loads: list[float], *, proven: list[bool], broken: list[bool], seen: list[bool]) -> LoadZone:
    """The zone from the lowest load up: a claim holds at a load only where it holds at every lower one."""
    return LoadZone(
        low=_last(loads, proven),
        high=next((load for load, is_broken in zip(loads, broken, strict=True) if is_broken), None),
        seen=_last(loads, seen),
    )


def _last(loads: list[float], holds: list[bool]) -> float | None:
    last = None
    for load, it_does in zip(loads, holds, strict=True):
        if not it_does:
            break
        last = load
    return last
