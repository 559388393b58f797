"""Question answering as LongBench and RULER score it."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from analyzer.metrics import Meta, metric
from analyzer.metrics.word_lists import chinese_tokens, english_tokens

_CONTROL = re.compile(r"[\x00-\x1f]")


@metric("qa_f1", each_gold=True)
@metric("qa_f1_first_line", each_gold=True, first_line=True)  # triviaqa: only the answer's first line counts
def qa_f1(prediction: str, gold: str, meta: Meta) -> float:
    """Token-overlap F1 after LongBench's normalisation (lower, no ASCII punctuation, no articles); 0.0 if none shared.

    Source: LongBench (Bai et al., 2024). Quirk kept: two empty answers share nothing and score 0.
    """
    return _overlap(english_tokens(prediction), english_tokens(gold))


@metric("qa_f1_zh", each_gold=True)
def qa_f1_zh(prediction: str, gold: str, meta: Meta) -> float:
    """The same on jieba's words for Chinese; needs the `longbench` extra."""
    return _overlap(chinese_tokens(prediction), chinese_tokens(gold))


@metric("string_match_all")
def string_match_all(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """Share of golds that occur in the answer, case ignored (RULER: retrieval and tracking)."""
    answer = _printable(prediction)
    return sum(_composed(gold) in answer for gold in golds) / len(golds) if golds else 0.0


@metric("string_match_part")
def string_match_part(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """1.0 if any gold occurs in the answer, case ignored (RULER: question answering)."""
    answer = _printable(prediction)
    return float(any(_composed(gold) in answer for gold in golds))


def _printable(prediction: str) -> str:
    """RULER's own: control characters become line breaks, so a gold that one interrupts is not found."""
    return _composed(_CONTROL.sub("\n", prediction).strip())


def _composed(text: str) -> str:
    """In lower case, and é one character however it came; RULER's own texts are ASCII."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", text.lower())


def _overlap(prediction: Sequence[str], gold: Sequence[str]) -> float:
    common = sum((Counter(prediction) & Counter(gold)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(prediction), common / len(gold)
    return 2 * precision * recall / (precision + recall)
