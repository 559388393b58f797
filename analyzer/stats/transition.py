"""Where quality breaks: paired tests at each budget, put in order, and what they allow to be said.

`safe` is proven from the top down and stops at the first budget that isn't; losses are proven from the bottom up. Each
is one fixed sequence of one-sided tests, so the chance that any of its claims is false stays at the level of one test,
however many budgets there are. Claims use the same tests as the shown intervals (paired_tests.py): at one-sided alpha/2
a budget is safe exactly when the upper end of its drop's interval is below the margin.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from analyzer.stats.margin import Margin
from analyzer.stats.paired_tests import Units

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Grid:
    """Scores of one experiment: score[run_id] is [n], NaN where an example isn't scored; bin_idx, cluster [n].

    failed[run_id] [n]: requests that failed, which score 0; a run that isn't in it had none. task [n]: of a grid that
    holds several tasks, each example's; its bins are then numbered over all tasks.
    """

    score: dict[str, Floats]
    bin_idx: Ints
    cluster: Ints
    failed: Mapping[str, Bools] = field(default_factory=dict)
    task: Ints | None = None

    def rows(self, bin_idx: int) -> Bools:
        """Which examples belong to a bin; -1: all."""
        return np.ones(len(self.bin_idx), dtype=bool) if bin_idx < 0 else self.bin_idx == bin_idx

    def units(self, value: Floats, kept: Bools) -> Units:
        """Units of value [n] over the examples `kept` [n]; bins, and tasks where there are several, weigh equally."""
        task = None if self.task is None else self.task[kept]
        return Units.of(value[kept], self.cluster[kept], self.bin_idx[kept], task)


@dataclass(frozen=True)
class Judged:
    """Of a relative margin: mean and standard deviation of one unit of what is compared with it (margin.py)."""

    mean: float
    spread: float


@dataclass(frozen=True)
class BudgetTest:
    """One level against full cache in one bin (or all): the paired drop, its interval, and three one-sided p values."""

    budget: float
    run_id: str
    n: int
    n_clusters: int
    drop: float
    drop_low: float
    drop_high: float
    spread: float  # standard deviation of one unit's drop
    n_worse: int
    n_better: int
    p_safe: float
    p_loss: float
    p_broken: float
    p_gain: float = 1.0  # of "the drop is 0 or more"; 1 where no gain was seen
    square: float = 0.0  # mean square of one unit's drop, however it weighs
    kish: float = 0.0  # equally weighted units that the units are worth
    heaviest: float = 1.0  # weight of the heaviest unit; their mean is 1
    hidden: float = 0.0  # Units.hidden at the margin
    judged: Judged | None = None  # what a relative margin is compared with; None: the drop

    @property
    def judged_mean(self) -> float:
        """What the margin is compared with: the drop, or its like under a relative margin."""
        return self.judged.mean if self.judged else self.drop


@dataclass(frozen=True)
class Claims:
    """What one series' tests prove in one bin; None: nothing on that side. `alpha` is the one-sided level used."""

    safe: float | None  # the smallest budget such that it and all above lose less than the margin
    loss: float | None  # the largest budget such that it and all below lose something
    broken: float | None  # the largest budget such that it and all below lose more than the margin
    alpha: float
    n_safe: int = 0
    n_loss: int = 0
    n_broken: int = 0


def pair(grid: Grid, full: str, run_id: str, bin_idx: int) -> tuple[Units, Floats]:
    """Units of full minus run over the examples that both have, and the per-example differences."""
    difference = grid.score[full] - grid.score[run_id]
    paired = grid.rows(bin_idx) & ~np.isnan(difference)
    return grid.units(difference, paired), difference[paired]


