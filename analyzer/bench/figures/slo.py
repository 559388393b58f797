"""Objectives: is p99 of TTFT proven to be within 500 ms, proven not to be, or can nobody tell from so few requests?

A percentile objective holds exactly when at most that share of the requests is beyond the limit, and those that are
beyond can be counted: an exact binomial test, with failures and replies without a token beyond every limit. Replies
that were answered and do not show the metric (all tokens in one read: no TPOT) may lie on either side: an objective is
met only if it would be with all of them beyond, missed only if it would be with all of them within. A mean or maximum
is compared by its interval.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analyzer.bench.figures.distributions import binomial_cdf, binomial_sf
from analyzer.bench.figures.quantiles import LEVELS
from analyzer.bench.figures.spread import t_interval
from kvt_async.contract.bench_settings import slo_parts
from kvt_async.contract.formulas.quantile import quantile

Floats = npt.NDArray[np.float64]
MET, MISSED, OPEN = "met", "missed", "cannot tell"


@dataclass(frozen=True, slots=True)
class Objective:
    """`name` as in bench.slo; `limit_s` in seconds."""

    name: str
    metric: str
    stat: str
    limit_s: float

    @classmethod
    def of(cls, name: str, limit: float) -> "Objective":
        metric, stat, per_second = slo_parts(name)
        return cls(name, metric, stat, limit / per_second)


@dataclass(frozen=True, slots=True)
class Finding:
    """`verdict`: met | missed | cannot tell, proven at alpha/2 a side; `value_s` is what was seen, failures as +inf.

    `n` requests were judged, `n_beyond` of them beyond the limit; `n_unknown` more do not show the metric.
    """

    objective: Objective
    value_s: float
    verdict: str
    n: int
    n_beyond: int
    n_needed: int | None  # requests, at this share beyond, after which `met` could be proven; None: no number helps
    n_unknown: int = 0
    n_lost: int = 0  # of those beyond: failed, or answered without a token

    @property
    def holds(self) -> bool:
        """Whether the objective holds by the point estimate alone."""
        return self.value_s <= self.objective.limit_s


def judge(
    objective: Objective, values: Floats, n_failed: int, alpha: float, units: int | None = None, n_unknown: int = 0
) -> Finding:
    """`values` in seconds of the requests that were answered and have the metric; ITL: of their gaps. `n_failed`:
    failures and replies without a token; `n_unknown`: replies that do not show the metric.

    `units`: how many independent observations the values are worth, where that is fewer than there are: the gaps of
    one reply aren't independent, so ITL is tested as if each reply had one.
    """
    values = values[~np.isnan(values)]
    if units is not None and len(values) > units:
        share = float((values > objective.limit_s).mean())
        n, beyond = units + n_failed, math.ceil(share * units) + n_failed
    else:
        n, beyond = len(values) + n_failed, int((values > objective.limit_s).sum()) + n_failed
    seen = np.concatenate((values, np.full(n_failed, math.inf)))
    if n == 0:
        more = None if n_unknown else needed(objective, 0, 0, alpha)  # requests like these would tell nothing either
        return Finding(objective, math.nan, OPEN, 0, 0, more, n_unknown)
    if objective.stat in LEVELS:
        allowed, every = 1 - LEVELS[objective.stat], n + n_unknown
        value = quantile(np.sort(seen), LEVELS[objective.stat])
        if binomial_cdf(beyond + n_unknown, every, allowed) <= alpha / 2:
            verdict = MET
        elif binomial_sf(beyond - 1, every, allowed) <= alpha / 2:
            verdict = MISSED
        else:
            verdict = OPEN
        more = needed(objective, beyond + n_unknown, every, alpha)
        return Finding(objective, value, verdict, n, beyond, more, n_unknown, n_failed)
    value = float(seen.max() if objective.stat == "max" else seen.mean())
    if objective.stat == "max":  # of what was seen: no sample proves that nothing worse ever happens
        return Finding(
            objective, value, MISSED if value > objective.limit_s else OPEN, n, beyond, None, n_unknown, n_failed
        )
    low, high = t_interval(seen, alpha) if n_failed == 0 else (math.inf, math.inf)
    verdict = MET if high <= objective.limit_s else MISSED if low > objective.limit_s else OPEN
    return Finding(objective, value, OPEN if n_unknown else verdict, n, beyond, None, n_unknown, n_failed)


def needed(objective: Objective, beyond: int, n: int, alpha: float) -> int | None:
    """Requests with which the objective would be proven if the same share stayed beyond; None: that share is too big.

    p99 without a single request beyond it needs 368.
    """
    if objective.stat not in LEVELS:
        return None
    allowed, share = 1 - LEVELS[objective.stat], beyond / n if n else 0.0
    return None if share >= allowed else requests_to_tell(allowed, share, alpha)


def requests_to_tell(allowed: float, share: float, alpha: float) -> int | None:
    """Requests with which it would be proven on which side of `allowed` the share of all of them lies, if `share` of
    them stayed beyond; None where no number would (they are equal, or more than 4 million are needed)."""

    def proves(count: int) -> bool:
        if share < allowed:
            return binomial_cdf(math.floor(share * count), count, allowed) <= alpha / 2
        return binomial_sf(math.ceil(share * count) - 1, count, allowed) <= alpha / 2

    high = 1
    while not proves(high):  # doubling first: one probe costs as much as it has requests
        high *= 2
        if high > 1 << 22:
            return None
    low = high // 2 + 1
    while low < high:
        middle = (low + high) // 2
        if proves(middle):
            high = middle
        else:
            low = middle + 1
    return low


def good(
    columns: Mapping[str, Floats], objectives: Sequence[Objective], one_token: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Which of n requests keep every limit each for itself (goodput's sense); one that lacks a metric doesn't.

    `columns`: by metric, [n] seconds; `one_token` [n]: a reply of one token has no TPOT and no ITL and can't miss them.
    """
    result = np.ones(len(one_token), dtype=bool)
    for objective in objectives:
        kept = columns[objective.metric] <= objective.limit_s
        result &= kept | one_token if objective.metric in ("tpot", "itl") else kept
    return result
