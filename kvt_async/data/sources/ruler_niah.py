"""RULER's needles in a haystack: sentences that give a key its value, between noise, essays or other needles.

Template, kinds and counts are those of the published configuration; "A special magic number is ..." is what its own
rewriting makes of the plural where one value is asked for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kvt_async.data.sources import ruler_text as text
from kvt_async.data.sources.kvtext_text import Dice
from kvt_async.data.sources.ruler_task import RulerItem, RulerTask

DEPTHS = tuple(round(100 * i / 39) for i in range(40))  # percent; published grid


@dataclass(frozen=True, slots=True)
class Needles:
    """What is hidden in which haystack, of which kinds keys and values are, how many are hidden and asked for."""

    haystack: str  # noise | essay | needle
    keys: str = "words"
    values: str = "numbers"
    n_keys: int = 1
    n_values: int = 1
    n_queries: int = 1


def niah(key: str, about: str, needles: Needles) -> RulerTask:
    """The task of one configuration."""
    haystack, keys, values = needles.haystack, needles.keys, needles.values
    n_keys, n_values, n_queries = needles.n_keys, needles.n_values, needles.n_queries
    is_single = n_values * n_queries == 1
    kind = values[:-1] if is_single else values
    article, verb, ask = ("A", "is", "is the") if is_single else ("Some", "are", "are all the")
    template = (
        f"{article} special magic {kind} {verb} hidden within the following text. Make sure to memorize it. "
        f"I will quiz you about the {kind} afterwards.\n{{context}}\n{{question}}"
    )

    def make(seed: str, index: int, length: int, essay: Sequence[str] | None) -> RulerItem:
        dice = Dice(seed)
        pairs = _pairs(dice, max(n_keys, n_queries), n_values, keys, values)
        sentences = [_needle(values, name, value) for name, several in pairs for value in several]
        first = DEPTHS[index * 17 % len(DEPTHS)]  # 17 and 40 share no factor: every depth comes once in 40 items
        depths = [first, *dice.sample([d for d in DEPTHS if d != first], len(sentences) - 1)]
        order = sorted(range(len(sentences)), key=lambda i: depths[i])
        queried = dice.sample(pairs, n_queries)
        if n_queries == 1:
            queried = [pairs[0]]  # whose depth is the one of the grid
        names = [name for name, _ in queried]
        query = f"{', '.join(names[:-1])}, and {names[-1]}" if len(names) > 1 else names[0]
        straws = _haystack(haystack, seed, essay, keys, values, {name for name, _ in pairs})

        def context(n: int) -> str:
            straw = straws(n)
            out: list[str] = []
            last = 0
            for i in order:
                at = n * depths[i] // 100
                out += [*straw[last:at], sentences[i]]
                last = at
            return (" " if haystack == "essay" else "\n").join([*out, *straw[last:]])

        return RulerItem(
            question=f"What {ask} special magic {kind} for {query} mentioned in the provided text?",
            answers=tuple(value for _, several in queried for value in several),
            answer_prefix=f" The special magic {kind} for {query} mentioned in the provided text {verb}",
            context=context,
            min_units=len(sentences),
            meta={"depth": first / 100, "depths": [d / 100 for d in depths], "haystack": haystack, "query": query},
        )

    return RulerTask(key, about, template, 128, make, essay=haystack == "essay")


def _needle(values: str, name: str, value: str) -> str:
    return f"One of the special magic {values} for {name} is: {value}."


def _pairs(dice: Dice, n_keys: int, n_values: int, keys: str, values: str) -> list[tuple[str, list[str]]]:
    """Distinct keys, each with distinct values that no other key has."""
    names = _distinct(dice, n_keys, keys)
    drawn = _distinct(dice, n_keys * n_values, values)
    return [(name, drawn[i * n_values : (i + 1) * n_values]) for i, name in enumerate(names)]


def _distinct(dice: Dice, n: int, kind: str) -> list[str]:
    drawn: dict[str, None] = {}
    while len(drawn) < n:
        drawn[_DRAW[kind](dice)] = None
    return list(drawn)


_DRAW: dict[str, Callable[[Dice], str]] = {"words": text.key_words, "numbers": text.number, "uuids": text.uuid4}


def _haystack(
    kind: str, seed: str, essay: Sequence[str] | None, keys: str, values: str, taken: set[str]
) -> Callable[[int], list[str]]:
    """n -> the first n units; the search for the right n asks many times, so distractors are drawn once."""
    if kind == "noise":
        return lambda n: [text.NOISE] * n
    if kind == "essay":
        start = Dice(f"{seed} start").below(len(essay) if essay else 1 << 20)
        if essay:
            return lambda n: [essay[(start + i) % len(essay)] for i in range(n)]
        return lambda n: [text.essay_sentence(start + i) for i in range(n)]
    dice, straw = Dice(f"{seed} distractors"), list[str]()

    def needles(n: int) -> list[str]:
        while len(straw) < n:
            name, value = _DRAW[keys](dice), _DRAW[values](dice)
            if name not in taken:  # a distractor must not answer the question
                straw.append(_needle(values, name, value))
        return straw[:n]

    return needles
