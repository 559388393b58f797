"""Code completion: similarity of one line of code. Source: LongBench (Bai et al., 2024)."""

from difflib import SequenceMatcher
from functools import lru_cache

from analyzer.metrics import Meta, metric

_NOT_CODE = ("`", "#", "//")
_AUTOJUNK_LENGTH = 200  # from here on difflib leaves frequent characters out of its search


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


@lru_cache(maxsize=1 << 14)  # budgets that change nothing give the same line again
def matching_characters(a: str, b: str) -> int:
    """Characters in the matching blocks of difflib's SequenceMatcher(None, a, b), by searching substrings.

    The longest common block, earliest in a, then in b, is taken; the same again left and right of it.
    """
    if len(b) >= _AUTOJUNK_LENGTH:
        return sum(block.size for block in SequenceMatcher(None, a, b).get_matching_blocks())
    total, todo = 0, [(a, b)]
    while todo:
        left, right = todo.pop()
        start, size = _longest_block(left, right)
        if size:
            total += size
            at = right.find(left[start : start + size])
            if start and at:
                todo.append((left[:start], right[:at]))
            if start + size < len(left) and at + size < len(right):
                todo.append((left[start + size :], right[at + size :]))
    return total


def _longest_block(a: str, b: str) -> tuple[int, int]:
    """Start in a and length of the longest substring of a that occurs in b; of equally long ones the first."""
    best, size, last = 0, 0, len(a)
    start = 0
    while start + size < last:
        if a[start : start + size + 1] in b:
            best, size = start, size + 1
            while start + size < last and a[start : start + size + 1] in b:
                size += 1
        start += 1
    return best, size


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
