"""Chinese words as jieba 0.42 cuts them by default (cut_all=False, with its model for unknown words), several times
faster: the most probable way through a sentence is searched while its words are looked up, and what was looked up
stays known. jieba's own dictionary and model are used, and a test compares the two.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from math import log
from typing import Any

from analyzer.metrics.optional import load

_RUN = re.compile(r"([\u4E00-\u9FD5a-zA-Z0-9+#&\._%\-]+)")  # what may form words; all else is its own word
_HAN = re.compile(r"[\u4E00-\u9FD5]+")
_NONE = float("-inf")
_NEVER = -3.14e100  # jieba's logarithm of a chance it has no figure for
_BREAK = re.compile(r"\r\n")  # one word, other separators are single characters


class _Segmenter:
    """Needs jieba's tokenizer `dt` and its cutter of unknown text."""

    def __init__(self, jieba: Any) -> None:
        # jieba.initialize() would read them from a file of a fixed name in /tmp, which anybody may have put there.
        counts, total = jieba.dt.gen_pfdict(jieba.dt.get_dict_file())
        self._counts: dict[str, int] = counts  # beginnings of words too, with 0
        self._log_total = log(total)
        self._unknown = _Unknown(jieba.finalseg)
        self._weights: dict[str, float | None] = {}

    def words(self, run: str) -> Iterator[str]:
        """A maximal run of word characters, cut."""
        loose = ""  # single characters in a row: together perhaps a word the dictionary lacks
        at, path = 0, self._path(run)
        while at < len(run):
            end = path[at]
            if end - at == 1:
                loose += run[at]
            else:
                yield from self._loose(loose)
                loose = ""
                yield run[at:end]
            at = end
        yield from self._loose(loose)

    def _loose(self, text: str) -> Iterable[str]:
        if len(text) < 2:
            return text
        return text if self._counts.get(text) else self._unknown.words(text)

    def _path(self, run: str) -> list[int]:
        """Where the word that starts at each character ends on the most probable way to the end of the run; of equally
        probable ones the longer word.
        """
        counts, weights, n = self._counts, self._weights, len(run)
        best, ends = [0.0] * (n + 1), [0] * n
        for start in range(n - 1, -1, -1):
            end = start + 1
            word = run[start]
            top, chosen = _NONE, end
            while True:
                weight = weights.get(word, 0.0)
                if weight == 0.0:  # not looked up yet
                    count = counts.get(word)
                    if count is None:
                        break
                    weight = weights[word] = log(count) - self._log_total if count else None
                if weight is not None and (score := weight + best[end]) >= top:
                    top, chosen = score, end
                if end == n:
                    break
                end += 1
                word = run[start:end]
            if top == _NONE:  # no word starts here: the character alone, as if it had been seen once
                top = 0.0 - self._log_total + best[start + 1]
            best[start], ends[start] = top, chosen
        return ends


class _Unknown:
    """Words of text the dictionary lacks: each character is the beginning, middle or end of a word, or one by itself,
    as a hidden Markov model of these four finds most probable. Of equally probable ones the last letter of BEMS counts.
    """

    def __init__(self, model: Any) -> None:
        """Raises AttributeError, KeyError where jieba keeps its model in another form."""
        self._cut = model.cut
        self._start = [model.start_P[state] for state in "BEMS"]
        step = model.trans_P
        self._steps = [step["E"]["B"], step["S"]["B"], step["B"]["E"], step["M"]["E"]]
        self._steps += [step["B"]["M"], step["M"]["M"], step["E"]["S"], step["S"]["S"]]
        self._seen = [model.emit_P[state] for state in "BEMS"]
        self._of_char: dict[str, tuple[float, ...]] = {}
        self.words = lru_cache(maxsize=1 << 16)(self._words)

    def _words(self, text: str) -> tuple[str, ...]:
        if not _HAN.fullmatch(text):  # digits and letters have rules of their own
            return tuple(self._cut(text))
        eb, sb, be, me, bm, mm, es, ss = self._steps
        came: list[str] = []
        b, e, m, s = map(float.__add__, self._start, self._chances(text[0]))
        for char in text[1:]:
            to_b, to_e, to_m, to_s = self._chances(char)
            from_e, from_s = e + eb + to_b, s + sb + to_b
            from_b, from_m = b + be + to_e, m + me + to_e
            stay_b, stay_m = b + bm + to_m, m + mm + to_m
            end_e, end_s = e + es + to_s, s + ss + to_s
            came.append(
                ("S" if from_s >= from_e else "E")
                + ("M" if from_m >= from_b else "B")
                + ("M" if stay_m >= stay_b else "B")
                + ("S" if end_s >= end_e else "E")
            )
            b, e, m, s = max(from_e, from_s), max(from_b, from_m), max(stay_b, stay_m), max(end_e, end_s)
        state = "S" if s >= e else "E"
        states = [state]
        for before in reversed(came):
            state = before["BEMS".index(state)]
            states.append(state)
        return tuple(_spelled(text, states[::-1]))

    def _chances(self, char: str) -> tuple[float, ...]:
        chances = self._of_char.get(char)
        if chances is None:
            chances = self._of_char[char] = tuple(seen.get(char, _NEVER) for seen in self._seen)
        return chances


def _spelled(text: str, states: list[str]) -> Iterator[str]:
    start = 0
    for at, state in enumerate(states):
        if state in "ES":
            yield text[start : at + 1]
            start = at + 1


@cache
def _segmenter() -> _Segmenter:
    return _Segmenter(load("jieba"))


def cut(text: str) -> Iterator[str]:
    """The words of a text; joined they are the text. Needs the `longbench` extra."""
    words = _segmenter().words
    for place, part in enumerate(_RUN.split(text)):
        if place % 2:
            yield from words(part)
        else:
            yield from _separators(part)


def _separators(text: str) -> Iterator[str]:
    """Single characters, but \\r\\n as one."""
    start = 0
    for match in _BREAK.finditer(text):
        yield from text[start : match.start()]
        yield match.group()
        start = match.end()
    yield from text[start:]
