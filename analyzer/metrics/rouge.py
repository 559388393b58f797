"""Summaries: ROUGE-L F1 as the package `rouge` 1.0.1 computes it, which the official LongBench script uses.

That is ROUGE-L over a summary (Lin 2004) on sets: texts are split into sentences at every full stop, sentences into
words at white space; the words of one longest common subsequence of every pair of sentences are united, and their
number is divided by the number of distinct words of either text.
"""

from collections.abc import Sequence
from functools import lru_cache

from analyzer.metrics import Meta, metric
from analyzer.metrics.word_lists import chinese_words

_STEPS = 991  # so deep can the package recurse from the official script at Python's default limit of 1,000 frames
_SMOOTH = 1e-8  # the package's guard against a division by zero


@metric("rouge", each_gold=True)
@metric("rouge_first_line", each_gold=True, first_line=True)  # samsum: only the answer's first line counts
def rouge(prediction: str, gold: str, meta: Meta) -> float:
    """ROUGE-L F1; 0.0 where either text holds nothing but full stops. Source: LongBench, package `rouge`.

    Quirk kept: where two sentences together are so long (some 500 words each) that the package's recursion would
    overflow, the official script catches the error and scores 0. `rouge_fixed` scores them.
    """
    return _rouge(prediction, gold, _STEPS)


@metric("rouge_fixed", each_gold=True)
def rouge_fixed(prediction: str, gold: str, meta: Meta) -> float:
    """The same for sentences of any length."""
    return _rouge(prediction, gold, None)


@metric("rouge_zh", each_gold=True)
def rouge_zh(prediction: str, gold: str, meta: Meta) -> float:
    """ROUGE-L F1 over jieba's words; needs the `longbench` extra. The Chinese full stop ends no sentence here."""
    return rouge(" ".join(chinese_words(prediction)), " ".join(chinese_words(gold)), meta)


def _rouge(prediction: str, gold: str, steps: int | None) -> float:
    answered, wanted = _sentences(prediction), _sentences(gold)
    if not answered or not wanted:
        return 0.0
    distinct_said, distinct_wanted = set[str]().union(*answered), set[str]().union(*wanted)
    shared: set[str] = set()
    said_sets = [set(sentence) for sentence in answered]
    for sentence in wanted:
        where = set(sentence)
        for other, words in zip(answered, said_sets, strict=True):
            if (where & words) <= shared and (steps is None or len(sentence) + len(other) <= steps):
                continue
            taken = common_words(sentence, other)
            if steps is not None and taken[1] > steps:
                return 0.0
            shared |= taken[0]
    precision, recall = len(shared) / len(distinct_said), len(shared) / len(distinct_wanted)
    return 2.0 * (precision * recall / (precision + recall + _SMOOTH))


@lru_cache(maxsize=4096)
def _sentences(text: str) -> tuple[tuple[str, ...], ...]:
    """Words of each sentence; one of white space alone is one empty word, as the package has it."""
    return tuple(tuple(part.split()) or ("",) for part in text.split(".") if part)


def common_words(a: Sequence[str], b: Sequence[str]) -> tuple[set[str], int]:
    """Words of the longest common subsequence that is found from the ends, going back in `b` unless going back in `a`
    keeps it longer; and the number of steps back that took.

    Bit j of row i is 0 where the subsequence of a[:i] and b[:j + 1] is longer than that of a[:i] and b[:j]
    (Hyyro 2004).
    """
    where: dict[str, int] = {}
    for j, word in enumerate(b):
        where[word] = where.get(word, 0) | (1 << j)
    full = (1 << len(b)) - 1
    row, rows = full, []
    for word in a:
        match = row & where.get(word, 0)
        row = ((row + match) | (row - match)) & full
        rows.append(row)
    taken: set[str] = set()
    i, j, steps = len(a), len(b), 1
    while i and j:
        if a[i - 1] == b[j - 1]:
            taken.add(a[i - 1])
            i, j = i - 1, j - 1
        elif rows[i - 1] >> (j - 1) & 1:
            j -= 1
        else:
            i -= 1
        steps += 1
    return taken, steps
