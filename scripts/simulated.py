"""Experiments with a known truth, and what a cell of a calibration table is: the ground of scripts/calibrate*.py."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from analyzer.stats.transition import Grid

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ALPHA, MARGIN = 0.05, 0.05


@dataclass(frozen=True)
class Truth:
    """How experiments are made: n examples in total over equal bins; loss[b] = share of the score lost at budget b.

    kind: binary | graded (F1-like: many 0 and 1, the rest between). flips: chance that an answer is drawn anew at any
    budget, full cache included. uneven: all of the loss falls into the last bin (its share times the number of bins).
    """

    n: int
    loss: tuple[float, ...]
    kind: str = "binary"
    base: float = 0.6
    flips: float = 0.0
    bins: int = 5
    uneven: bool = False
    cluster: int = 1


def simulate(truth: Truth, rng: np.random.Generator) -> Grid:
    """One experiment: runs `full` and `b0`, `b1`, ... from the highest budget down."""
    n = truth.n
    bin_idx = np.arange(n) * truth.bins // n
    cluster = np.arange(n) // truth.cluster
    score = {"full": np.empty(0)}
    hard, order = answers(truth, rng, n), _by_cluster(rng, cluster)
    for name, loss in (("full", 0.0), *((f"b{i}", loss) for i, loss in enumerate(truth.loss))):
        anew = rng.random(n) < truth.flips
        here = np.where(anew, answers(truth, rng, n), hard)
        share = np.where(bin_idx == truth.bins - 1, loss * truth.bins, 0.0) if truth.uneven else np.full(n, loss)
        luck = np.where(anew, rng.random(n), order)
        score[name] = _after_loss(truth, here, share, luck, rng)
    return Grid(score, bin_idx, cluster)


def answers(truth: Truth, rng: np.random.Generator, n: int) -> Floats:
    if truth.kind == "binary":
        return (rng.random(n) < truth.base).astype(float)
    between = 1.6 * min(truth.base, 1 - truth.base, 0.3)  # chance of a partly right answer, 0.5 on average
    partly = rng.choice([0.2, 0.4, 0.5, 0.6, 0.8], size=n)
    draw = rng.random(n)
    return np.where(draw < between, partly, (draw < between + truth.base - between / 2).astype(float))


def _after_loss(truth: Truth, score: Floats, share: Floats, luck: Floats, rng: np.random.Generator) -> Floats:
    """Lose `share` of the expected score: binary answers are lost whole; graded ones whole or by half."""
    if truth.kind == "binary":
        return np.where(luck < share, 0.0, score)
    hit = luck < share / 0.75
    return np.where(hit, score * np.where(rng.random(len(score)) < 0.5, 0.0, 0.5), score)


def _by_cluster(rng: np.random.Generator, cluster: npt.NDArray[np.int64]) -> Floats:
    return rng.random(int(cluster.max()) + 1)[cluster]


def allowed(bar: float, experiments: int) -> float:
    """The bar plus Monte-Carlo error (one-sided 99.5%)."""
    return bar + 2.576 * math.sqrt(bar * (1 - bar) / experiments)


Row = tuple[str, str, float, str]


Seen = TypeVar("Seen")


def rate_of(found: Sequence[Seen], event: Callable[[Seen], bool]) -> float:
    return sum(map(event, found)) / len(found)


def error(where: str, what: str, rate: float, experiments: int, bar: float = ALPHA / 2) -> Row:
    """A cell of false claims, which is to stay at the bar or below it."""
    return where, what, rate, "ok" if rate <= allowed(bar, experiments) else f"above {bar:g}"


def covered(where: str, rate: float, experiments: int, bar: float = 0.95) -> Row:
    """A cell of a truth inside its interval, or of power: at the bar or above it."""
    fits = rate >= bar - 2.576 * math.sqrt(bar * (1 - bar) / max(1, experiments))
    return where, "coverage", rate, "ok" if fits else f"below {bar:g}"


class Flips:
    """0/1 answers of one set of questions: each run is drawn with `draw`, a share `flips` of its answers anew."""

    def __init__(self, rng: np.random.Generator, chance: Floats, flips: float) -> None:
        self.rng, self.chance, self.flips = rng, chance, flips
        self.hard = self._right()

    def _right(self) -> Floats:
        return (self.rng.random(len(self.chance)) < self.chance).astype(float)

    def draw(self) -> Floats:
        return np.where(self.rng.random(len(self.chance)) < self.flips, self._right(), self.hard)
