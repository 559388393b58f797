"""One series -> its rows: budget_stats, transition_summary, and what several bins say together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from analyzer.aggregate import ALL_BINS
from analyzer.bootstrap import percentile_interval
from analyzer.control import Noise
from analyzer.curve import half_loss, zone_spread
from analyzer.transition import BudgetTest, Claims, pairs_needed, step_drop
from analyzer.verdicts import CANNOT_TELL, NO_BASELINE, TRANSITION, verdict, zone

Floats = npt.NDArray[np.float64]

TOP = {"bits": 16.0}  # full cache on the budget axis, where it isn't 1.0 (fraction) or the prompt itself (tokens)


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
    notes: list[str] = field(default_factory=list)

    @property
    def budgets(self) -> list[float]:
        return [test.budget for test in self.tests]

    @property
    def axis(self) -> Floats:
        """Budgets with full cache first."""
        top = self.kept_full or 2 * max(self.budgets, default=1.0) if self.unit == "tokens" else TOP.get(self.unit, 1.0)
        return np.array([max(top, *self.budgets) if self.budgets else top, *self.budgets])

    @property
    def total_loss_proven(self) -> bool:
        return bool(self.tests) and self.tests[-1].p_loss <= self.claims.level

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
    """A transition_summary row without keys of the group, evidence, partial, method and fingerprint."""
    needed = pairs_needed(this.tests, this.claims, margin=margin)
    word, sentence = verdict(
        this.tests, this.claims, acc_full=this.acc_full, margin=margin, unit=this.unit, needed=needed
    )
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
        "verdict_text": sentence,
        "n_needed": needed if word in (CANNOT_TELL, TRANSITION) else None,
        "role": this.role,
    }
    if word == NO_BASELINE:
        row |= dict.fromkeys(("safe_budget", "zone_high"))
    row |= _half_loss_columns(this, alpha)
    row |= _token_columns(this, row)
    row |= _step_columns(this, drop_threshold, bin_means)
    detail: dict[str, Any] = {"level": this.claims.level, "notes": this.notes}
    if this.acc_full is not None and this.tests:
        detail["spread"] = zone_spread(this.replicates, this.axis, margin)
    if row["n_needed"] is not None:  # for the first budget not proven safe: which of the two claims it would settle
        first = this.tests[this.claims.n_safe]
        detail["needed"] = {"budget": first.budget, "claim": "safe" if first.drop < margin else "beyond"}
    if this.noise:
        detail["noise"] = {
            "repeats": this.noise.repeats,
            "n": this.noise.n,
            "flips": this.noise.flips,
            "drop": round(this.noise.drop, 9),
        }
    return row | {"zone_json": detail}


def cliff(bins: Sequence[SeriesBin]) -> dict[str, Any] | None:
    """Does quality break at the same number of kept tokens in every bin, or at the same fraction of the prompt?

    Over the bins whose loss is proven: the half-loss point of each, as a fraction and in kept tokens. The one that
    varies less between bins (standard deviation of logs) in at least 97.5% of resamples is named; else `unclear`.
    None with fewer than two such bins or without evidence of what was kept. Exploratory.
    """
    usable = [b for b in bins if b.bin_idx >= 0 and b.acc_full is not None and b.total_loss_proven]
    points = [b.half_loss() for b in usable]
    tokens = [b.kept_at(replicates) for b, (_, replicates) in zip(usable, points, strict=True)]
    if len(usable) < 2 or any(np.isnan(t).all() for t in tokens):
        return None
    in_tokens = np.stack(tokens, axis=1)
    in_fraction = in_tokens / np.array([b.kept_full for b in usable])
    there = ~np.isnan(in_tokens).any(axis=1)
    closer = np.std(np.log(in_tokens[there]), axis=1) < np.std(np.log(in_fraction[there]), axis=1)
    share = float(closer.mean()) if there.any() else 0.5
    at = [float(b.kept_at(np.array(point))) for b, (point, _) in zip(usable, points, strict=True)]
    return {
        "constant": "tokens" if share >= 0.975 else "fraction" if share <= 0.025 else "unclear",
        "share_tokens": round(share, 4),
        "bins": [
            {
                "bin_idx": b.bin_idx,
                "half_loss_budget": round(point, 4),
                "half_loss_tokens": round(kept, 1),
                "prompt_tokens": b.kept_full,
            }
            for b, (point, _), kept in zip(usable, points, at, strict=True)
        ],
    }


def length_by_budget(bins: Sequence[SeriesBin]) -> list[dict[str, Any]]:
    """For each budget, the bins where it is proven safe, where a loss is proven, and beyond the margin. Exploratory."""
    real = [b for b in bins if b.bin_idx >= 0]
    budgets = sorted({budget for b in real for budget in b.budgets}, reverse=True)
    return [
        {
            "budget": budget,
            "safe": _bins_where(real, budget, lambda t, level: t.p_safe <= level),
            "loss": _bins_where(real, budget, lambda t, level: t.p_loss <= level),
            "beyond_margin": _bins_where(real, budget, lambda t, level: t.p_collapse <= level),
        }
        for budget in budgets
    ]


def _bins_where(bins: Sequence[SeriesBin], budget: float, proven: Any) -> list[int]:
    return [b.bin_idx for b in bins if any(t.budget == budget and proven(t, b.claims.level) for t in b.tests)]


def _half_loss_columns(this: SeriesBin, alpha: float) -> dict[str, Any]:
    names = ("half_loss_budget", "half_loss_ci_low", "half_loss_ci_high")
    if this.acc_full is None or not this.total_loss_proven:
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
