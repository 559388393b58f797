"""Tasks of a suite whose contexts can't prove the guard, whatever they answer: said before anything is sent."""

from collections.abc import Sequence

from kvt_async.contract.formulas.provable_loss import least_provable_loss
from kvt_async.contract.paths import manifest_path
from kvt_async.contract.settings import Settings
from kvt_async.data.manifest import read_entries
from kvt_async.sweep.pending import PreparedTask


def guard_notes(settings: Settings, tasks: Sequence[PreparedTask]) -> tuple[str, ...]:
    """A sentence for each such task; none where there is one task alone, which has no guard."""
    guard, level = settings.analysis.guard, settings.analysis.alpha / 2
    notes = []
    for task in tasks if len(tasks) > 1 else ():
        path = manifest_path(settings.output.data_dir, task.head.dataset_id)
        places = [(entry.context_sha256, entry.bin_idx) for entry in read_entries(path)]
        if (least := least_provable_loss(places, level)) > guard:
            contexts = len({context for context, _ in places})
            notes.append(
                f"{task.name} can't prove the guard of {guard:g} whatever it answers: its {contexts} contexts leave a "
                f"loss of {least:.2f} possible, so the suite won't be proven safe (`kvt plan` says how many would do)"
            )
    return tuple(notes)
