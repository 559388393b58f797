"""Before a suite is sent: can its contexts prove at all that no task loses more than the guard?

Even where nothing is lost, n contexts leave a loss of 1 - level^(1/n) possible (docs/STATISTICS.md): a suite that is
too small for its guard can never be called safe, whatever it answers, so it is refused before anybody pays for it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kvt_async.contract.errors import GuardError
from kvt_async.contract.formulas.provable_loss import least_provable_loss
from kvt_async.contract.settings import Settings
from kvt_async.store.reader import Reader
from kvt_async.sweep.pending import SweepTask

_PLACES = """SELECT x.context_sha256, e.bin_idx FROM manifest_entries e
    JOIN examples x USING (dataset_id, example_id) WHERE e.dataset_id = ?"""


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A task whose contexts can't prove the guard. least: the loss below which they can prove nothing."""

    task: str
    contexts: int
    needed: int
    least: float

    def __str__(self) -> str:
        contexts = f"{self.contexts} context{'' if self.contexts == 1 else 's'}"
        return f"{self.task}: {contexts} can prove no loss below {self.least:.2f}; {self.needed} would do"


def contexts_needed(guard: float, level: float) -> int:
    """Contexts of equal weight that rule out a loss of `guard` at one-sided `level`, where none lost anything."""
    return math.ceil(math.log(level) / math.log1p(-guard) - 1e-9)


def unreachable(reader: Reader, settings: Settings, tasks: Sequence[SweepTask]) -> list[Shortfall]:
    """Each task of the verdict that is sent for the first time and whose contexts can't prove the guard.

    Empty for a single task, whose verdict knows no guard, and where only full cache is asked for.
    """
    if len(tasks) < 2 or all(run.level.is_full for task in tasks for run in task.runs):
        return []
    guard, level, chosen = settings.analysis.guard, settings.analysis.alpha / 2, settings.analysis.tasks
    short = []
    for task in tasks:
        if any(run.stored for run in task.runs) or (chosen is not None and task.prepared.name not in chosen):
            continue
        places = [(row[0], row[1]) for row in reader.rows(_PLACES, task.dataset_id)]
        if (least := least_provable_loss(places, level)) > guard:
            contexts = len({context for context, _ in places})
            short.append(Shortfall(task.prepared.name, contexts, contexts_needed(guard, level), least))
    return short


def refuse_unreachable(reader: Reader, settings: Settings, tasks: Sequence[SweepTask]) -> None:
    """Raise GuardError where the suite could never be called safe; the guard that it names would be taken."""
    if short := unreachable(reader, settings, tasks):
        do = "Raise binning.n_per_bin (`kvt plan -c CONFIG` says how far)"
        reachable = math.ceil(max(each.least for each in short) * 100) / 100
        if reachable < 1:
            do += f", or allow a larger loss in single tasks: --override analysis.guard={reachable:g}"
        raise GuardError(
            f"too few examples to prove that no task loses {settings.analysis.guard:g}; nothing was sent",
            where="analysis.guard",
            details=tuple(str(each) for each in short),
            do=f"{do}.",
        )
