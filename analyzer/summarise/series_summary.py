"""One series -> its rows: budget_stats, transition_summary, and what several bins say together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from analyzer.stats.bootstrap import percentile_interval
from analyzer.stats.half_loss import half_loss, monotone, zone_spread
from analyzer.stats.noise import Noise
from analyzer.stats.transition import BudgetTest, Claims, pairs_needed, step_drop
from analyzer.summarise.bin_stats import ALL_BINS
from analyzer.summarise.guessing_floor import Headroom
from analyzer.summarise.verdicts import verdict, zone
from kvt_async.contract.vocabulary import SeriesVerdict, Unit

Floats = npt.NDArray[np.float64]

FEWEST_CONTEXTS = 10  # of a bin: with fewer, intervals of the half-loss budget cover as little as 78% (half_losses)
SURE = 0.975  # share of resamples in which bins lie closer in one than in the other
AGREE = 0.2  # and at least this share in which they agree in it; a truth between the two leaves a gap in both
_NOTHING = 1e-9  # kept where the level isn't reached at any budget tested: it lies somewhere down to here
# Full cache on the budget axis, where it isn't 1.0 (fraction) or the prompt itself (tokens).
TOP: dict[str, float] = {Unit.BITS: 16.0}


@dataclass
class SeriesBin:
    """One series in one bin: everything its verdict is made of. Lists run from the highest budget down."""

    series: str
    bin_idx: int
    unit: str
    role: str
    tests: list[BudgetTest]
    claims: Claims
    acc_full: float | None
    acc: list[float]
    kept: list[float | None]  # median kept tokens at each budget
    kept_full: float | None  # median prompt tokens
    replicates: Floats  # [resamples, 1 + budgets], full cache first; no columns without a baseline
    noise: Noise | None
    contexts: int | None = None  # in the length bin that has fewest; None: this is one bin, and its tests know
    headroom: Headroom | None = None  # None: not known, and then accuracy above the margin is all that is asked
    headroom_level: float = 0.025
    notes: list[str] = field(default_factory=list)

    @property
    def budgets(self) -> list[float]:
        return [test.budget for test in self.tests]

    @property
    def axis(self) -> Floats:
        """Budgets with full cache first."""
        top = TOP.get(self.unit, 1.0)
        if self.unit == Unit.TOKENS:
            top = self.kept_full or 2 * max(self.budgets, default=1.0)
        return np.array([max(top, *self.budgets) if self.budgets else top, *self.budgets])

    @property
    def total_loss_proven(self) -> bool:
        return bool(self.tests) and self.tests[-1].p_loss <= self.claims.alpha

    @property
    def has_something_to_lose(self) -> bool:
        return self.headroom is None or self.headroom.shown(self.headroom_level)

    @property
    def resampled(self) -> bool:
        """Whether resamples show what other examples would: not with a handful of contexts in a length bin."""
        return self.fewest >= FEWEST_CONTEXTS

    @property
    def fewest(self) -> int:
        """Contexts in the length bin that has fewest."""
        return self.contexts if self.contexts is not None else min((t.n_clusters for t in self.tests), default=0)

    def half_loss(self) -> tuple[float, Floats]:
        """Half-loss budget of the means and of every resample; NaN where there is no loss."""
        point = half_loss(np.array([[self.acc_full, *self.acc]], dtype=np.float64), self.axis)
        return float(point[0]), half_loss(self.replicates, self.axis)

    def kept_at(self, budget: Floats) -> Floats:
        """Kept tokens at budgets between those measured, linear; NaN without evidence."""
        kept = [self.kept_full, *self.kept]
        if any(k is None for k in kept):
            return np.full(np.shape(budget), np.nan)
        order = np.argsort(self.axis)
        return np.asarray(np.interp(budget, self.axis[order], np.array(kept, dtype=np.float64)[order]))


def summary_row(
    this: SeriesBin, *, margin: float, alpha: float, drop_threshold: float, bin_means: Mapping[int, "SeriesBin"]
) -> dict[str, Any]:
    """A transition_summary row without keys of the group, evidence, partial, method, sentence and fingerprint."""
    needed = pairs_needed(this.tests, this.claims, margin=margin) if this.has_something_to_lose else None
    floor = None if this.has_something_to_lose else this.headroom
    word = verdict(this.tests, this.claims, acc_full=this.acc_full, margin=margin, floor=floor)
    settled = zone(this.claims, this.unit)
    row: dict[str, Any] = {
        "series": this.series,
        "bin_idx": this.bin_idx,
        "n": min((test.n for test in this.tests), default=0),
        "acc_full": this.acc_full,
        "safe_budget": settled.high,
        "collapse_budget": this.claims.loss,
        "collapse_margin_budget": settled.low,
        "zone_low": settled.low,
        "zone_high": settled.high,
        "verdict": word,
        "n_needed": needed if word in (SeriesVerdict.CANNOT_TELL, SeriesVerdict.TRANSITION) else None,
        "role": this.role,
    }
    if word == SeriesVerdict.NO_BASELINE:
        row |= dict.fromkeys(("safe_budget", "zone_high"))
    row |= _half_loss_columns(this, alpha)
    row |= _token_columns(this, row)
    row |= _step_columns(this, drop_threshold, bin_means)
    detail: dict[str, Any] = {"level": this.claims.alpha, "notes": this.notes}
    if this.acc_full is not None and this.tests and this.resampled:
        detail["spread"] = zone_spread(this.replicates, this.axis, margin)
    if row["n_needed"] is not None:  # for the first budget not proven safe: which of the two claims it would settle
        first = this.tests[this.claims.n_safe]
        claim = "safe" if first.drop < margin else "beyond"
        detail["needed"] = {"budget": first.budget, "claim": claim, "drop": round(first.drop, 9)}
    if this.headroom is not None:
        detail["floor"] = this.headroom.as_json | {"shown": this.has_something_to_lose}
    if this.noise:
        detail["noise"] = {
            "repeats": this.noise.repeats,
            "n": this.noise.n,
            "flips": this.noise.flips,
            "drop": round(this.noise.drop, 9),
        }
    return row | {"zone_json": detail}


def cliff(bins: Sequence[SeriesBin], margin: float = 0.0) -> dict[str, Any] | None:
    """Does quality break at the same number of kept tokens in every bin, or at the same fraction of the prompt?

    Each bin's curve loses a given share of its own full cache between two of the budgets tested; nothing was measured
    between them, so that bracket is all that is known of the place. Brackets that have a point in common, in tokens or
    in fractions, agree; others are apart by the gap between them on a log scale.

    {constant: tokens | fraction | unclear, share_tokens, share_fraction, lost, bins}. lost: the share of full cache's
    score that is followed through the bins, half of the second largest one proven, so that two bins at least reach it.
    share_*: of resamples, those in which the brackets are closer in tokens (or in fractions) than in the other; the one
    that is so in 97.5% is named if they agree in it. None with fewer than two bins whose loss is proven, or without
    evidence of what was kept. Exploratory.
    """
    usable = [
        b for b in bins if b.bin_idx >= 0 and (b.acc_full or 0) > margin and b.tests and b.resampled and _known(b)
    ]
    losses = sorted(_lost(np.array([[b.acc_full, *b.acc]]))[0, -1] for b in usable if b.total_loss_proven)
    if len(losses) < 2:
        return None
    level = losses[-2] / 2
    brackets = [_bracket(_lost(b.replicates), b, level) for b in usable]
    prompt = np.array([b.kept_full for b in usable], dtype=np.float64)
    low, high = (np.stack([bracket[i] for bracket in brackets], axis=1) for i in (0, 1))  # [resamples, bins], tokens
    in_tokens, in_fraction = _gap(low, high), _gap(low / prompt, np.minimum(high / prompt, 1.0))
    share_tokens, share_fraction = float(np.mean(in_tokens < in_fraction)), float(np.mean(in_fraction < in_tokens))
    constant = "unclear"
    if share_tokens >= SURE and np.mean(in_tokens == 0) >= AGREE:
        constant = Unit.TOKENS
    elif share_fraction >= SURE and np.mean(in_fraction == 0) >= AGREE:
        constant = Unit.FRACTION
    return {
        "constant": constant,
        "share_tokens": round(share_tokens, 4),
        "share_fraction": round(share_fraction, 4),
        "lost": round(float(level), 4),
        "bins": [_described(b, level) for b in usable],
    }


def _known(b: SeriesBin) -> bool:
    return bool(b.kept_full) and all(b.kept)


def _lost(acc: Floats) -> Floats:
    """Share of full cache's score that the monotone curve has lost at each budget: [..., 1 + budgets] -> the same."""
    curve = monotone(acc)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(1 - curve / curve[..., :1], nan=0.0)


