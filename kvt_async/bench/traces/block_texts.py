"""Texts of a trace's blocks: equal ids give equal text, and a prompt is as long as its trace says, to the token.

A prompt is its chat template's head, one word that all prompts begin with, and then words of one token each. Block k
holds the tokens from one edge to the next of the *rendered* prompt, so that a server whose cache has blocks finds what
the trace says. A block's words are drawn from (seed, salt, id) alone: nothing needs to be kept, and a bounded cache of
the texts used last keeps it fast.
"""

import random
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kvt_async.bench.exact_texts import TextMaker
from kvt_async.bench.traces.trace_source import Edges
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.prompt_text import plain

CACHE_CHARS = 64 << 20  # of texts used last
_CHECK_FIRST, _CHECK_EVERY = 32, 64  # prompts counted as a whole: the first ones, and then one in so many
_ROUNDS = 40


@dataclass(frozen=True, slots=True)
class Wanted:
    """A prompt to be made. `root`: what all prompts that may share text have in common; `key`: of its own text."""

    tokens: int
    blocks: Sequence[int | str] | None
    root: str
    key: str


class BlockTexts:
    """Makes user texts. Raises ConfigError where the tokenizer has too few plain words of one token."""

    def __init__(self, maker: TextMaker, edges: Edges) -> None:
        self._maker, self._edges = maker, edges
        self._words, self._lead = maker.words, maker.words[0]
        alone, longer = maker.count([maker.messages(self._lead), maker.messages(self._lead + f" {self._words[1]}" * 8)])
        self.least = alone  # tokens of the shortest prompt: template and one word
        self._head = self._tokens_until_lead(alone)
        self._checks_all = longer != alone + 8
        self._n_made = 0
        self._cache: OrderedDict[tuple[str, int], str] = OrderedDict()
        self._cached_chars = 0

    def texts(self, wanted: Sequence[Wanted]) -> list[str]:
        """The user text of each prompt."""
        texts = [self._text(one) for one in wanted]
        check = [n for n in range(len(wanted)) if self._is_checked(n)]
        self._n_made += len(wanted)
        off = self._correct(wanted, texts, check)
        if off and not self._checks_all:  # words join here as they did not in the first ones
            self._checks_all = True
            self._correct(wanted, texts, [n for n in range(len(wanted)) if n not in set(check)])
        return texts

    def _is_checked(self, n: int) -> bool:
        number = self._n_made + n
        return self._checks_all or number < _CHECK_FIRST or number % _CHECK_EVERY == 0

    def _text(self, one: Wanted) -> str:
        n_words, parts, at = max(0, one.tokens - self.least), [self._lead], 0
        for k, block in enumerate(one.blocks or ()):
            end = min(max(0, self._edges(k + 1) - self._head), n_words)
            if end > at:
                parts.append(self._block(f"{one.root}:{block}", end - at))
                at = end
            if at == n_words:
                break
        if at < n_words:
            parts.append(self._drawn(one.key, n_words - at))
        return " ".join(parts)

    def _block(self, key: str, n: int) -> str:
        """The first `n` words of a block."""
        text = self._cache.get((key, n))
        if text is not None:
            self._cache.move_to_end((key, n))
            return text
        text = self._drawn(key, n)
        self._cache[key, n] = text
        self._cached_chars += len(text)
        while self._cached_chars > CACHE_CHARS:
            _, oldest = self._cache.popitem(last=False)
            self._cached_chars -= len(oldest)
        return text

    def _drawn(self, key: str, n: int) -> str:
        """`n` words that the key decides; the first of them are those of any smaller `n`."""
        words = self._words
        numbers = np.frombuffer(random.Random(key).randbytes(4 * n), dtype=np.uint32) % len(words)
        return " ".join(map(words.__getitem__, numbers.tolist()))

    def _correct(self, wanted: Sequence[Wanted], texts: list[str], todo: list[int]) -> bool:
        """Count these, change the ends of those that are not as long as they are to be; whether there were any."""
        was_off = False
        for _ in range(_ROUNDS):
            counts = self._maker.count([self._maker.messages(texts[n]) for n in todo])
            off = [
                (n, count - max(self.least, wanted[n].tokens))
                for n, count in zip(todo, counts, strict=True)
                if count != max(self.least, wanted[n].tokens)
            ]
            if not off:
                return was_off
            was_off = True
            for n, over in off:
                words = texts[n].split(" ")
                rng = random.Random(f"{wanted[n].key}:{over}:{len(words)}")
                words = words[:-over] if over > 0 else words + rng.choices(self._words, k=-over)
                texts[n] = " ".join(words)
            todo = [n for n, _ in off]
        raise ConfigError(
            f"no prompt of exactly {wanted[todo[0]].tokens} tokens was found with the tokenizer "
            f"{self._maker.tokenizer.name!r}",
            where="bench.workload",
            do="Count with approx:chars/4, or take the trace's lengths for kind: synthetic.",
        )

    def _tokens_until_lead(self, alone: int) -> int:
        """Tokens of a rendered prompt up to the first word's end."""
        messages = self._maker.messages(self._lead)
        chat = self._maker.tokenizer.chat if self._maker.is_templated else None
        text = chat.render(messages) if chat is not None else plain(messages)
        head = text[: text.rindex(self._lead) + len(self._lead)]
        return min(alone, self._maker.tokenizer.count([head], special=not self._maker.is_templated)[0])
