"""The shape of a RULER task: an item is fixed by its seed, its haystack by a number of units."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RulerItem:
    """One question. `context(n)` is the text with n >= min_units units of haystack, longer with every unit."""

    question: str
    answers: tuple[str, ...]
    answer_prefix: str
    context: Callable[[int], str]
    min_units: int
    meta: dict[str, object] = field(default_factory=dict)


Make = Callable[[str, int, int, Sequence[str] | None], RulerItem]
"""seed, index among the items of one length, that length in tokens, sentences of the user's essay -> item."""


@dataclass(frozen=True, slots=True)
class RulerTask:
    key: str
    about: str
    template: str
    max_new_tokens: int  # published
    make: Make
    essay: bool = False  # its haystack is an essay
    metric: str = "string_match_all"
