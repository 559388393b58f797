"""One task of a config as `plan` sees it: made by the runner, which knows tasks and manifests, read by the analyzer."""

from dataclasses import dataclass

from kvt_async.contract.settings import Settings


@dataclass(frozen=True)
class PlannedTask:
    """One task, settings of its own; contexts: (context, bin) of each example of its manifest, empty before `prepare`:
    then every example is taken to have a context of its own."""

    name: str
    settings: Settings
    dataset_id: str = ""
    contexts: tuple[tuple[str, int], ...] = ()