def against_full(
    grid: Grid, full: str, run_id: str, budget: float, bin_idx: int, *, margin: float | Margin, alpha: float | None
) -> BudgetTest:
    """All three tests of one level, and its interval unless alpha is None.

    `margin`: a number is in score units. With a relative one the drop, its interval and p_loss stay those of score
    units, p_safe and p_broken are about the share. With no pairs the p values are 1 and the drop is NaN.
    """
    margin = Margin.of(margin)
    difference = grid.score[full] - grid.score[run_id]
    paired = grid.rows(bin_idx) & ~np.isnan(difference)
    units, difference = grid.units(difference, paired), difference[paired]
    low, high = (float("nan"), float("nan")) if alpha is None else units.interval(alpha)
    judged = units
    if margin.is_relative:
        judged = replace(grid.units(margin.judged(grid.score[full], grid.score[run_id]), paired), lowest=margin.lowest)
    return BudgetTest(
        budget=budget,
        run_id=run_id,
        n=len(difference),
        n_clusters=len(units.drop),
        drop=units.mean,
        drop_low=low,
        drop_high=high,
        spread=_spread(units),
        n_worse=int(np.sum(difference > 1e-12)),
        n_better=int(np.sum(difference < -1e-12)),
        p_safe=max(
            evidence.p_drop_at_least(margin.size) for evidence in safety_units(grid, full, run_id, bin_idx, margin)
        ),
        p_loss=units.p_drop_at_most(0.0),
        p_broken=judged.p_drop_at_most(margin.size),
        p_gain=units.p_drop_at_least(0.0) if units.mean < 0 else 1.0,
        square=float(np.mean(units.drop**2)) if len(units.drop) else float("nan"),
        kish=units.kish,
        heaviest=float(units.weight.max()) if len(units.drop) else 1.0,
        hidden=units.hidden(margin.size, grid.units(grid.score[full], paired).drop if margin.is_relative else 1.0),
        judged=Judged(judged.mean, _spread(judged)) if margin.is_relative else None,
    )


def safety_units(grid: Grid, full: str, run_id: str, bin_idx: int, margin: Margin) -> list[Units]:
    """What a proof of safety has to stand: the mean of each must be below the margin; all must be, so none is adjusted.

    A pair that lacks one outcome counts as lost (lacking both, it isn't there): what is slow to end may be what was
    lost. Requests that failed at full cache score 0 there, so a budget gains by answering them: where there are any,
    the drop over the other pairs has to be below the margin as well.
    """
    score, own = grid.score[full], grid.score[run_id]
    comparable = grid.rows(bin_idx) & ~(np.isnan(score) & np.isnan(own))
    judged = margin.judged(np.where(np.isnan(score), 1.0, score), np.where(np.isnan(own), 0.0, own))
    everything = grid.units(judged, comparable)
    failed = grid.failed.get(full)
    if failed is None or not (failed & comparable).any():
        return [everything]
    return [everything, grid.units(judged, comparable & ~failed)]


def _spread(units: Units) -> float:
    return float(np.std(units.drop * units.weight)) if len(units.drop) else float("nan")


def claims(tests: Sequence[BudgetTest], alpha: float) -> Claims:
    """Fixed sequences over one series' tests, given from the highest budget down, each at one-sided `alpha`."""
    falling = sorted(tests, key=lambda t: -t.budget)
    rising = falling[::-1]
    safe, n_safe = _while_proven([(t.budget, t.p_safe) for t in falling], alpha)
    loss, n_loss = _while_proven([(t.budget, t.p_loss) for t in rising], alpha)
    broken, n_broken = _while_proven([(t.budget, t.p_broken) for t in rising], alpha)
    return Claims(safe, loss, broken, alpha, n_safe, n_loss, n_broken)


def without_safe(done: Claims) -> Claims:
    """The same, where nothing can be called safe: what is lost is still lost."""
    return replace(done, safe=None, n_safe=0)


def holm_claims(series: dict[str, Sequence[BudgetTest]], alpha: float) -> dict[str, Claims]:
    """Claims of several series together, each kind at familywise one-sided `alpha`: Holm over whole sequences.

    Every series starts with an equal share; the share of one whose sequence is proven to its end goes to the others
    (Bretz et al. 2009). Kinds (safe, loss, broken) are separate families, as for a single series.
    """
    adjusted = {}
    by_kind = {kind: _holm_alphas(series, alpha, kind) for kind in ("n_safe", "n_loss", "n_broken")}
    for name, tests in series.items():
        at = {kind: claims(tests, by_kind[kind][name]) for kind in by_kind}
        adjusted[name] = replace(
            at["n_safe"],
            loss=at["n_loss"].loss,
            n_loss=at["n_loss"].n_loss,
            broken=at["n_broken"].broken,
            n_broken=at["n_broken"].n_broken,
            alpha=alpha / len(series),
        )
    return adjusted


