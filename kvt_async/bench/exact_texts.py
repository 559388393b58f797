"""Prompts of an exact number of tokens, as the served model's tokenizer counts them, chat template included."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.prompt_text import plain
from kvt_async.data.sources.kvtext_words import PUNCTUATION, SPECIALS, VOCABULARY
from kvt_async.data.tokens import PromptTokenizer

_ROUNDS = 40
_STEM = "the the the "  # twelve characters: whole tokens also where four characters are one
MIN_WORDS = 32
SALT_WORDS = 10  # of at least 32 words: 50 bits or more
WORDS_OF_KVTEXT = VOCABULARY[len(SPECIALS) + len(PUNCTUATION) :]
# Common words: with most tokenizers each is one token when a space stands before it. Those that aren't are left out.
_COMMON = """the of and to in is that for it was on are as with his they at be this from have or by one had not but what
all were when we there can an your which their said if do will each about how up out them then she many some so these
would other into has more her two like him see time could no make than first been its who now people my made over did
down only way find use may water long little very after words called just where most know get through back much before
go good new write our used me man too any day same right look think also around another came come work three word must
because does part even place well such here take why things help put years different away again off went old number
great tell men say small every found still between name should home big give air line set own under read last never us
left end along while might next sound below saw something thought both few those always looked show large often
together asked house world going want school important until form food keep children feet land side without boy once
animals life enough took sometimes four head above kind began almost live page got earth need far hand high year mother
light parts country father let night following picture being study second eyes soon times story boys since white days
ever paper hard near sentence better best across during today others however sure means knew try told young miles sun
ways thing whole hear example heard several change answer room sea against top turned learn point city play toward five
using himself usually"""


class TextMaker:
    """Makes salted texts of exact length. `system`: text of a system message, or None."""

    def __init__(self, tokenizer: PromptTokenizer, *, endpoint: str, system: str | None) -> None:
        self.tokenizer, self._system = tokenizer, system
        self.is_templated = endpoint == "chat" and tokenizer.chat is not None

    def messages(self, text: str) -> list[dict[str, str]]:
        return [
            *([{"role": "system", "content": self._system}] if self._system else []),
            {"role": "user", "content": text},
        ]

    def count(self, prompts: Sequence[Sequence[dict[str, str]]]) -> list[int]:
        """Tokens of each prompt as the server will count it."""
        chat = self.tokenizer.chat if self.is_templated else None
        texts = [chat.render(p) if chat is not None else plain(list(p)) for p in prompts]
        return self.tokenizer.count(texts, special=not self.is_templated)

    @cached_property
    def words(self) -> list[str]:
        """Words that add one token each wherever they stand, a different one each: none is the unknown token."""
        candidates = list(dict.fromkeys([*_COMMON.split(), *WORDS_OF_KVTEXT]))
        counts = self.tokenizer.count([_STEM + f"{word} " * 9 + "end" for word in candidates], special=False)
        base = self.tokenizer.count([_STEM + "end"], special=False)[0]
        plain_ones = [word for word, n in zip(candidates, counts, strict=True) if n == base + 9]
        ids = self.tokenizer.ids([f"{_STEM}{word}" for word in plain_ones])
        last = Counter(tokens[-1] for tokens in ids)
        ok = [word for word, tokens in zip(plain_ones, ids, strict=True) if last[tokens[-1]] == 1]
        if len(ok) < MIN_WORDS:
            raise ConfigError(
                f"the tokenizer {self.tokenizer.name!r} has too few plain words of one token: prompts of exact length "
                "can't be made with it",
                where="tokenizer.name",
                do="Bench with bench.workload.kind: manifest or jsonl, or count with approx:chars/4.",
            )
        return ok

    def salt(self, key: str) -> str:
        """Words that begin a prompt: two keys never share their first cache block, whatever its size."""
        return " ".join(random.Random(key).choices(self.words, k=SALT_WORDS))

    def exact(self, wanted: Sequence[tuple[str, int, str]]) -> list[str]:
        """User texts for (head, tokens, key): `head` first, then words drawn by `key`, the whole prompt `tokens` long.

        Raises ConfigError where head and chat template alone are longer.
        """
        heads = self.count([self.messages(head) for head, _, _ in wanted])
        drawn = []
        for (_, tokens, key), used in zip(wanted, heads, strict=True):
            if used > tokens:
                raise ConfigError(
                    f"a prompt of {tokens} tokens can't be made: chat template, salt and shared prefix take {used}",
                    where="bench.workload.input_tokens",
                    do=f"Ask for at least {used}, or set bench.salt: false.",
                )
            drawn.append(random.Random(key).choices(self.words, k=tokens - used))
        return self._settle(wanted, drawn, lambda texts: self.count([self.messages(text) for text in texts]))

    def plain_texts(self, wanted: Sequence[tuple[int, str]]) -> list[str]:
        """Texts for (tokens, key): words drawn by `key`, so many tokens by themselves, without template and special
        tokens."""
        drawn = [random.Random(key).choices(self.words, k=tokens) for tokens, key in wanted]
        asked = [("", tokens, key) for tokens, key in wanted]
        return self._settle(asked, drawn, lambda texts: self.tokenizer.count(texts, special=False))

    def _settle(
        self,
        wanted: Sequence[tuple[str, int, str]],
        drawn: list[list[str]],
        count: Callable[[Sequence[str]], list[int]],
    ) -> list[str]:
        """Count, correct by the difference, count again: words may join at their edges with some tokenizers."""
        texts = [""] * len(wanted)
        todo = list(range(len(wanted)))
        for _ in range(_ROUNDS):
            for n in todo:
                texts[n] = " ".join([wanted[n][0], *drawn[n]]) if wanted[n][0] else " ".join(drawn[n])
            counts = count([texts[n] for n in todo])
            off = [(n, count - wanted[n][1]) for n, count in zip(todo, counts, strict=True) if count != wanted[n][1]]
            if not off:
                return texts
            for n, over in off:
                rng = random.Random(f"{wanted[n][2]}:{over}:{len(drawn[n])}")
                drawn[n] = drawn[n][:-over] if over > 0 else drawn[n] + rng.choices(self.words, k=-over)
            todo = [n for n, _ in off]
        n = todo[0]
        raise ConfigError(
            f"no prompt of exactly {wanted[n][1]} tokens was found with the tokenizer {self.tokenizer.name!r}",
            where="bench.workload.input_tokens",
            do="Ask for another length, or count with approx:chars/4.",
        )
