"""RULER's tasks on lists: follow a variable (vt), find common words (cwe), find frequent coded words (fwe).

Templates and counts are those of the published configuration.
"""

import string
from collections.abc import Callable, Sequence
from itertools import pairwise

from kvt_async.data.sources import ruler_text as text
from kvt_async.data.sources.kvtext_text import Dice
from kvt_async.data.sources.ruler_task import RulerItem

LONG = 4096  # from here on the published sizes of cwe hold; below, its smaller ones


_VT_HEAD = "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n"
_VT_ASK = "\nQuestion: Find all variables that are assigned the value {value} in the text above."
_VT_PREFIX = (
    " Answer: According to the chain(s) of variable assignment in the text above, {n} variables are assigned the value "
    "{value}, they are: "
)
HOPS = 4


def vt(seed: str, index: int, length: int, essay: Sequence[str] | None) -> RulerItem:
    """One chain of 4 hops in noise, after one worked example whose size grows with the asked length."""
    shown, shown_value, shown_text = _chain(Dice(f"{seed} example"), letters=3)
    sample_lines = max(2, min(12, length // 256))
    question, prefix = _VT_ASK.format(value=shown_value), _VT_PREFIX.format(n=HOPS + 1, value=shown_value)
    example = f"{_VT_HEAD}{shown_text(sample_lines)}{question}{prefix} {' '.join(shown)}\n\n"
    names, value, lines = _chain(Dice(seed), letters=5)
    return RulerItem(
        question=_VT_ASK.format(value=value),
        answers=tuple(names),
        answer_prefix=_VT_PREFIX.format(n=HOPS + 1, value=value),
        context=lambda n: example + _VT_HEAD + lines(n),
        min_units=HOPS + 1,
        meta={"haystack": "noise", "value": value},
    )


def _chain(dice: Dice, letters: int) -> tuple[list[str], str, Callable[[int], str]]:
    names: list[str] = []
    while len(names) <= HOPS:
        name = text.letters(dice, string.ascii_uppercase, letters)
        if name not in names:
            names.append(name)
    value = str(10_000 + dice.below(90_000))
    chain = [f"VAR {names[0]} = {value}"]
    chain += [f"VAR {after} = VAR {before}" for before, after in pairwise(names)]
    places = sorted(dice.unit() for _ in chain)

    def lines(n: int) -> str:
        out: list[str] = []
        last = 0
        for statement, place in zip(chain, places, strict=True):
            at = int(n * place)
            out += [*[text.NOISE] * (at - last), statement]
            last = at
        return "\n".join([*out, *[text.NOISE] * (n - last)])

    return names, value, lines


_CWE_HEAD = (
    "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that "
    "appear most often.\n"
)
_CWE_ASK = "\nQuestion: What are the 10 most common words in the above list?"
_CWE_PREFIX = " Answer: The top 10 words that appear most often in the list are:"
COMMON = 10


def cwe(seed: str, index: int, length: int, essay: Sequence[str] | None) -> RulerItem:
    """Ten words come often, the others seldom; a worked example stands before."""
    often, seldom, shown = (30, 3, (40, 10, 3)) if length >= LONG else (6, 1, (20, 3, 1))
    example_words = _words(f"{seed} example", shown[0])
    example_list = _numbered(_repeated(f"{seed} example", example_words, shown[1], shown[2]))
    shown_answer = " ".join(f"{i + 1}. {word}" for i, word in enumerate(example_words[:COMMON]))
    example = f"{_CWE_HEAD}{example_list}{_CWE_ASK}{_CWE_PREFIX} {shown_answer}\n"
    return RulerItem(
        question=_CWE_ASK,
        answers=tuple(_words(seed, COMMON)),
        answer_prefix=_CWE_PREFIX,
        context=lambda n: example + _CWE_HEAD + _numbered(_repeated(seed, _words(seed, n), often, seldom)),
        min_units=COMMON + 1,
        meta={"often": often, "seldom": seldom},
    )


def _words(seed: str, n: int) -> list[str]:
    """n different words. The first ten are the common ones; no other word contains one of them."""
    dice, real = Dice(f"{seed} words"), (*text.ADJECTIVES, *text.NOUNS)
    pool: dict[str, None] = {}
    common: list[str] = []
    while len(pool) < n:
        new = dice.pick(real) if len(pool) < len(real) // 2 else text.word(dice)
        if len(pool) <= COMMON:
            common = list(pool)
        if not any(word in new or (len(pool) < COMMON and new in word) for word in common):
            pool[new] = None
    return list(pool)


def _repeated(seed: str, words: list[str], often: int, seldom: int) -> list[str]:
    items = words[:COMMON] * often + words[COMMON:] * seldom
    return Dice(f"{seed} shuffle").sample(items, len(items))


def _numbered(words: list[str]) -> str:
    return " ".join(f"{i + 1}. {word}" for i, word in enumerate(words))


_ZETA_2 = 1.6449340668482264
_FWE_HEAD = (
    "Read the following coded text and track the frequency of each coded word. Find the three most frequently appeared "
    "coded words. "
)
_FWE_ASK = (
    "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three most frequently "
    "appeared words in the above coded text?"
)
_FWE_PREFIX = " Answer: According to the coded text above, the three most frequently appeared words are:"


def fwe(seed: str, index: int, length: int, essay: Sequence[str] | None) -> RulerItem:
    """Coded words with counts n / k**2 / zeta(2) at rank k; rank 1 is dots, ranks 2 to 4 are the answer."""
    dice, vocabulary = Dice(seed), ["..."]
    while len(vocabulary) < max(12, length // 50):
        code = text.letters(dice, string.ascii_lowercase, 6)
        if code not in vocabulary:
            vocabulary.append(code)

    def context(n: int) -> str:
        words = [word for k, word in enumerate(vocabulary, 1) for _ in range(int(n / k**2 / _ZETA_2))]
        return _FWE_HEAD + " ".join(Dice(f"{seed} shuffle").sample(words, len(words)))

    return RulerItem(_FWE_ASK, tuple(vocabulary[1:4]), _FWE_PREFIX, context, min_units=60, meta={"alpha": 2.0})
