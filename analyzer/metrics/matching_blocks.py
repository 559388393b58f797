"""difflib's matching blocks, found by searching substrings: the same number of characters, in a fraction of the time.

`SequenceMatcher(None, a, b)` takes the longest common block, then the same left and right of it (Ratcliff and Obershelp
1988). Where b has 200 characters or more, a block is looked for in those characters alone that are rare in b (no more
than 1% of it, and one more), and then grown by whatever is equal around it.
"""

from bisect import bisect_right
from collections import Counter
from itertools import count

AUTOJUNK_LENGTH = 200  # from here on difflib leaves frequent characters out of its search
SHORT = 1000  # below this plain search is faster: a line of code in a quarter of the time


def ratio(a: str, b: str) -> float:
    """difflib's SequenceMatcher(None, a, b).ratio(): twice the matching characters by those of both; of no text 1."""
    total = len(a) + len(b)
    return 2.0 * matching_characters(a, b) / total if total else 1.0


def matching_characters(a: str, b: str) -> int:
    """Characters in the matching blocks of difflib's SequenceMatcher(None, a, b)."""
    if a == b:
        return len(a)
    if len(b) < AUTOJUNK_LENGTH and len(a) < SHORT:
        return _matching_short(a, b)
    return _Pair(a, b).matching() if a and b else 0


class _Pair:
    """Two texts, and the same with a sign in the place of each character that no search begins or ends with: one sign
    in a, another in b, so that what is equal holds none.
    """

    def __init__(self, a: str, b: str) -> None:
        self._a, self._b = a, b
        in_a, in_b = Counter(a).keys(), Counter(b)
        often = len(b) // 100 + 1 if len(b) >= AUTOJUNK_LENGTH else len(b)
        rare = {char for char, n in in_b.items() if n <= often}
        free = (chr(code) for code in count(0xE000) if chr(code) not in in_a and chr(code) not in in_b)
        no_a, no_b = next(free), next(free)
        self._rare_a = a.translate({ord(char): no_a for char in in_a - rare})
        self._rare_b = b.translate({ord(char): no_b for char in in_b.keys() - rare})
        self._starts, self._ends = _runs(self._rare_a, no_a)

    def matching(self) -> int:
        total, todo = 0, [(0, len(self._a), 0, len(self._b), len(self._b))]
        while todo:
            a_from, a_to, b_from, b_to, most = todo.pop()
            start, at, size = self._longest(a_from, a_to, b_from, b_to, most)
            seed = size
            while start > a_from and at > b_from and self._a[start - 1] == self._b[at - 1]:
                start, at, size = start - 1, at - 1, size + 1
            size += _common_start(self._a, start + size, a_to, self._b, at + size, b_to)
            if size:
                total += size
                if start > a_from and at > b_from:
                    todo.append((a_from, start, b_from, at, seed))
                if start + size < a_to and at + size < b_to:
                    todo.append((start + size, a_to, at + size, b_to, seed))
        return total

    def _longest(self, a_from: int, a_to: int, b_from: int, b_to: int, most: int) -> tuple[int, int, int]:
        """Start in a, start in b and length of the longest block of rare characters; of equally long ones the first in
        a, then in b. Without any: the two starts, and 0. No block is longer than `most`: a wider search found none.
        """
        rare_a, find, best, size, tried = self._rare_a, self._rare_b.find, a_from, 0, set[str]()
        if most:
            for run in range(max(0, bisect_right(self._starts, a_from) - 1), len(self._starts)):
                start, end = max(self._starts[run], a_from), min(self._ends[run], a_to)
                if start >= a_to:
                    break
                while start + size < end:
                    block = rare_a[start : start + size + 1]
                    if block not in tried:
                        if find(block, b_from, b_to) >= 0:
                            best, size = start, size + 1
                            while start + size < end and find(rare_a[start : start + size + 1], b_from, b_to) >= 0:
                                size += 1
                            if size == most:
                                return best, find(rare_a[best : best + size], b_from, b_to), size
                        else:
                            tried.add(block)
                    start += 1
        return best, find(rare_a[best : best + size], b_from, b_to) if size else b_from, size


def _runs(text: str, sign: str) -> tuple[list[int], list[int]]:
    """Where each stretch without the sign begins and ends."""
    starts, ends, at = [], [], 0
    for part in text.split(sign):
        if part:
            starts.append(at)
            ends.append(at + len(part))
        at += len(part) + 1
    return starts, ends


def _common_start(a: str, a_from: int, a_to: int, b: str, b_from: int, b_to: int) -> int:
    """How many characters are equal from here on."""
    most, n, step = min(a_to - a_from, b_to - b_from), 0, 64
    while step:
        while n + step <= most and a[a_from + n : a_from + n + step] == b[b_from + n : b_from + n + step]:
            n += step
        step //= 2
    return n


def _matching_short(a: str, b: str) -> int:
    """The same where every character of b is searched for."""
    total, todo = 0, [(a, b)]
    while todo:
        left, right = todo.pop()
        start, size = _longest_common(left, right)
        if size:
            total += size
            at = right.find(left[start : start + size])
            if start and at:
                todo.append((left[:start], right[:at]))
            if start + size < len(left) and at + size < len(right):
                todo.append((left[start + size :], right[at + size :]))
    return total


def _longest_common(a: str, b: str) -> tuple[int, int]:
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
