"""All runs of one generation, read: what every row of the group is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from analyzer.read.compressions import Compressions
from analyzer.read.declared_plan import NOTHING, DeclaredPlan
from analyzer.read.examples import BinnedDataset
from analyzer.read.run_counts import RunCounts
from analyzer.read.runs import Run
from analyzer.stats.decompose import Outcomes
from analyzer.stats.interim import ONLY_LOOK, InterimLook
from analyzer.stats.margin import Margin
from analyzer.stats.outcome_changes import AnswerTraits
from analyzer.stats.transition import Grid
from analyzer.store.tables import BinStat
from analyzer.summarise.bin_stats import ALL_BINS
from analyzer.summarise.guessing_floor import Floors
from kvt_async.contract.settings import Analysis
from kvt_async.contract.vocabulary import Unit

Floats = npt.NDArray[np.float64]

NEARLY_COMPLETE = 0.9  # of the fullest level's scores: a level with fewer is left out of its series' verdict


@dataclass(frozen=True)
class Group:
    """One task of a generation of an experiment group.

    runs: in the config's order, repeats last. grid: their scores, a row an example. outcomes: by run, of each of its
    `samples` answers (answer j of row i at i * samples + j).
    replicates: bin (-1: all) -> bootstrap means [resamples, runs], columns as in the grid. stats: by run and bin.
    evidence: status by run. floors: of full cache's answers; None: it has no run.
    """

    runs: Sequence[Run]
    grid: Grid
    outcomes: Mapping[str, Outcomes]
    replicates: Mapping[int, Floats]
    stats: Mapping[tuple[str, int], BinStat]
    evidence: Mapping[str, str]
    dataset: BinnedDataset
    analysis: Analysis
    bins: tuple[int, ...]  # single ones
    partial: bool = False
    floors: Floors | None = None
    held: float | None = None  # share of full cache's answers that hold the gold; None: not low, or not asked
    planned: DeclaredPlan = NOTHING
    look: InterimLook = ONLY_LOOK
    traits: Mapping[str, AnswerTraits] = field(default_factory=dict)  # by run; empty: nothing is told beside scores
    samples: int = 1  # answers of each example that count
    n_samples: int = 1  # answers that were asked for
    counts: Mapping[str, RunCounts] = field(default_factory=dict)  # by run; empty: every run is complete
    compressions: Mapping[str, Compressions] = field(default_factory=dict)  # by run that evicts while it answers
    in_suite: bool = False  # one of several tasks: the claim that was asked in advance is the one over all of them

    @property
    def alpha(self) -> float:
        """The one-sided level of every claim: half of the analysis' alpha, or this look's share of it."""
        return self.analysis.alpha / 2 * self.look.share

    @property
    def margin(self) -> Margin:
        """How much may be lost."""
        return Margin(self.analysis.margin, self.analysis.margin_kind)

    @property
    def unit(self) -> str:
        """Unit of the budgets below full cache."""
        return next((run.kv_unit for run in self.runs if run.is_level), Unit.FRACTION)

    @property
    def units(self) -> dict[str, str]:
        """Unit of the budgets of each series."""
        return {name: levels[0].kv_unit for name, levels in self._levels.items()}

    @property
    def everywhere(self) -> tuple[int, ...]:
        """All bins together, then each."""
        return (ALL_BINS, *self.bins)

    @cached_property
    def full(self) -> Run | None:
        """Full cache, which everything is compared with; None: it was not run."""
        return next((run for run in self.runs if run.is_baseline), None)

    @cached_property
    def constrained(self) -> Run | None:
        """Full cache under the levels' other restrictions; None: it was not run."""
        return next((run for run in self.runs if run.is_constrained), None)

    @cached_property
    def series(self) -> dict[str, list[Run]]:
        """Compressed levels that are judged, by series, in the config's order, each from the highest budget down."""
        return {name: [run for run in runs if not self._is_behind(run, runs)] for name, runs in self._levels.items()}

    def left_out(self, series: str) -> list[tuple[Run, RunCounts]]:
        """Levels of a series that no verdict is about, because most of their requests are still pending."""
        levels = self._levels[series]
        return [(run, self.counts[run.run_id]) for run in levels if self._is_behind(run, levels)]

    @cached_property
    def _levels(self) -> dict[str, list[Run]]:
        """All compressed levels by series, as `series` orders them."""
        levels: dict[str, list[Run]] = {}
        for run in self.runs:
            if run.is_level:
                levels.setdefault(run.series, []).append(run)
        return {name: sorted(runs, key=lambda run: -run.kv_budget) for name, runs in levels.items()}

    def _is_behind(self, run: Run, levels: Sequence[Run]) -> bool:
        """Whether a level has far fewer scores than the fullest of its series: its few pairs would be the pairs of the
        whole series, and stop its order of tests. Which levels are behind hangs on the order of requests, not on
        what they were answered."""
        most = max((self.counts[other.run_id].scores for other in levels if other.run_id in self.counts), default=0)
        return run.run_id in self.counts and self.counts[run.run_id].scores < NEARLY_COMPLETE * most

    @cached_property
    def fewest_contexts(self) -> int:
        """Contexts that full cache has scores of in the bin that has fewest, empty bins left out."""
        if self.full is None:
            return 0
        scored = ~np.isnan(self.grid.score[self.full.run_id])
        counts = [np.count_nonzero(np.bincount(self.grid.cluster[self.grid.rows(b) & scored])) for b in self.bins]
        return min((int(n) for n in counts if n), default=0)

    def with_full(self, levels: Sequence[Run]) -> list[Run]:
        """Full cache, where it was run, and then the levels."""
        return [self.full, *levels] if self.full else list(levels)

    def replicates_of(self, runs: Sequence[Run], bin_idx: int) -> Floats:
        """Bootstrap means of these runs, a column each: [resamples, runs]."""
        column = {run_id: i for i, run_id in enumerate(self.grid.score)}
        return self.replicates[bin_idx][:, [column[run.run_id] for run in runs]]
