"""Code completion: similarity of one line of code. Source: LongBench (Bai et al., 2024)."""

from analyzer.metrics import Meta, best_of, metric

_NOT_CODE = ("`", "#", "//")


def code_sim_one(prediction: str, gold: str, meta: Meta) -> float:
    """Indel similarity (2 LCS / total length, rounded to whole percent) of the answer's first line of code and gold.

    The first line without a backtick or comment sign counts; none: the empty text. Rounding is the official one's.
    """
    lines = prediction.lstrip("\n").split("\n")
    line = next((line for line in lines if not any(sign in line for sign in _NOT_CODE)), "")
    total = len(line) + len(gold)
    return round(100 * 2 * common_subsequence(line, gold) / total) / 100 if line and gold else 0.0


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


metric("code_sim")(best_of(code_sim_one))
