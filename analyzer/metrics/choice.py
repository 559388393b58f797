"""Tasks whose answer is one of few: a class, a paragraph number, a count. Source: LongBench (Bai et al., 2024)."""

import re
from collections.abc import Callable
from functools import partial

from analyzer.metrics import Meta, metric

_NUMBER = re.compile(r"\d+")
_ENGLISH, _CHINESE = re.compile(r"Paragraph (\d+)"), re.compile(r"段落(\d+)")

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


def _names_a_class(prediction: str, meta: Meta) -> bool:
    classes = meta.get("all_classes") or ()
    return not classes or any(str(name) in prediction for name in classes)


def _has_number(prediction: str, meta: Meta) -> bool:
    return _NUMBER.search(prediction) is not None


_of_classes = partial(metric, each_gold=True, format_ok=_names_a_class, needs_meta=("all_classes",))
_of_numbers = partial(metric, each_gold=True, format_ok=_has_number)


@_of_classes("classification")
@_of_classes("classification_first_line", first_line=True)
def classification(prediction: str, gold: str, meta: Meta) -> float:
    """`named_score` of the classes that occur in the answer; meta needs `all_classes`."""
    return named_score(_named(prediction, meta), gold)


@_of_classes("classification_fixed")
@_of_classes("classification_fixed_first_line", first_line=True)
def classification_fixed(prediction: str, gold: str, meta: Meta) -> float:
    """`named_fixed_score` of the same."""
    return named_fixed_score(_named(prediction, meta), gold)


def _named(prediction: str, meta: Meta) -> list[str]:
    return [name for name in map(str, meta.get("all_classes") or ()) if name in prediction]


@_of_numbers("count")
def count(prediction: str, gold: str, meta: Meta) -> float:
    """Share of the numbers in the answer that equal the gold number; 0.0 without a number."""
    numbers = _NUMBER.findall(prediction)
    return sum(number == gold for number in numbers) / len(numbers) if numbers else 0.0


@_of_numbers("retrieval")
def retrieval(prediction: str, gold: str, meta: Meta) -> float:
    """Share of the numbers in the answer that equal the gold paragraph's number; 0.0 without a number."""
    return count(prediction, _paragraph(_ENGLISH, gold), meta)


@_of_numbers("retrieval_zh")
def retrieval_zh(prediction: str, gold: str, meta: Meta) -> float:
    """The same of Chinese paragraphs."""
    return count(prediction, _paragraph(_CHINESE, gold), meta)


def _paragraph(pattern: re.Pattern[str], gold: str) -> str:
    match = pattern.search(gold)
    return match.group(1) if match else gold
