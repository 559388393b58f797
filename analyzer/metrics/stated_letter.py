"""LongBench v2: the letter after "The correct answer is". Source: LongBench v2 (Bai et al., 2024)."""

import re
from collections.abc import Sequence

from analyzer.metrics import Meta, metric

_IN_BRACKETS = re.compile(r"The correct answer is \(([A-D])\)")
_BARE = re.compile(r"The correct answer is ([A-D])")


def answer_of(prediction: str) -> str | None:
    """The letter that the official script extracts: asterisks away, then the first one in brackets, else the first bare
    one; None where neither stands behind "The correct answer is "."""
    text = prediction.replace("*", "")
    match = _IN_BRACKETS.search(text) or _BARE.search(text)
    return match.group(1) if match else None


@metric(
    "longbench_v2_letter",
    format_ok=lambda prediction, meta: answer_of(prediction) is not None,
    needs_meta=("all_classes",),  # A to D: what guessing scores
    as_answer=lambda gold: f"The correct answer is ({gold})",
)
def longbench_v2_letter(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """1.0 if the extracted letter is the gold: none extracted scores 0, as in the script's main figure."""
    letter = answer_of(prediction)
    return float(letter is not None and letter in golds)
