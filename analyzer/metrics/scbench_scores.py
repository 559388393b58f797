"""SCBench's scores (Li et al., 2024). Source: microsoft/MInference at fb56c917f618e8645f1cfc37535afd7424d78f0d,
scbench/compute_scores.py; equal on tests/analyzer/golden/scbench.jsonl. Quirks of the script are kept and named; the
two that make a score say little have a corrected variant, `..._fixed`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from analyzer.metrics import Meta, metric
from analyzer.metrics.function_match import function_score
from analyzer.metrics.rouge_lsum import rouge_lsum
from analyzer.metrics.word_lists import bare_word

_NUMBER = re.compile(r"\d+\.\d+|\d+")
_DIGITS = re.compile("[0-9]+")
_SPACED = {ord(mark): " " for mark in "\n\"'.,?!{}"}
_ANNOUNCED = ("answer is:", "answer:", "answer is", "option is")
_FUNCTION_META = ("lang", "func_name", "needles")


@metric("scbench_kv", each_gold=True)
def scbench_kv(prediction: str, gold: str, meta: Meta) -> float:
    """1.0 where the gold stands in the answer, letter for letter (also scbench_prefix_suffix)."""
    return float(gold in prediction)


@metric("scbench_vt")
def scbench_vt(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """Share of golds that stand in the answer, case ignored. Quirk kept: rounded to two digits."""
    answer = prediction.lower()
    return round(sum(gold.lower() in answer for gold in golds) / len(golds), 2) if golds else 0.0


@metric("scbench_qa_eng")
def scbench_qa_eng(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """1.0 where a gold stands in the answer, case ignored."""
    return _contains(prediction, golds)


@metric("scbench_many_shot", needs_meta=("labels",))
def scbench_many_shot(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """1.0 where any character of a gold stands in the answer, case ignored. Quirk kept: the script takes a gold that is
    a text for a list of texts. `scbench_many_shot_fixed` wants the gold whole."""
    return _contains(prediction, _labels(golds, meta))


@metric("scbench_many_shot_fixed")
def scbench_many_shot_fixed(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """1.0 where a gold stands in the answer, case ignored."""
    return _contains(prediction, golds)


@metric("scbench_qa_chn", needs_meta=("labels",))
def scbench_qa_chn(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """Overlap F1 of the answer's characters and one character of a gold, the best of them. Quirk kept: the script takes
    a gold that is a text for a list of texts. `scbench_qa_chn_fixed` compares with the gold whole."""
    characters = _characters(prediction)
    return max((_overlap(characters, _characters(label)) for label in _labels(golds, meta)), default=0.0)


@metric("scbench_qa_chn_fixed")
def scbench_qa_chn_fixed(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """Overlap F1 of the characters of answer and gold, without white space and marks."""
    characters = _characters(prediction)
    return max((_overlap(characters, _characters(gold)) for gold in golds), default=0.0)


@metric("scbench_mf", each_gold=True)
def scbench_mf(prediction: str, gold: str, meta: Meta) -> float:
    """1.0 where the answer's first number is the gold; a whole gold is met by a number with a fraction. Quirk kept:
    signs are not read, so a gold below 0 is never met."""
    number = _NUMBER.search(prediction)
    if number is None:
        return 0.0
    try:
        if _is_whole(gold):
            return float(int(float(number.group())) == int(gold))
        return float(float(number.group()) == float(gold))
    except (OverflowError, ValueError):  # so many digits that they are no number
        return 0.0


@metric("scbench_choice_eng")
def scbench_choice_eng(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """1.0 where the answer names the right option, by its letter or its text: `golds` are both.

    Quirk kept: an answer that begins with a capital A, B, C or D is read as that letter, whatever word it is.
    """
    answer = prediction.strip()
    if not answer:
        return 0.0
    if answer[0] in "ABCD":
        return float(answer[0] in golds)
    if answer in golds:
        return 1.0
    answer = re.sub(" {2,}", " ", answer.translate(_SPACED))
    for announced in _ANNOUNCED:
        if (at := answer.find(announced)) >= 0:
            return float(answer[at + len(announced) + 1 :].startswith(tuple(golds)))
    word = next((word for word in answer.split() if word in "ABCD"), None)
    return float(word in golds)


@metric("scbench_summary", each_gold=True)
def scbench_summary(prediction: str, gold: str, meta: Meta) -> float:
    """ROUGE-Lsum F1."""
    return rouge_lsum(prediction, gold)


@metric("scbench_passkey", each_gold=True)
def scbench_passkey(prediction: str, gold: str, meta: Meta) -> float:
    """1.0 where the answer's first run of digits is the gold."""
    digits = _DIGITS.search(prediction)
    return float((digits.group() if digits else "") == gold)


@metric("scbench_repoqa", needs_meta=_FUNCTION_META)
def scbench_repoqa(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """1.0 where the answer repeats the right function of the repository: function_match.py. 0.0 where meta does not say
    which one is right (`func_name`), which there are (`needles`: [[name, code], ...]) and in what language (`lang`)."""
    given = meta.get("needles")
    needles = [needle for needle in given if _is_needle(needle)] if isinstance(given, list) else []
    return function_score(prediction, str(meta.get("func_name")), needles, str(meta.get("lang")))


@metric("scbench_summary_with_needles", needs_meta=("task",))
def scbench_summary_with_needles(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """Each turn by what it is (`meta.task`): scbench_summary or scbench_passkey."""
    scores = {"scbench_passkey": scbench_passkey, "scbench_summary": scbench_summary}
    score = scores.get(str(meta.get("task")))
    return max((score(prediction, gold, meta) for gold in golds), default=0.0) if score else 0.0


@metric("scbench_repoqa_and_kv", needs_meta=("task", *_FUNCTION_META))
def scbench_repoqa_and_kv(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """Each turn by what it is (`meta.task`): scbench_repoqa or scbench_kv."""
    task = meta.get("task")
    if task == "scbench_repoqa":
        return scbench_repoqa(prediction, golds, meta)
    return max((scbench_kv(prediction, gold, meta) for gold in golds), default=0.0) if task == "scbench_kv" else 0.0


def _is_needle(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value)


def _labels(golds: Sequence[str], meta: Meta) -> list[str]:
    """What the script compares with: the golds where the row has a list of them (`meta.labels`), else the characters of
    the text."""
    return [*golds] if meta.get("labels") == "list" else [character for gold in golds for character in gold]


def _contains(prediction: str, golds: Iterable[str]) -> float:
    answer = prediction.strip().upper()
    return float(any(gold.upper() in answer for gold in golds))


def _characters(text: str) -> list[str]:
    return list(bare_word(text))


def _overlap(characters: Sequence[str], wanted: Sequence[str]) -> float:
    common = sum((Counter(characters) & Counter(wanted)).values())
    if not common:
        return 0.0
    precision, recall = common / len(characters), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _is_whole(gold: str) -> bool:
    return gold.removeprefix("-").isdecimal()
