"""The text of kvtext: seeded filler sentences with facts between them.

Everything is drawn from `random.Random.random`, the one method whose sequence Python promises to keep.
"""

import hashlib
import random
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from kvt_async.data.sources import kvtext_words as words

T = TypeVar("T")

FACT_FORMS = ("the code of NAME is V1 V2 .", "the list gives NAME code V1 V2 .")  # V1 V2: all values of the fact
QUESTION_FORMS = ("what is the code of NAME ?", "which code belongs to NAME ?")
NEXT_NAME = ", and then"
ALL_FORM = "list the code of NAMES . answer with a list of code ."  # NAMES: with NEXT_NAME between each two
ITEM_FORM = "NAME has code V1 V2"  # of the answer to ALL_FORM; its next item begins where the question's next name does
VALUE_TOKENS = 2
FACT_TOKENS = 6 + VALUE_TOKENS
# A paragraph keeps to one NAME, PLACE, THING and ANIMAL, so that its words recur as those of real text do
SENTENCES = tuple(
    form.split()
    for form in (
        "NAME DID .",
        "PRON DID TIME .",
        "NAME DID there TIME .",
        "PRON TOOK the THING .",
        "NAME TOOK the ANIMAL TIME .",
        "the THING was very LOOK .",
        "PRON DID near the PLACE .",
        "later PRON TOOK the LOOK THING .",
        "NAME DID in the LOOK PLACE TIME .",
        "after the SKY PRON DID there TIME .",
        "NAME TOOK the THING from the PLACE , then DID .",
        "before the SKY , PRON TOOK the LOOK ANIMAL .",
        "the ANIMAL was in the PLACE with NAME , but not TIME .",
        "while the ANIMAL DID , NAME TOOK the THING by the PLACE .",
    )
)
SHORTEST_SENTENCE = min(map(len, SENTENCES))
SLOTS = {
    "NAME": words.NAMES,
    "PLACE": words.PLACES,
    "THING": words.THINGS,
    "ANIMAL": words.ANIMALS,
    "PRON": ("he", "she", "they", "it"),
    "LOOK": words.ADJECTIVES,
    "DID": words.INTRANSITIVE,
    "TOOK": words.TRANSITIVE,
    "TIME": words.TIMES,
    "SKY": words.WEATHER,
}
RECURRING = ("NAME", "PLACE", "THING", "ANIMAL", "PRON")


class Dice:
    """Seeded draws, the same on every machine and Python version."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(int.from_bytes(hashlib.sha256(seed.encode()).digest(), "big"))

    def unit(self) -> float:
        return self._random.random()

    def below(self, n: int) -> int:
        return int(self._random.random() * n)

    def pick(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def sample(self, items: Sequence[T], n: int) -> list[T]:
        """n different items in random order."""
        pool = list(items)
        for i in range(n):
            j = i + self.below(len(pool) - i)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:n]


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact of a passage; `start` and `answer_token` count words from the passage's beginning."""

    name: str
    values: tuple[str, ...]
    start: int
    answer_token: int

    @property
    def answer(self) -> str:
        return " ".join(self.values)


@dataclass(frozen=True, slots=True)
class Passage:
    words: list[str]
    facts: list[Fact]  # in the order asked of `compose`: those with a given depth first


def compose(
    dice: Dice, n_tokens: int, n_facts: int, depths: Sequence[float] = (), n_values: int = VALUE_TOKENS
) -> Passage:
    """Text of exactly `n_tokens` words with `n_facts` facts at uniform depth; the first ones at `depths`, if given.

    Names are different and so are answers. A fact stands between two filler sentences, the nearest place to its depth.
    """
    filler = filler_sentences(dice, n_tokens - n_facts * (FACT_TOKENS - VALUE_TOKENS + n_values))
    names = dice.sample(words.NAMES, n_facts)
    answers: dict[tuple[str, ...], None] = {}
    while len(answers) < n_facts:
        answers[tuple(dice.pick(words.VALUES) for _ in range(n_values))] = None
    starts = [0]
    for sentence in filler:
        starts.append(starts[-1] + len(sentence))
    at: dict[int, list[int]] = {}  # filler gap -> the facts in it
    for n in range(n_facts):
        wanted = (depths[n] if n < len(depths) else dice.unit()) * starts[-1]
        after = min(bisect(starts, wanted), len(starts) - 1)
        before = max(after - 1, 0)
        gap = before if wanted - starts[before] <= starts[after] - wanted else after
        at.setdefault(gap, []).append(n)
    text: list[str] = []
    facts: list[Fact | None] = [None] * n_facts
    pairs = list(answers)
    for gap in range(len(starts)):
        at_gap = at.get(gap, ())
        for n in dice.sample(at_gap, len(at_gap)):
            form = dice.pick(FACT_FORMS).split()
            filled = {"NAME": (names[n],), "V1": pairs[n], "V2": ()}
            facts[n] = Fact(names[n], pairs[n], len(text), len(text) + form.index("V1"))
            text.extend(part for word in form for part in filled.get(word, (word,)))
        if gap < len(filler):
            text.extend(filler[gap])
    return Passage(text, [fact for fact in facts if fact is not None])


def filler_sentences(dice: Dice, n_tokens: int) -> list[list[str]]:
    """Paragraphs of 2 to 4 sentences, `n_tokens` words in all; fewer than 3 can only be 0."""
    sentences: list[list[str]] = []
    theme: dict[str, str] = {}
    left_here = 0
    while n_tokens > 0:
        if left_here == 0:
            left_here, theme = 2 + dice.below(3), {slot: dice.pick(SLOTS[slot]) for slot in RECURRING}
        form = dice.pick(_forms_for(n_tokens))
        sentences.append([theme.get(word) or (dice.pick(SLOTS[word]) if word in SLOTS else word) for word in form])
        n_tokens -= len(form)
        left_here -= 1
    return sentences


def _forms_for(n_tokens: int) -> list[list[str]]:
    """The sentences after which the rest can still be filled."""
    return _FORMS[min(n_tokens, len(_FORMS) - 1)]


_FORMS = [
    [s for s in SENTENCES if len(s) == n or len(s) + SHORTEST_SENTENCE <= n]
    for n in range(max(map(len, SENTENCES)) + SHORTEST_SENTENCE + 1)
]


def ask(form: str, name: str) -> str:
    return form.replace("NAME", name)


def ask_all(names: Sequence[str]) -> str:
    """The question for the codes of all these names, in this order."""
    return ALL_FORM.replace("NAMES", f" {NEXT_NAME} ".join(names))


def item(fact: Fact) -> str:
    """What the answer to `ask_all` says of one name."""
    return ITEM_FORM.replace("NAME", fact.name).replace("V1 V2", fact.answer)
