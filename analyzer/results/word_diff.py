"""Where two texts differ, word by word: pieces that both have, and pieces of one alone."""

import re
from difflib import SequenceMatcher
from typing import NamedTuple

MOST_WORDS = 1_500  # of either middle; beyond, the whole middle counts as different
_WORD = re.compile(r"\w+|\s+|[^\w\s]")


class Piece(NamedTuple):
    """A stretch of a text. `same`: the other text has it too, in this place."""

    text: str
    same: bool


def word_diff(one: str, other: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces; joined, the pieces are the text. Neighbours are never of one kind, none is empty."""
    a, b = _WORD.findall(one), _WORD.findall(other)
    head = 0
    while head < min(len(a), len(b)) and a[head] == b[head]:
        head += 1
    tail = 0
    while tail < min(len(a), len(b)) - head and a[-1 - tail] == b[-1 - tail]:
        tail += 1
    middle_a, middle_b = a[head : len(a) - tail], b[head : len(b) - tail]
    left = [("".join(a[:head]), True)]
    right = [("".join(b[:head]), True)]
    if max(len(middle_a), len(middle_b)) > MOST_WORDS:
        left.append(("".join(middle_a), False))
        right.append(("".join(middle_b), False))
    else:
        matcher = SequenceMatcher(None, middle_a, middle_b, autojunk=False)
        for kind, a0, a1, b0, b1 in matcher.get_opcodes():
            left.append(("".join(middle_a[a0:a1]), kind == "equal"))
            right.append(("".join(middle_b[b0:b1]), kind == "equal"))
    left.append(("".join(a[len(a) - tail :]), True))
    right.append(("".join(b[len(b) - tail :]), True))
    return _joined(left), _joined(right)


def _joined(pieces: list[tuple[str, bool]]) -> list[Piece]:
    out: list[Piece] = []
    for text, same in pieces:
        if not text:
            continue
        if out and out[-1].same == same:
            out[-1] = Piece(out[-1].text + text, same)
        else:
            out.append(Piece(text, same))
    return out