def _bracket(lost: Floats, b: SeriesBin, level: float) -> tuple[Floats, Floats]:
    """Kept tokens at the two budgets between which each curve passes the level: lost [n, 1 + budgets] -> [n], [n].

    Where the first budget is beyond it, the upper end is infinite: a short prompt that is kept whole loses nothing,
    however many tokens would be too few.
    """
    kept = np.array([np.inf, *b.kept, _NOTHING], dtype=np.float64)
    reached = lost >= level - 1e-12
    at = np.where(reached.any(axis=1), np.argmax(reached, axis=1), lost.shape[1])
    return kept[at], kept[np.maximum(at - 1, 0)]


def _gap(low: Floats, high: Floats) -> Floats:
    """How far the brackets [n, bins] are from having a point in common, on a log scale: 0 where they have one."""
    apart = np.log(low).max(axis=1) - np.log(high).min(axis=1)
    return np.asarray(np.maximum(0.0, apart))


def _described(b: SeriesBin, level: float) -> dict[str, Any]:
    low, high = _bracket(_lost(np.array([[b.acc_full, *b.acc]])), b, level)
    return {
        "bin_idx": b.bin_idx,
        "tokens_low": round(float(low[0]), 1),
        "tokens_high": round(float(high[0]), 1) if np.isfinite(high[0]) else None,
        "prompt_tokens": b.kept_full,
    }


