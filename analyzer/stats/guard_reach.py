"""Before a run: can the contexts of each task prove at all that it loses less than the guard?

n contexts of equal weight without any loss leave 1 - level^(1/n) possible: .088 with 40, .168 with 20, .60 with 4.
Heavier contexts weigh as much as they do in the test, so 40 questions of which 20 share one context leave more.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from analyzer.stats.sample_layout import Layout


@dataclass(frozen=True)
class OutOfReach:
    """A task whose contexts can't prove the guard even if nothing is lost.

    least: the loss that they could prove nothing below; needed: contexts that would reach the guard, with as many
    `examples`, were further ones like these.
    """

    task: str
    contexts: int
    least: float
    needed: int
    examples: int


def out_of_reach(layouts: Mapping[str, Layout], guard: float, level: float) -> list[OutOfReach]:
    """The tasks whose layout can't prove "less than `guard` is lost" at one-sided `level`, in their order.

    Of a relative guard the same holds where full cache is always right; below that even more contexts are needed.
    """
    short = []
    for task, layout in layouts.items():
        if (least := layout.reach(level)) > guard:
            examples = layout.least(guard, level)
            needed = -(-examples * layout.contexts // layout.examples)
            short.append(OutOfReach(task, layout.contexts, least, needed, examples))
    return short
