"""Code completion: similarity of one line of code. Source: LongBench (Bai et al., 2024)."""

from functools import lru_cache

from analyzer.metrics import Meta, matching_blocks, metric

_NOT_CODE = ("`", "#", "//")


@metric("code_sim", each_gold=True)
def code_sim(prediction: str, gold: str, meta: Meta) -> float:
    """Similarity in whole percent of the answer's first line of code and the gold, as the official script computes it:
    fuzzywuzzy without its optional C library, that is difflib's ratio (Ratcliff and Obershelp 1988).

    The first line without a backtick or comment sign counts; none: the empty text. Quirk kept: two empty texts are
    equal and score 1.
    """
    line = first_code_line(prediction)
    if line == gold:
        return 1.0
    if not line or not gold:
        return 0.0
    return round(100 * (2.0 * matching_characters(line, gold) / (len(line) + len(gold)))) / 100


@metric("code_sim_indel", each_gold=True)
def code_sim_indel(prediction: str, gold: str, meta: Meta) -> float:
    """The same with the optional C library installed: Indel similarity (2 LCS / total length) in whole percent."""
    line = first_code_line(prediction)
    if line == gold:
        return 1.0
    total = len(line) + len(gold)
    return round(100 * 2 * common_subsequence(line, gold) / total) / 100 if line and gold else 0.0


def first_code_line(prediction: str) -> str:
    lines = prediction.lstrip("\n").split("\n")
    return next((line for line in lines if not any(sign in line for sign in _NOT_CODE)), "")


matching_characters = lru_cache(maxsize=1 << 14)(matching_blocks.matching_characters)
"""Budgets that change nothing give the same line again."""


def common_subsequence(a: str, b: str) -> int:
    """Length of the longest common subsequence, bit-parallel (Hyyro 2004): O(len(a) * len(b) / word)."""
    where: dict[str, int] = {}
    for i, c in enumerate(a):
        where[c] = where.get(c, 0) | (1 << i)
    full = (1 << len(a)) - 1
    row = full
    for c in b:
        match = row & where.get(c, 0)
        row = ((row + match) | (row - match)) & full
    return len(a) - row.bit_count()
