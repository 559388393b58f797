"""Drop -> how much of it is failed requests, how much answers that were cut off, and how much wrong answers.

Accuracy is (1 - failure rate) x accuracy of the answered, and that is (1 - share cut off) x accuracy of the others +
share cut off x accuracy of those cut off. The first product is split first: failures and answers get their Shapley
shares of the drop, the effect of each averaged over both orders. The answers' part is split in the same way into what
became of being cut off (how many, and what they are still worth) and into wrong answers among those that were not. So
the three parts add up to the drop exactly, and the split of the answers moves nothing to or from failures (Owen's value
with the two kinds of answers as one block). Failures split further by their label, wrong answers by the label of the
answer (WRONG_ANSWER where it has none), in proportion to the score they lost.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kvt_async.contract.errors import FailureLabel
from kvt_async.contract.vocabulary import CUT_OFF

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

WRONG = "WRONG_ANSWER"
LABELS = (*(str(label) for label in FailureLabel), WRONG)  # label codes are positions here; no label: the last


_NOTHING = np.zeros(len(LABELS))


@dataclass(frozen=True)
class Outcomes:
    """Aligned outcomes of one run: score [n], failed [n] (no response), label [n] (codes), cut [n]: answered, but ended
    by its length before anything right (failure_labels.cut_off)."""

    score: Floats
    failed: Bools
    label: npt.NDArray[np.int8]
    cut: Bools

    def of(self, rows: Bools) -> "Outcomes":
        return Outcomes(self.score[rows], self.failed[rows], self.label[rows], self.cut[rows])


@dataclass(frozen=True)
class Shares:
    """Parts of one drop, in score units: failures + cut_off + wrong = drop. by_label sums to the same."""

    failures: float
    cut_off: float
    wrong: float
    by_label: dict[str, float]

    @property
    def answers(self) -> float:
        return self.cut_off + self.wrong


@dataclass(frozen=True)
class _Factors:
    """What the accuracy of one run is made of. `of_cut`: mean score of the answers cut off, times their share of the
    answered; `of_whole`: mean score of the others; lost [labels]: what those lost, sums to 1 - of_whole."""

    failed: float
    cut: float
    of_cut: float
    of_whole: float
    lost: Floats

    @property
    def of_answered(self) -> float:
        return (1 - self.cut) * self.of_whole + self.of_cut


def decompose(full: Outcomes, here: Outcomes, weight: Floats) -> Shares:
    """Parts of mean(full) - mean(here) under `weight` [n], which sums to 1; rows are the same answers."""
    a, b = _factors(full, weight), _factors(here, weight)
    a, b = _like(a, b), _like(b, a)
    answered, whole = (2 - a.failed - b.failed) / 2, (2 - a.cut - b.cut) / 2
    worth = (a.of_answered + b.of_answered) / 2
    failures = (b.failed - a.failed) * worth
    cut_off = ((b.cut - a.cut) * (a.of_whole + b.of_whole) / 2 + a.of_cut - b.of_cut) * answered
    wrong = (a.of_whole - b.of_whole) * whole * answered
    parts = (_rates(here, weight) - _rates(full, weight)) * worth + (b.lost - a.lost) * whole * answered
    by_label = dict(zip(LABELS, parts, strict=True)) | {CUT_OFF: cut_off}
    return Shares(
        failures, cut_off, wrong, {name: round(float(part), 9) for name, part in by_label.items() if abs(part) > 1e-12}
    )


def _like(run: _Factors, other: _Factors) -> _Factors:
    """The factors, with those of the other run where this one has nothing that shows them: what nobody answered, or
    what was always cut off, would have been worth is unknown, so nothing of the drop is put on it."""
    if run.failed >= 1:
        return _Factors(run.failed, other.cut, other.of_cut, other.of_whole, other.lost)
    if run.cut >= 1:
        return _Factors(run.failed, run.cut, run.of_cut, other.of_whole, other.lost)
    return run


def _factors(run: Outcomes, weight: Floats) -> _Factors:
    whole = ~run.failed & ~run.cut
    failed, of_cut, of_whole = (float(np.sum(weight[rows])) for rows in (run.failed, run.cut, whole))
    answered = of_cut + of_whole
    if answered <= 0:
        return _Factors(1.0, 1.0, 0.0, 0.0, _NOTHING)
    kept = float(np.sum((weight * run.score)[run.cut])) / answered
    if of_whole <= 0:
        return _Factors(failed, 1.0, kept, 0.0, _NOTHING)
    lost = np.bincount(run.label[whole], (weight * (1 - run.score))[whole], len(LABELS)) / of_whole
    return _Factors(failed, of_cut / answered, kept, float(np.sum((weight * run.score)[whole])) / of_whole, lost)


def _rates(run: Outcomes, weight: Floats) -> Floats:
    return np.asarray(np.bincount(run.label[run.failed], weight[run.failed], len(LABELS)), dtype=np.float64)
