"""What else changes with the budget than the score: how long answers are, how many are cut off, are empty, repeat
themselves or can't be read, where their texts part from full cache's, and how long they took.

An example's n-th answer here is compared with its n-th at full cache, where both came and both are known. The mean over
an example's answers is one value, and the contexts are the independent units, as for every loss (paired_tests.py): a
share has the exact bound of the paired tests, a ratio of lengths that of length_ratio.py.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from analyzer.stats.holm import holm
from analyzer.stats.length_ratio import length_ratio
from analyzer.stats.paired_tests import Units, equal_shares, weighted_exponentials_positive
from kvt_async.contract.vocabulary import CALL_FAULTS, PART, TIMES, Measure

Floats = npt.NDArray[np.float64]
Small = npt.NDArray[np.float32]  # a value an answer: whole numbers below 16 million, seconds; NaN: not known
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SHARES = (Measure.CUT_OFF, Measure.EMPTY, Measure.REPETITION, Measure.FORMAT_ERROR)
"""What a share of the answers is, here and at full cache. Of a task of tool calls CALL_FAULTS are such shares too."""


@dataclass(frozen=True)
class AnswerTraits:
    """Of one run, by measure: value [n, k] of the k answers to each of n examples; NaN where it isn't known.

    completion_tokens is a number of tokens, first_divergence one of characters (NaN where the text is the same), TIMES
    are seconds, the others are 0 or 1.
    """

    of: Mapping[Measure, Small]
    parts: Mapping[str, Small] = field(default_factory=dict)  # what a score is made of, by name, in [0, 1]


@dataclass(frozen=True)
class EntryLayout:
    """Of n examples: cluster [n] numbers their contexts, bin_idx [n] their bins, which weigh equally."""

    cluster: Ints
    bin_idx: Ints


@dataclass(frozen=True)
class Change:
    """A row of `outcome_changes` without its level: see there. `p`: two-sided, of no change; None: not tested."""

    measure: str
    n: int
    full: float | None
    here: float | None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None


def changes(
    full: AnswerTraits, here: AnswerTraits, repeats: Sequence[AnswerTraits], layout: EntryLayout, alpha: float
) -> list[Change]:
    """Every measure that is known of a pair. `repeats`: those of full cache that texts are compared beside; without one
    nothing stands at full cache for `identical` and `first_divergence`, and they are not to be shown."""
    rows = [_tokens(full, here, layout, alpha)]
    shares = [*SHARES, *(fault for fault in CALL_FAULTS if fault in full.of and fault in here.of)]
    rows += [_share(measure, full.of[measure], here.of[measure], layout, alpha) for measure in shares]
    rows += [_identical(here, repeats, layout, alpha), _divergence(here, repeats, layout, alpha)]
    rows += [_time(time, full.of[time], here.of[time], layout, alpha) for time in TIMES if time in full.of]
    both = [name for name in full.parts if name in here.parts]
    rows += [_share(PART + name, full.parts[name], here.parts[name], layout, alpha) for name in both]
    return [row for row in rows if row.n]


def adjusted(rows: Iterable[Change]) -> list[float | None]:
    """p values after Holm, over all that were tested: the family that sentences are said of; None stays None. The parts
    of scores are a family of their own: there may be dozens, and what else changes is not to be tested against them."""
    given = [(row.p, row.measure.startswith(PART)) for row in rows]
    families = {
        is_part: iter(holm([p for p, of_part in given if p is not None and of_part == is_part]))
        for is_part in (False, True)
    }
    return [None if p is None else next(families[is_part]) for p, is_part in given]


def paired(full: Small, here: Small) -> tuple[Floats, Floats, Bools, int]:
    """Means over the answers that both have, at full cache [m] and here [m], of the m examples that have any (their
    rows: [n]), and the number of pairs of answers."""
    k = min(full.shape[1], here.shape[1])
    full, here = full[:, :k], here[:, :k]
    both = ~(np.isnan(full) | np.isnan(here))
    count = both.sum(axis=1)
    rows = count > 0
    sums = [np.where(both, each, 0).sum(axis=1, dtype=np.float64) for each in (full, here)]
    return sums[0][rows] / count[rows], sums[1][rows] / count[rows], rows, int(count.sum())


def _tokens(full: AnswerTraits, here: AnswerTraits, layout: EntryLayout, alpha: float) -> Change:
    at_full, at_here, rows, n = paired(full.of[Measure.TOKENS], here.of[Measure.TOKENS])
    if not n:
        return Change(Measure.TOKENS, 0, None, None)
    seen = length_ratio(at_full, at_here, layout.cluster[rows], equal_shares(layout.bin_idx[rows]), alpha)
    return Change(Measure.TOKENS, n, seen.full, seen.here, seen.ratio, seen.low, seen.high, seen.p)


def _share(measure: str, full: Small, here: Small, layout: EntryLayout, alpha: float) -> Change:
    at_full, at_here, rows, n = paired(full, here)
    if not n:
        return Change(measure, 0, None, None)
    weight = equal_shares(layout.bin_idx[rows])
    units = Units.weighted(at_here - at_full, layout.cluster[rows], weight)
    low, high = units.interval(alpha)
    # Where no pair changed its p value is 1 whatever is true: it takes no part in the adjustment (Tarone 1990).
    p = min(1.0, 2 * min(units.p_drop_at_most(0.0), units.p_drop_at_least(0.0))) if (at_here != at_full).any() else None
    return Change(measure, n, float(weight @ at_full), float(weight @ at_here), units.mean, low, high, p)


def _identical(here: AnswerTraits, repeats: Sequence[AnswerTraits], layout: EntryLayout, alpha: float) -> Change:
    """Share of texts that are full cache's, beside the same share of its repeats (their mean)."""
    own = here.of[Measure.IDENTICAL]
    beside = _mean_of([repeat.of[Measure.IDENTICAL] for repeat in repeats])
    if beside is not None:
        row = _share(Measure.IDENTICAL, beside, own, layout, alpha)
        if row.n:
            return row
    share, _, rows, n = paired(own, own)
    return Change(Measure.IDENTICAL, n, None, float(equal_shares(layout.bin_idx[rows]) @ share) if n else None)