def length_by_budget(bins: Sequence[SeriesBin]) -> list[dict[str, Any]]:
    """For each budget, the bins where it is proven safe, where a loss is proven, and beyond the margin. Exploratory."""
    real = [b for b in bins if b.bin_idx >= 0]
    with_room = [b for b in real if b.has_something_to_lose]
    budgets = sorted({budget for b in real for budget in b.budgets}, reverse=True)
    return [
        {
            "budget": budget,
            "safe": _bins_where(with_room, budget, lambda t, alpha: t.p_safe <= alpha),
            "loss": _bins_where(real, budget, lambda t, alpha: t.p_loss <= alpha),
            "beyond_margin": _bins_where(real, budget, lambda t, alpha: t.p_broken <= alpha),
        }
        for budget in budgets
    ]


def _bins_where(bins: Sequence[SeriesBin], budget: float, proven: Any) -> list[int]:
    return [b.bin_idx for b in bins if any(t.budget == budget and proven(t, b.claims.alpha) for t in b.tests)]


def _half_loss_columns(this: SeriesBin, alpha: float) -> dict[str, Any]:
    names = ("half_loss_budget", "half_loss_ci_low", "half_loss_ci_high")
    if this.acc_full is None or not this.total_loss_proven or not this.resampled:
        return dict.fromkeys(names)
    point, replicates = this.half_loss()
    low, high = percentile_interval(replicates, alpha)
    budgets = [float(b) for b in this.axis]  # nothing was measured between two of them: the interval spans that gap
    below = max((b for b in budgets if b <= point), default=point)
    above = min((b for b in budgets if b >= point), default=point)
    return dict(zip(names, (point, min(low, below), max(high, above)), strict=True))


def _token_columns(this: SeriesBin, row: Mapping[str, Any]) -> dict[str, Any]:
    def at(budget: float | None) -> float | None:
        if budget is None or this.acc_full is None:
            return None
        return float(this.kept_at(np.array(budget)))

    return {
        "zone_low_tokens": at(row["zone_low"]),
        "zone_high_tokens": at(row["zone_high"]),
        "half_loss_tokens": at(row["half_loss_budget"]),
    }


def _step_columns(this: SeriesBin, threshold: float, bins: Mapping[int, "SeriesBin"]) -> dict[str, Any]:
    names = ("pre_budget", "transition_budget", "acc_pre", "acc_post", "drop", "transition_bin_idx")
    if this.acc_full is None or not this.tests:
        return dict.fromkeys(names)
    means = [this.acc_full, *this.acc]
    axis = [float(b) for b in this.axis]
    step = step_drop(list(zip(axis, means, strict=True)), threshold)
    if step is None:
        return dict.fromkeys(names)
    at = axis.index(step.transition_budget)
    falls = {
        b: ([one.acc_full, *one.acc][at - 1] or 0.0) - [one.acc_full, *one.acc][at]
        for b, one in bins.items()
        if one.acc_full is not None and len(one.acc) == len(this.acc)
    }
    where = max(sorted(falls), key=lambda b: falls[b], default=None) if this.bin_idx == ALL_BINS else this.bin_idx
    values = (step.pre_budget, step.transition_budget, step.acc_pre, step.acc_post, step.drop, where)
    return dict(zip(names, values, strict=True))
