"""Answers to mathematical problems: the expression in the box, the last number, the letter.

Each takes from an answer what its published rule takes. An answer that was cut short has no fault of form: what it was
asked for stands at its end.
"""

import re
from collections import deque
from collections.abc import Callable

from analyzer.metrics import AtTheEnd, Meta, metric
from analyzer.metrics.math_process import math_process
from analyzer.metrics.optional import require
from kvt_async.contract.formulas.metric_needs import MATH_VERIFY

_BOX = re.compile(r"\\f?box(?:ed)?\s*\{?")
_BRACE = re.compile(r"(?<!\\)[{}]")
_SPACING = re.compile(r"\s|\\[,;!: ]|\\(?:left|right)(?![a-zA-Z])|[.$]$")
_BIG_FRACTION = re.compile(r"\\[dt]frac")
_LAST_NUMBER = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_MARKED_NUMBER = re.compile(r"#### (-?[0-9.,]+)")
_LETTER = re.compile(r"(?i)Answer[ \t]*:[ \t]*\$?([A-D])\$?")
_IGNORED = re.compile(r"[,$]")
_MARK = "#### "


def boxed(gold: str) -> str:
    """A gold as an answer that gives it."""
    return gold if "\\boxed" in gold else f"\\boxed{{{gold}}}"


def in_the_box(prediction: str) -> str | None:
    """What stands in the last box that holds something, without spacing; None: no box does."""
    for box in reversed(list(_BOX.finditer(prediction))):
        content = _up_to_its_brace(prediction, box.end()) if box.group().endswith("{") else _word(prediction, box.end())
        if plain := _SPACING.sub("", _BIG_FRACTION.sub(r"\\frac", content)):
            return plain
    return None


def _up_to_its_brace(text: str, start: int) -> str:
    """The text up to the brace that closes what was opened before it; up to the end of its line where none does."""
    depth = 1
    for brace in _BRACE.finditer(text, start):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return text[start : brace.start()]
    return text[start:].split("\n", 1)[0]


def _word(text: str, start: int) -> str:
    return (text[start : start + 100].split(maxsplit=1) or [""])[0]


@metric(MATH_VERIFY, each_gold=True, format_ok=AtTheEnd(in_the_box), as_answer=boxed)
def math_verify(prediction: str, gold: str, meta: Meta) -> float:
    """1.0 if math-verify finds the answer equal to the gold, an expression in LaTeX or plain; else 0.0.

    Source: math-verify's `verify(parse(gold), parse(prediction))` with its defaults, the gold in a box; equal on
    tests/analyzer/golden/math_verify.jsonl. What takes it more than 2 s of CPU time scores 0; its own limit is 5 s on
    the clock.
    """
    require("math_verify")
    return float(math_process().equal(boxed(gold), prediction))


def last_number(prediction: str) -> str | None:
    """The last number of an answer, or what looks like one: `$1,000.` is 1000; None: there is none."""
    numbers = deque(_LAST_NUMBER.finditer(prediction), maxlen=1)
    return _plain(numbers[0].group()) if numbers else None


def marked_number(prediction: str) -> str | None:
    """The first number behind `#### `; None: there is none."""
    match = _MARKED_NUMBER.search(prediction)
    return _plain(match.group(1)) if match else None


def _same_number(read: Callable[[str], str | None], prediction: str, gold: str, meta: Meta) -> float:
    return float(read(prediction) == _plain(gold))


def _plain(number: str) -> str:
    """Without commas, dollar signs, a full stop at the end and what stands before `#### `; in lower case."""
    return re.sub(r"\.$", "", _IGNORED.sub("", number).rpartition(_MARK)[2]).lower()


@metric("gsm8k_number", each_gold=True, format_ok=AtTheEnd(last_number))
def gsm8k_number(prediction: str, gold: str, meta: Meta) -> float:
    """1.0 if the answer's last number is the gold's.

    Source: lm-evaluation-harness, filter flexible-extract of its tasks on GSM8K; equal on
    tests/analyzer/golden/gsm8k.jsonl.
    """
    return _same_number(last_number, prediction, gold, meta)


@metric("gsm8k_strict", each_gold=True, format_ok=AtTheEnd(marked_number), as_answer="#### {}".format)
def gsm8k_strict(prediction: str, gold: str, meta: Meta) -> float:
    """1.0 if the number behind the answer's first `#### ` is the gold's, as the authors of GSM8K read answers.

    Source: lm-evaluation-harness, filter strict-match of its task gsm8k; equal on tests/analyzer/golden/gsm8k.jsonl.
    """
    return _same_number(marked_number, prediction, gold, meta)


def stated_letter(prediction: str) -> str | None:
    """The letter behind the first `Answer:`, as it stands there; None: there is none from A to D."""
    match = _LETTER.search(prediction)
    return match.group(1) if match else None


@metric("gpqa_letter", each_gold=True, format_ok=AtTheEnd(stated_letter), as_answer="Answer: {}".format)
def gpqa_letter(prediction: str, gold: str, meta: Meta) -> float:
    """1.0 if the letter behind the answer's first `Answer:` is the gold, a capital.

    Source: simple-evals, gpqa_eval.py; equal on tests/analyzer/golden/gpqa_letter.jsonl. Quirks kept: the first such
    line counts, a small letter is wrong, and `**Answer:** B` states none.
    """
    return float(stated_letter(prediction) == gold)
