"""Question answering as SQuAD 2.0 scores it (Rajpurkar et al., 2018): every punctuation mark and the articles go.

`em` and `f1` (normal.py) keep the marks that carry a value and the articles. As in the official script a gold of which
nothing is left, beside others, is no gold; where none is left, an empty answer is right.
"""

from collections.abc import Sequence

from analyzer.metrics import Meta, metric
from analyzer.metrics.normal import token_f1
from analyzer.metrics.word_lists import english_tokens


@metric("squad_em")
def squad_em(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """1.0 if the normalised answer is a gold's; without golds an empty answer is right."""
    return float(english_tokens(prediction) in _golds(golds))


@metric("squad_f1")
def squad_f1(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """Token-overlap F1, best over golds; two empty texts are equal, and without golds an empty answer is right."""
    tokens = " ".join(english_tokens(prediction))
    return max(token_f1(tokens, " ".join(gold)) for gold in _golds(golds))


def _golds(golds: Sequence[str]) -> list[tuple[str, ...]]:
    return [tokens for gold in golds if (tokens := english_tokens(gold))] or [()]
