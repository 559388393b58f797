"""A suite that isn't run yet: the chance that its claims are proven, and the size at which that chance is 80%.

Every test is drawn as for one task (chances.py): the guard of each task, and the mean over all of them with the
contexts that they share. Several proofs gain and lose by the same flips, so the chance of all is at least the product
of their chances (positive association: Esary, Proschan and Walkup 1967); the product is what is told, and what a size
has to bring to 80%: no single test is asked for more, since a strong one makes up for a weak one.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from analyzer.stats.chances import POWER, Chances
from analyzer.stats.sample_layout import Layout

Rates = Mapping[str, float]  # share of answers that flip, by task
Sizes = Mapping[str, int]  # examples, by task
Claim = Callable[[Sizes, Rates], float]

_MOST = 10_000  # examples of a task


@dataclass(frozen=True)
class ImaginedSuite:
    """Tasks with the layouts of a config; `pool`: all of them as one mean. Nothing is lost at any of `budgets`.

    Chances are told with two digits, as many as the draws know; so 0.80 is 80% to a reader and to the search alike.
    """

    layouts: Mapping[str, Layout]
    pool: Layout
    budgets: int
    guard: Chances
    margin: Chances
    _drawn: dict[tuple[object, ...], float] = field(default_factory=dict, compare=False)

    def suite_safe(self, sizes: Sizes, rates: Rates) -> float:
        """The chance that the mean and the guard of every task are proven."""
        guards = math.prod(self.guard_of(task, n, rates[task]) for task, n in sizes.items())
        return round(guards and guards * self.mean(sizes, rates), 2)

    def everywhere(self, sizes: Sizes, rates: Rates) -> float:
        """The chance that every task is proven safe at the margin."""
        layouts = self.layouts
        return round(
            math.prod(self._safe(self.margin, layouts[task].grown(n), rates[task]) for task, n in sizes.items()), 2
        )

    def mean(self, sizes: Sizes, rates: Rates) -> float:
        """The chance that the mean over all tasks is proven safe at the margin."""
        return self._safe(self.margin, self.pool.grown(sum(sizes.values())), sum(rates.values()) / len(rates))

    def guard_of(self, task: str, n: int, rate: float) -> float:
        """The chance that the guard of a task is proven with n examples."""
        return self._safe(self.guard, self.layouts[task].grown(n), rate)

    def sizes(self, growth: float) -> Sizes:
        """Every task `growth` times as large; its bins stay alike."""
        if growth == 1.0:
            return {task: layout.examples for task, layout in self.layouts.items()}
        return {
            task: layout.rounded(math.ceil(layout.examples * growth - 1e-9)) for task, layout in self.layouts.items()
        }

    def needed(self, claim: Claim, rates: Rates) -> Sizes | None:
        """The least examples of each task that bring `claim` to 80%, all tasks growing alike; None: more than 10,000 of
        a task. They are the config's own or fewer exactly where its own bring it there."""
        step = min(layout.contexts / layout.bins for layout in self.layouts.values())  # contexts a bin of the smallest

        def suffice(contexts: int) -> bool:
            return claim(self.sizes(contexts / step), rates) >= POWER

        def first_from(low: int) -> Sizes | None:
            """Up in steps of a quarter to a size that suffices, then back to the least: above `low`, that doesn't."""
            high = low
            while True:
                high = max(high + 1, high * 5 // 4)
                if max(self.sizes(high / step).values()) > _MOST:
                    return None
                if suffice(high):
                    break
                low = high
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if suffice(middle) else (middle, high)
            return self.sizes(high / step)

        # A chance falls a little where one example more allows no flip more, so the first search may pass the config.
        own = self.sizes(1.0)
        needed, total = first_from(0), sum(own.values())
        if claim(own, rates) >= POWER:
            return own if needed is None or sum(needed.values()) > total else needed
        return first_from(math.floor(step + 1e-9)) if needed is not None and sum(needed.values()) <= total else needed

    def _safe(self, chances: Chances, layout: Layout, rate: float) -> float:
        """Most tasks of a suite are alike, and are drawn once."""
        key = (chances.margin, layout.weight.tobytes(), layout.count.tobytes(), layout.examples, layout.bins, rate)
        if key not in self._drawn:
            can = layout.reach(chances.alpha) <= chances.margin
            self._drawn[key] = chances.safe(layout, rate, self.budgets) if can else 0.0
        return self._drawn[key]
