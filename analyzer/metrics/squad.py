"""Question answering as SQuAD 2.0 scores it (Rajpurkar et al., 2018): every punctuation mark and the articles go.

`em` and `f1` (normal.py) keep the marks that carry a value and the articles.
"""

from collections.abc import Sequence

from analyzer.metrics import Meta, metric
from analyzer.metrics.normal import token_f1
from analyzer.metrics.word_lists import english_tokens


@metric("squad_em")
def squad_em(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """1.0 if the normalised answer is a gold's; without golds an empty answer is right."""
    tokens = english_tokens(prediction)
    return float(any(tokens == english_tokens(gold) for gold in golds or ("",)))


@metric("squad_f1")
def squad_f1(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """Token-overlap F1, best over golds; two empty texts are equal, and without golds an empty answer is right."""
    tokens = " ".join(english_tokens(prediction))
    return max(token_f1(tokens, " ".join(english_tokens(gold))) for gold in golds or ("",))
