"""How the verdict depends on the prompt's length: what the length bins of one series say together. Exploratory."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from analyzer.stats.half_loss import monotone
from analyzer.stats.margin import Margin
from analyzer.stats.transition import BudgetTest
from analyzer.summarise.series_bin import SeriesBin
from kvt_async.contract.vocabulary import Unit

Floats = npt.NDArray[np.float64]

SURE = 0.975  # share of resamples in which bins lie closer in one than in the other
AGREE = 0.2  # and at least this share in which they agree in it; a truth between the two leaves a gap in both
_NOTHING = 1e-9  # tokens kept where the share isn't lost at any budget tested: it lies somewhere down to here


def constant_at_break(bins: Sequence[SeriesBin], margin: Margin) -> dict[str, Any] | None:
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
    usable = [b for b in bins if b.bin_idx >= 0 and b.tests and b.is_resampled]
    usable = [b for b in usable if (b.acc_full or 0) > margin.at(b.acc_full or 0) and b.kept_full and all(b.kept)]
    losses = sorted(_lost(monotone(np.array([[b.acc_full, *b.acc]])))[0, -1] for b in usable if b.total_loss_proven)
    if len(losses) < 2:
        return None
    followed = losses[-2] / 2
    brackets = [_bracket(_lost(b.curves), b, followed) for b in usable]
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
        "lost": round(float(followed), 4),
        "bins": [_described(b, followed) for b in usable],
    }


def _lost(curve: Floats) -> Floats:
    """Share of full cache's score that a monotone curve has lost at each budget: [..., 1 + budgets] -> the same."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(1 - curve / curve[..., :1], nan=0.0)


def _bracket(lost: Floats, b: SeriesBin, followed: float) -> tuple[Floats, Floats]:
    """Kept tokens at the two budgets between which each curve loses the share `followed`: lost [n, 1 + budgets] -> [n],
    [n].

    Where the first budget has lost it already, the upper end is infinite: a short prompt that is kept whole loses
    nothing, however many tokens would be too few.
    """
    kept = np.array([np.inf, *b.kept, _NOTHING], dtype=np.float64)
    reached = lost >= followed - 1e-12
    at = np.where(reached.any(axis=1), np.argmax(reached, axis=1), lost.shape[1])
    return kept[at], kept[np.maximum(at - 1, 0)]


def _gap(low: Floats, high: Floats) -> Floats:
    """How far the brackets [n, bins] are from having a point in common, on a log scale: 0 where they have one."""
    apart = np.log(low).max(axis=1) - np.log(high).min(axis=1)
    return np.asarray(np.maximum(0.0, apart))


def _described(b: SeriesBin, followed: float) -> dict[str, Any]:
    low, high = _bracket(_lost(monotone(np.array([[b.acc_full, *b.acc]]))), b, followed)
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


def _bins_where(bins: Sequence[SeriesBin], budget: float, proven: Callable[[BudgetTest, float], bool]) -> list[int]:
    return [b.bin_idx for b in bins if any(t.budget == budget and proven(t, b.claims.alpha) for t in b.tests)]