_WORST_CASE = 2.4  # units that the imagined one and skewness cost, in units of its weight, whatever their number


def pairs_needed(tests: Sequence[BudgetTest], done: Claims, *, margin: float, power: float = 0.8) -> int | None:
    """Pairs that would settle the first budget not proven safe with a chance of `power`, were the drop seen true.

    For "less than the margin" where the drop seen is below it; else for "more than the margin", told only where a loss
    is proven at all: a few pairs often show a drop where there is none. None too where the drop seen lies within a
    fifth of the margin from it, or as many pairs as there are should have been enough: the answer would be a guess.
    """
    open_tests = sorted(tests, key=lambda t: -t.budget)[done.n_safe : len(tests) - done.n_broken]
    if not open_tests or not open_tests[0].n:
        return None
    test = open_tests[0]
    if test.judged_mean >= margin and test.p_loss > done.alpha:
        return None
    return more_pairs(test, done.alpha, margin=margin, power=power)


def more_pairs(test: BudgetTest, alpha: float, *, margin: float, power: float = 0.8) -> int | None:
    """The forecast where it is more than there are and the drop seen isn't within a fifth of the margin from it."""
    if not test.n or abs(margin - test.judged_mean) < 0.2 * margin:
        return None
    pairs = forecast(test, alpha, margin=margin, power=power)
    return pairs if pairs > test.n else None


def forecast(test: BudgetTest, alpha: float, *, margin: float, power: float = 0.8) -> int:
    """Pairs that prove the claim that the drop seen speaks for, at one-sided `alpha`, with a chance of `power`.

    `margin`: the size that the test was made at. Every bin grows alike and contexts keep their number of questions.
    For "less than the margin" never fewer than prove it without any loss.
    """
    k, mean, seen_spread = test.n_clusters, test.judged_mean, test.judged.spread if test.judged else test.spread
    distance = abs(margin - mean)
    z = NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(power)
    # Half a unit more each way, since a few pairs without a flip are no proof of none; and what unequal weights add.
    seen = ((seen_spread**2 + mean**2) * k + 1) / (k + 1) - mean**2
    spread = math.sqrt(max(0.0, seen) + (k / test.kish - 1) * distance**2)
    cost = 4 * distance * _WORST_CASE * test.heaviest
    units = ((z * spread + math.sqrt((z * spread) ** 2 + cost)) / (2 * distance)) ** 2
    least = -math.log(alpha) / test.hidden * k if mean < margin and test.hidden else 0.0
    return math.ceil(max(units, least) * test.n / k - 1e-9)


@dataclass(frozen=True)
class Step:
    """The step rule (docs/STATISTICS.md): the first budget whose mean falls by a threshold against the one above."""

    pre_budget: float
    transition_budget: float
    acc_pre: float
    acc_post: float

    @property
    def drop(self) -> float:
        return self.acc_pre - self.acc_post


def step_drop(curve: Sequence[tuple[float, float]], threshold: float) -> Step | None:
    """First step >= threshold of (budget, mean) pairs, from full cache down. Point means only: never the headline."""
    for (above, acc_above), (below, acc_below) in pairwise(sorted(curve, key=lambda point: -point[0])):
        if acc_above - acc_below >= threshold - 1e-12:
            return Step(above, below, acc_above, acc_below)
    return None


def _holm_alphas(series: dict[str, Sequence[BudgetTest]], alpha: float, kind: str) -> dict[str, float]:
    finished: set[str] = set()
    while True:
        share = alpha / max(1, len(series) - len(finished))
        newly = {
            name
            for name, tests in series.items()
            if name not in finished and getattr(claims(tests, share), kind) == len(tests)
        }
        if not newly or len(finished | newly) == len(series):
            return dict.fromkeys(series, share)
        finished |= newly


def _while_proven(sequence: Sequence[tuple[float, float]], alpha: float) -> tuple[float | None, int]:
    """The last budget of the proven beginning of a sequence, and its length."""
    last, count = None, 0
    for budget, p in sequence:
        if not p <= alpha:
            break
        last, count = budget, count + 1
    return last, count
