"""ROUGE-Lsum F1 as the package `rouge_score` 0.1.2 computes it without stemming: sentences end at line breaks, words
are runs of ASCII letters and digits in lower case.

For each sentence of the gold the longest common subsequences with all sentences of the answer are united, and a word
counts as often as either text has it (Lin 2004, section 3.2).
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

_NO_WORD = re.compile(r"[^a-z0-9]+")
Sentence = tuple[str, ...]


def rouge_lsum(prediction: str, gold: str) -> float:
    """In [0, 1]; 0.0 where either text has no word."""
    answered, wanted = _sentences(prediction), _sentences(gold)
    n_answered, n_wanted = sum(map(len, answered)), sum(map(len, wanted))
    if not n_answered or not n_wanted:
        return 0.0
    left_said = Counter(word for sentence in answered for word in sentence)
    left_wanted = Counter(word for sentence in wanted for word in sentence)
    hits = 0
    for sentence in wanted:
        places: set[int] = set().union(*(common_places(sentence, other) for other in answered))
        for word in (sentence[place] for place in sorted(places)):
            if left_said[word] and left_wanted[word]:
                hits += 1
                left_said[word] -= 1
                left_wanted[word] -= 1
    if not hits:
        return 0.0
    precision, recall = hits / n_answered, hits / n_wanted
    return 2 * precision * recall / (precision + recall)


@lru_cache(maxsize=4096)
def _sentences(text: str) -> tuple[Sentence, ...]:
    parts = (part for part in text.split("\n") if part)
    return tuple(tuple(word for word in _NO_WORD.sub(" ", part.lower()).split()) for part in parts)


def common_places(a: Sequence[str], b: Sequence[str]) -> list[int]:
    """Places in `a` of the longest common subsequence that is found from the ends, going back in `a` unless that makes
    it shorter.

    Bit j of row i is 0 where the subsequence of a[:i] and b[:j + 1] is longer than that of a[:i] and b[:j]
    (Hyyro 2004), so the zeros below bit j are the length for b[:j].
    """
    where: dict[str, int] = {}
    for j, word in enumerate(b):
        where[word] = where.get(word, 0) | (1 << j)
    full = (1 << len(b)) - 1
    rows = [full]
    for word in a:
        row = rows[-1]
        match = row & where.get(word, 0)
        rows.append(((row + match) | (row - match)) & full)
    places: list[int] = []
    i, j = len(a), len(b)
    while i and j:
        below = (1 << j) - 1
        if a[i - 1] == b[j - 1]:
            i, j = i - 1, j - 1
            places.append(i)
        elif (rows[i] & (below >> 1)).bit_count() + 1 < (rows[i - 1] & below).bit_count():
            j -= 1
        else:
            i -= 1
    return places
