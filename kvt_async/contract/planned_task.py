"""One task of a config as `plan` sees it: made by the runner, which knows tasks and manifests, read by the analyzer."""

from dataclasses import dataclass

from kvt_async.contract.settings import Settings


@dataclass(frozen=True)
class PlannedTask:
    """One task, settings of its own; contexts: (context, bin) of each example of its manifest, empty before `prepare`:
    then every example is taken to have a context of its own. turns: examples to each one that binning.n_per_bin counts,
    on average: above 1 where the data are conversations."""

    name: str
    settings: Settings
    dataset_id: str = ""
    contexts: tuple[tuple[str, int], ...] = ()
    turns: float = 1.0
