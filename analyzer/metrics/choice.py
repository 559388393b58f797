"""Tasks whose answer is one of few: a class, a paragraph number, a count. Source: LongBench (Bai et al., 2024)."""

import re
from collections.abc import Callable

from analyzer.metrics import Meta, best_of, metric

_NUMBER = re.compile(r"\d+")


NamedScore = Callable[[list[str], str], float]
"""Class names found in an answer, in the order of the task's list, and the gold class -> score."""


def named_score(named: list[str], gold: str) -> float:
    """1/k if the gold class is among the k classes named in the answer, else 0.0. Changes `named`.

    A named class that is only a part of the gold class's name does not count. Quirk kept: candidates are dropped
    while the list is walked, so the one after a dropped candidate is skipped.
    """
    for term in named:
        if term in gold and term != gold:
            named.remove(term)  # the quirk above
    return 1.0 / len(named) if gold in named else 0.0


def named_fixed_score(named: list[str], gold: str) -> float:
    """The same without the quirk: every named class that is only a part of the gold class's name is dropped."""
    kept = [name for name in named if name == gold or name not in gold]
    return 1.0 / len(kept) if gold in kept else 0.0


def classification_one(prediction: str, gold: str, meta: Meta) -> float:
    """`named_score` of the classes that occur in the answer; meta needs `all_classes`."""
    return named_score(_named(prediction, meta), gold)


def classification_fixed_one(prediction: str, gold: str, meta: Meta) -> float:
    """`named_fixed_score` of the same."""
    return named_fixed_score(_named(prediction, meta), gold)


def _named(prediction: str, meta: Meta) -> list[str]:
    return [name for name in map(str, meta.get("all_classes") or ()) if name in prediction]


def _names_a_class(prediction: str, meta: Meta) -> bool:
    classes = meta.get("all_classes") or ()
    return not classes or any(str(name) in prediction for name in classes)


def _has_number(prediction: str, meta: Meta) -> bool:
    return _NUMBER.search(prediction) is not None


def count_one(prediction: str, gold: str, meta: Meta) -> float:
    """Share of the numbers in the answer that equal the gold number; 0.0 without a number."""
    numbers = _NUMBER.findall(prediction)
    return sum(number == gold for number in numbers) / len(numbers) if numbers else 0.0


def _retrieval(pattern: str) -> "_Retrieval":
    return _Retrieval(re.compile(pattern))


class _Retrieval:
    """Share of the numbers in the answer that equal the gold paragraph's number; 0.0 without a number."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern = pattern

    def __call__(self, prediction: str, gold: str, meta: Meta) -> float:
        found = self.pattern.search(gold)
        return count_one(prediction, found.group(1) if found else gold, meta)


metric("classification", format_ok=_names_a_class, needs_classes=True)(best_of(classification_one))
metric("classification_first_line", format_ok=_names_a_class, needs_classes=True, first_line=True)(
    best_of(classification_one)
)
metric("classification_fixed", format_ok=_names_a_class, needs_classes=True)(best_of(classification_fixed_one))
metric("classification_fixed_first_line", format_ok=_names_a_class, needs_classes=True, first_line=True)(
    best_of(classification_fixed_one)
)
metric("count", format_ok=_has_number)(best_of(count_one))
metric("retrieval", format_ok=_has_number)(best_of(_retrieval(r"Paragraph (\d+)")))
metric("retrieval_zh", format_ok=_has_number)(best_of(_retrieval(r"段落(\d+)")))
