"""Summaries: ROUGE-L F1. Needs the `longbench` extra (the official script's own packages, so figures agree)."""

from typing import Any

from analyzer.metrics import Meta, best_of, metric
from analyzer.metrics.extra import load


def rouge_one(prediction: str, gold: str, meta: Meta) -> float:
    """ROUGE-L F1 of the package `rouge`; 0.0 where it can't be computed (an empty text). Source: LongBench."""
    scorer: Any = load("rouge").Rouge()
    try:
        return float(scorer.get_scores([prediction], [gold], avg=True)["rouge-l"]["f"])
    except (ValueError, RecursionError):
        return 0.0


def rouge_zh_one(prediction: str, gold: str, meta: Meta) -> float:
    """ROUGE-L F1 over jieba's words."""
    jieba = load("jieba")
    return rouge_one(" ".join(jieba.cut(prediction, cut_all=False)), " ".join(jieba.cut(gold, cut_all=False)), meta)


metric("rouge")(best_of(rouge_one))
metric("rouge_first_line", first_line=True)(best_of(rouge_one))  # samsum: only the answer's first line counts
metric("rouge_zh")(best_of(rouge_zh_one))
