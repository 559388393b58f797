"""Drop -> how much of it is failed requests, and how much wrong answers.

Accuracy is (1 - failure rate) x accuracy of the answered. Each factor gets its Shapley share of the change: its effect
averaged over both orders, so the two shares add up to the drop exactly. Failures split further by their label, answers
by the label of the answer (WRONG_ANSWER where it has none), in proportion to the score they lost.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kvt_async.contract.errors import FailureLabel

Floats = npt.NDArray[np.float64]

WRONG = "WRONG_ANSWER"
LABELS = (*(str(label) for label in FailureLabel), WRONG)  # label codes are positions here; no label: the last


@dataclass(frozen=True)
class Outcomes:
    """Aligned outcomes of one run: score [n], failed [n] (no response), label [n] (codes)."""

    score: Floats
    failed: npt.NDArray[np.bool_]
    label: npt.NDArray[np.int64]

    def of(self, rows: npt.NDArray[np.bool_]) -> "Outcomes":
        return Outcomes(self.score[rows], self.failed[rows], self.label[rows])


@dataclass(frozen=True)
class Shares:
    """Parts of one drop, in score units; failures + answers = drop. by_label sums to the same."""

    failures: float
    answers: float
    by_label: dict[str, float]


def decompose(full: Outcomes, here: Outcomes, weight: Floats) -> Shares:
    """Shapley shares of mean(full) - mean(here) under `weight` [n], which sums to 1; rows are the same examples."""
    f_full, a_full, lost_full = _factors(full, weight)
    f_here, a_here, lost_here = _factors(here, weight)
    if f_here >= 1:  # nothing answered: what it would have been worth is unknown, so nothing is put on answers
        a_here, lost_here = a_full, lost_full
    if f_full >= 1:
        a_full, lost_full = a_here, lost_here
    worth, answered = (a_full + a_here) / 2, (2 - f_full - f_here) / 2
    failures = (f_here - f_full) * worth
    answers = (a_full - a_here) * answered
    parts = (_rates(here, weight) - _rates(full, weight)) * worth + (lost_here - lost_full) * answered
    by_label = {name: round(float(part), 9) for name, part in zip(LABELS, parts, strict=True) if abs(part) > 1e-12}
    return Shares(failures, answers, by_label)


def _factors(run: Outcomes, weight: Floats) -> tuple[float, float, Floats]:
    """Failure rate, accuracy of the answered, and what the answered lost by label (sums to 1 - accuracy)."""
    failure_rate = float(np.sum(weight[run.failed]))
    answered = ~run.failed
    total = float(np.sum(weight[answered]))
    if total <= 0:
        return 1.0, 0.0, np.zeros(len(LABELS))
    lost = np.bincount(run.label[answered], (weight * (1 - run.score))[answered], len(LABELS)) / total
    return failure_rate, float(np.sum((weight * run.score)[answered])) / total, lost


def _rates(run: Outcomes, weight: Floats) -> Floats:
    return np.asarray(np.bincount(run.label[run.failed], weight[run.failed], len(LABELS)), dtype=np.float64)
