"""Question answering as LongBench and RULER score it."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

from analyzer.metrics import Meta, best_of, metric

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ZH_PUNCTUATION = (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣"
    "､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
)


def qa_f1_one(prediction: str, gold: str, meta: Meta) -> float:
    """Token-overlap F1 after LongBench's normalisation (lower, no ASCII punctuation, no articles); 0.0 if none shared.

    Source: LongBench (Bai et al., 2024). Quirk kept: two empty answers share nothing and score 0.
    """
    return _overlap(_english(prediction).split(), _english(gold).split())


def qa_f1_zh_one(prediction: str, gold: str, meta: Meta) -> float:
    """The same on jieba's words for Chinese; needs the `longbench` extra."""
    return _overlap(_chinese(prediction), _chinese(gold))


metric("qa_f1")(best_of(qa_f1_one))
metric("qa_f1_first_line", first_line=True)(best_of(qa_f1_one))  # triviaqa: only the answer's first line counts
metric("qa_f1_zh")(best_of(qa_f1_zh_one))


@metric("string_match_all")
def string_match_all(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """Share of golds that occur in the answer, case ignored (RULER: retrieval and tracking)."""
    return sum(gold.lower() in prediction.lower() for gold in golds) / len(golds) if golds else 0.0


@metric("string_match_part")
def string_match_part(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """1.0 if any gold occurs in the answer, case ignored (RULER: question answering)."""
    return float(any(gold.lower() in prediction.lower() for gold in golds))


def _english(text: str) -> str:
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def _chinese(text: str) -> list[str]:
    jieba = _jieba()
    words = (str(word).lower() for word in jieba.cut(text, cut_all=False))
    skip = set(string.punctuation + _ZH_PUNCTUATION)
    bare = ("".join(c for c in word if c not in skip).replace(" ", "") for word in words)
    return [word for word in bare if word]


def _overlap(prediction: list[str], gold: list[str]) -> float:
    common = sum((Counter(prediction) & Counter(gold)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(prediction), common / len(gold)
    return 2 * precision * recall / (precision + recall)


def _jieba() -> Any:
    from analyzer.metrics.extra import load

    return load("jieba")
