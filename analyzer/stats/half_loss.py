"""The monotone curve of accuracy over the budget, and what is read off it: the half-loss budget and the zone's spread.

A smaller cache can't help on average, so the curve of means is made monotone (pool adjacent violators, equal weights).
Everything works on one curve [k] or on bootstrap replicates [resamples, k]; columns run from full cache down.
"""

import numpy as np
import numpy.typing as npt

from analyzer.stats.margin import Margin

Floats = npt.NDArray[np.float64]


def monotone(acc: Floats) -> Floats:
    """Closest non-increasing curves (least squares) of acc [..., k], by the min-max formula: same shape."""
    points = np.moveaxis(acc, -1, 0)
    sums = np.concatenate([np.zeros((1, *points.shape[1:])), np.cumsum(points, axis=0)])
    result = np.full(points.shape, np.inf)
    for first in range(len(points)):
        highest = np.full(points.shape[1:], -np.inf)
        for last in range(len(points) - 1, first - 1, -1):  # highest = max over ends >= last of mean(first..end)
            np.maximum(highest, (sums[last + 1] - sums[first]) / (last + 1 - first), out=highest)
            np.minimum(result[last], highest, out=result[last, ...])
    return np.ascontiguousarray(np.moveaxis(result, 0, -1))


def half_loss(acc: Floats, budget: Floats) -> Floats:
    """Budget where half of the curve's total loss has happened, linear between budgets: acc [..., k] -> [...].

    budget [k] falls from full cache down. NaN where the monotone curve loses nothing or a mean is NaN.
    """
    return half_loss_of(monotone(acc), budget)


def half_loss_of(curve: Floats, budget: Floats) -> Floats:
    """`half_loss` of curves that are monotone."""
    loss = curve[..., :1] - curve
    half = loss[..., -1] / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        at = np.argmax(loss >= half[..., None] - 1e-12, axis=-1)
        above = np.maximum(at - 1, 0)
        low, high = _take(loss, above), _take(loss, at)
        share = np.where(high > low, (half - low) / (high - low), 1.0)
        where = budget[above] + share * (budget[at] - budget[above])
        return np.where(loss[..., -1] > 1e-9, where, np.nan)


def zone_spread(
    acc: Floats, budgets: Floats, margin: float | Margin, curve: Floats | None = None
) -> dict[str, list[float] | float]:
    """How the zone would move with other examples: shares over bootstrap replicates acc [resamples, k], whose monotone
    `curve` may be given.

    beyond_margin[i]: the drop at budgets[i] (full cache left out) exceeds the margin; first_beyond[i]: budgets[i] is
    the largest from which on the monotone curve is beyond the margin; never: it nowhere is.
    """
    margin = Margin.of(margin)
    drop = acc[:, :1] - acc[:, 1:]
    curve = monotone(acc) if curve is None else curve
    beyond = curve[:, :1] - curve[:, 1:] > margin.at(curve[:, :1]) + 1e-12
    never = ~beyond.any(axis=1)
    first = np.argmax(beyond, axis=1)
    share_first = np.bincount(first[~never], minlength=drop.shape[1]) / len(acc)
    return {
        "budgets": [float(b) for b in budgets[1:]],
        "beyond_margin": [round(float(s), 4) for s in (drop > margin.at(acc[:, :1]) + 1e-12).mean(axis=0)],
        "first_beyond": [round(float(s), 4) for s in share_first],
        "never": round(float(never.mean()), 4),
    }


def _take(values: Floats, index: npt.NDArray[np.intp]) -> Floats:
    return np.asarray(np.take_along_axis(values, index[..., None], axis=-1)[..., 0], dtype=np.float64)