def _divergence(here: AnswerTraits, repeats: Sequence[AnswerTraits], layout: EntryLayout, alpha: float) -> Change:
    """Median character at which texts that aren't full cache's part from it, with its interval."""
    parted, cluster = _places([here], layout)
    if not len(parted):
        return Change(Measure.DIVERGENCE, 0, None, None)
    beside, _ = _places(repeats, layout)
    low, high = median_interval(parted, cluster, alpha)
    at_full = float(np.median(beside)) if len(beside) else None
    return Change(Measure.DIVERGENCE, len(parted), at_full, float(np.median(parted)), None, low, high)


def _time(measure: Measure, full: Small, here: Small, layout: EntryLayout, alpha: float) -> Change:
    """Medians of a time, and the median of its ratio request by request, with an interval that asks nothing of how
    times are distributed. It is about other examples served as these were: what the machine did meanwhile is in the
    ratio, and shows in the same row of full cache's repeats."""
    at_full, at_here, rows, n = paired(full, here)
    ran = at_full > 0
    if not ran.any():
        return Change(measure, 0, None, None)
    ratio = at_here[ran] / at_full[ran]
    low, high = median_interval(ratio, layout.cluster[rows][ran], alpha)
    medians = float(np.median(at_full[ran])), float(np.median(at_here[ran]))
    return Change(measure, n, *medians, float(np.median(ratio)), low, high)


@lru_cache(maxsize=256)
def _fewest(n: int, alpha: float) -> int:
    """Of n values, one a context: the fewest of which it isn't proven that they are less than half of all."""

    def half(count: int) -> bool:
        p = weighted_exponentials_positive(np.array([1.0, -1.0]), np.array([count + 1.0, float(n - count)]))
        return p > alpha / 2

    return bisect_left(range(n + 1), True, key=half)


def median_interval(value: Floats, cluster: Ints, alpha: float) -> tuple[float | None, float | None]:
    """Of the median of places [m] in contexts [m]: from the first to the last of which it isn't proven that fewer than
    half lie at or below, or at or above it (Woodruff 1952, with the bound of the paired tests). (None, None) where so
    few can't even prove that half of all don't lie beyond the last.
    """
    if int(np.bincount(cluster).max()) == 1:  # then numbers decide
        fewest = _fewest(len(value), alpha)
        ordered = np.sort(value)
        return (float(ordered[fewest - 1]), float(ordered[len(value) - fewest])) if fewest else (None, None)
    order, even = np.unique(value), np.full(len(value), 1 / len(value))

    def half(rows: Bools) -> bool:
        """Whether "half or more are among these" can't be rejected."""
        return Units.weighted(np.where(rows, 1.0, -1.0), cluster, even).p_drop_at_least(0.0) > alpha / 2

    if half(np.zeros(len(value), dtype=bool)):
        return None, None
    first = bisect_left(range(len(order)), True, key=lambda i: half(value <= order[i]))
    last = bisect_left(range(len(order)), True, key=lambda i: half(value >= order[len(order) - 1 - i]))
    return float(order[first]), float(order[len(order) - 1 - last])


def _places(runs: Sequence[AnswerTraits], layout: EntryLayout) -> tuple[Floats, Ints]:
    """Where texts part, of all answers whose texts do, and their contexts."""
    value, cluster = [np.empty(0)], [np.empty(0, dtype=np.int64)]
    for run in runs:
        entry, sample = np.nonzero(~np.isnan(run.of[Measure.DIVERGENCE]))
        value.append(run.of[Measure.DIVERGENCE][entry, sample].astype(np.float64))
        cluster.append(layout.cluster[entry])
    return np.concatenate(value), np.concatenate(cluster)


def _mean_of(arms: Sequence[Small]) -> Small | None:
    """The mean of several runs' values [n, k], of those that are known; None without a run."""
    if not arms:
        return None
    k = min(arm.shape[1] for arm in arms)
    values = np.stack([arm[:, :k] for arm in arms])
    known = (~np.isnan(values)).sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(values, axis=0) / known, dtype=np.float32)
