"""One series in one bin: its tests and everything else that its verdict is made of."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from analyzer.read.runs import Run
from analyzer.stats.half_loss import half_loss, half_loss_of, monotone
from analyzer.stats.noise import Noise
from analyzer.stats.transition import BudgetTest, Claims
from analyzer.summarise.guessing_floor import Headroom
from kvt_async.contract.vocabulary import Role, Unit

Floats = npt.NDArray[np.float64]

FEWEST_CONTEXTS = 10  # of a bin: with fewer, intervals of the half-loss budget cover as little as 78% (half_losses)
# Full cache on the budget axis, where it isn't 1.0 (fraction) or the prompt itself (tokens).
TOP: dict[str, float] = {Unit.BITS: 16.0}


@dataclass(frozen=True)
class SeriesBin:
    """One series in one bin (-1: all). Lists run from the highest budget down, and are empty for full cache alone."""

    level: Run  # one of its levels: all have its policy, mode and unit
    bin_idx: int
    role: Role
    tests: list[BudgetTest]
    claims: Claims
    acc_full: float | None
    acc: list[float]
    kept: list[float | None]  # median kept tokens at each budget
    kept_full: float | None  # median prompt tokens
    replicates: Floats  # [resamples, 1 + budgets], full cache first; no columns without a baseline
    noise: Noise | None
    evidence: str  # the worst status of its levels and of full cache
    contexts: int | None = None  # in the length bin that has fewest; None: this is one bin, and its tests know
    headroom: Headroom | None = None  # None: not known, and then accuracy above the margin is all that is asked
    headroom_alpha: float = 0.025  # the one-sided level that the headroom is proven at

    @property
    def unit(self) -> str:
        return self.level.kv_unit

    @property
    def budgets(self) -> list[float]:
        return [test.budget for test in self.tests]

    @property
    def axis(self) -> Floats:
        """Budgets with full cache first."""
        top = TOP.get(self.unit, 1.0)
        if self.unit == Unit.TOKENS:
            top = self.kept_full or 2 * max(self.budgets, default=1.0)
        return np.array([max(top, *self.budgets) if self.budgets else top, *self.budgets])

    @property
    def total_loss_proven(self) -> bool:
        """Whether a loss is proven at the smallest budget."""
        return bool(self.tests) and self.tests[-1].p_loss <= self.claims.alpha

    @property
    def has_something_to_lose(self) -> bool:
        return self.headroom is None or self.headroom.shown(self.headroom_alpha)

    @property
    def is_resampled(self) -> bool:
        """Whether resamples show what other examples would: not with a handful of contexts in a length bin."""
        return self.fewest >= FEWEST_CONTEXTS

    @property
    def fewest(self) -> int:
        """Contexts in the length bin that has fewest."""
        return self.contexts if self.contexts is not None else min((t.n_clusters for t in self.tests), default=0)

    @cached_property
    def curves(self) -> Floats:
        """The monotone curves of the replicates."""
        return monotone(self.replicates)

    def half_loss(self) -> tuple[float, Floats]:
        """Half-loss budget of the means and of every resample; NaN where there is no loss."""
        point = half_loss(np.array([[self.acc_full, *self.acc]], dtype=np.float64), self.axis)
        return float(point[0]), half_loss_of(self.curves, self.axis)

    def kept_at(self, budget: float | None) -> float | None:
        """Kept tokens at a budget between those measured, linear; NaN without evidence; None without budget or full
        cache."""
        if budget is None or self.acc_full is None:
            return None
        kept = [self.kept_full, *self.kept]
        if any(tokens is None for tokens in kept):
            return float("nan")
        order = np.argsort(self.axis)
        return float(np.interp(budget, self.axis[order], np.array(kept, dtype=np.float64)[order]))
