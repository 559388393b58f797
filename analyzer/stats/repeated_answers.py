"""Several answers to one example -> its one score: the example stays the unit, its answers only make it steadier.

Answers taken as pairs of their own would be false evidence: with 16 each, "safe" is claimed in 14% of experiments where
the margin is lost (docs/STATISTICS.md, Several tasks, several answers).
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from math import comb

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

PATTERN = r"^(mean|(pass|majority)@[1-9][0-9]{0,3})$"
NO_ANSWER = -1


@dataclass(frozen=True)
class Aggregate:
    """How k answers make one score; `size` is the K of pass@K and majority@K, 0 for the mean."""

    kind: str = "mean"  # mean, pass, majority
    size: int = 0

    @classmethod
    def of(cls, text: str) -> "Aggregate":
        """Of `mean`, `pass@K` or `majority@K`. Raises ValueError for anything else."""
        if not re.fullmatch(PATTERN, text):
            raise ValueError(f"{text!r} is none of mean, pass@K, majority@K")
        kind, _, size = text.partition("@")
        return cls(kind, int(size or 0))

    @property
    def text(self) -> str:
        return self.kind if self.kind == "mean" else f"{self.kind}@{self.size}"

    def scores(self, score: Floats, answer: Ints | None = None) -> Floats:
        """One score an example: [n] of score [n, k] in [0, 1], failed requests 0; NaN where one of the answers that
        count isn't scored yet.

        answer [n, k], for the majority: equal numbers are equal answers, NO_ANSWER a failed request, which has no vote.
        Raises ValueError where K is more than the k answers that there are.
        """
        k = score.shape[1]
        if self.size > k:
            raise ValueError(f"{self.text} needs {self.size} answers an example, and there are {k}")
        if self.kind == "mean":
            return np.asarray(score.mean(axis=1))
        if self.kind == "pass":
            return best_of(score, self.size)
        if answer is None:
            raise ValueError("a majority needs the answers")
        return majority(score[:, : self.size], answer[:, : self.size])


def best_of(score: Floats, size: int) -> Floats:
    """The best score that `size` of the k answers have, on average over all ways to take them: [n, k] -> [n].

    Of 0/1 scores with c right it is 1 - C(k-c, size) / C(k, size), the unbiased pass@size (Chen et al. 2021,
    "Evaluating large language models trained on code"); the best of `size` drawn without replacement, it holds for
    graded ones too.
    """
    rising = np.sort(score, axis=1)  # NaN last: it stays in the sum
    return np.asarray(rising @ _weights(score.shape[1], size))


@lru_cache
def _weights(k: int, size: int) -> Floats:
    """The chance that the i-th lowest of k answers is the best of `size` of them: [k]."""
    return np.array([comb(i, size - 1) / comb(k, size) for i in range(k)])


def majority(score: Floats, answer: Ints) -> Floats:
    """The score of the answer given most often, the first such where several are: [n, k], [n, k] -> [n].

    A failed request (NO_ANSWER) has no vote; 0 where none of the answers came. An answer's score is that of its first
    place. NaN where a score is missing.
    """
    if not len(score):
        return np.empty(0)
    voting = answer != NO_ANSWER
    votes = np.where(voting, (answer[:, :, None] == answer[:, None, :]).sum(axis=2), 0)
    first = votes.argmax(axis=1)  # argmax takes the first of equals
    won = np.where(voting.any(axis=1), np.take_along_axis(score, first[:, None], axis=1)[:, 0], 0.0)
    return np.where(np.isnan(score).any(axis=1), np.nan, won)


def any_failed(failed: Bools) -> Bools:
    """Whether one of an example's requests failed, [n, k] -> [n]: such a mean is lower at full cache than its answers
    were worth, so a proof of safety has to hold without it (transition.safety_units)."""
    return np.asarray(failed.any(axis=1))
