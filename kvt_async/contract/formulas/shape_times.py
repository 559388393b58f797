"""Instants and areas under the shape of a load, as arrays."""

import numpy as np
import numpy.typing as npt

from kvt_async.contract.load_shape import LoadShape

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def edges(shape: LoadShape) -> Floats:
    """Seconds at which legs begin, and the end of the last: shape [legs + 1]."""
    return np.concatenate(([0.0], np.cumsum([leg.for_s for leg in shape.legs])))


def leg_at(shape: LoadShape, seconds: Floats) -> Ints:
    """Which leg each instant lies in; one on an edge belongs to the leg that begins there."""
    last = len(shape.legs) - 1
    return np.clip(np.searchsorted(edges(shape), seconds, side="right") - 1, 0, last).astype(np.int64)


def sizes_at(shape: LoadShape, seconds: Floats) -> Floats:
    """`shape.size_at` of each."""
    leg = leg_at(shape, seconds)
    start, slope, length = _lines(shape)
    return start[leg] + slope[leg] * np.clip(seconds - edges(shape)[leg], 0.0, length[leg])


def due_at(shape: LoadShape, areas: Floats) -> Floats:
    """The inverse of the area under the shape: when that many requests are due. Beyond the end the last size goes on,
    so that it rises without an end; where that size is 0 it is inf."""
    sums = np.concatenate(([0.0], np.cumsum([leg.area for leg in shape.legs])))
    leg = np.clip(np.searchsorted(sums, areas, side="right") - 1, 0, len(shape.legs) - 1)
    start, slope, _ = _lines(shape)
    rest = areas - sums[leg]
    last = shape.legs[-1].end
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.sqrt(np.maximum(start[leg] ** 2 + 2 * slope[leg] * rest, 0.0))
        into = np.where(rest > 0, 2 * rest / (start[leg] + root), 0.0)
        late = shape.seconds + (areas - sums[-1]) / last if last > 0 else np.full(len(areas), np.inf)
    due: Floats = np.where(areas > sums[-1], late, edges(shape)[leg] + into)
    return due


def _lines(shape: LoadShape) -> tuple[Floats, Floats, Floats]:
    start = np.array([leg.start for leg in shape.legs])
    length = np.array([leg.for_s for leg in shape.legs])
    return start, (np.array([leg.end for leg in shape.legs]) - start) / length, length
