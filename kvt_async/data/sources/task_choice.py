"""Which tasks `dataset.task` names: one, or in short several (`all`, a glob, a list of names and globs)."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.paths import data_path
from kvt_async.contract.settings import Dataset
from kvt_async.data.sources import longbench, plugin_source, ruler
from kvt_async.data.sources.shelf import SHELF
from kvt_async.data.sources.source import did_you_mean

ALL = "all"


@dataclass(frozen=True, slots=True)
class TaskChoice:
    """`datasets`: one for each task, in the source's order. `left_out`: task -> why it can't be made here."""

    datasets: tuple[Dataset, ...]
    left_out: dict[str, str]


def choose_tasks(dataset: Dataset) -> TaskChoice:
    """The tasks that `dataset.task` names. Each data set has one task, and `path` only where it reads that file.

    `all` and globs take what can be made with what the config gives; a task that is named stands, and what it lacks is
    an error of its source. Raises ConfigError where nothing can be made or nothing matches.
    """
    if not is_several(dataset):
        return TaskChoice((dataset,), {})
    wanted = [dataset.task_key] if isinstance(dataset.task, str) else dataset.task or []
    known, left_out, chosen = _known(dataset), dict[str, str](), dict[str, Dataset]()
    for text in wanted:
        if not _is_pattern(text):
            chosen.setdefault(text, _one(dataset, text))
            continue
        matches = [key for key in known if text == ALL or fnmatchcase(key, text)]
        if not matches:
            raise ConfigError(
                f"no task of {dataset.name} matches {text!r}", where="dataset.task", do=did_you_mean(text, known)
            )
        for key in matches:
            if why := _lacks(dataset, key):
                left_out[key] = why
            else:
                chosen.setdefault(key, _one(dataset, key))
    left_out = {key: why for key, why in left_out.items() if key not in chosen}
    if not chosen:
        raise ConfigError(
            f"no task of {dataset.name} can be made with this config",
            where="dataset.task",
            details=tuple(f"{key}: {why}" for key, why in left_out.items()),
            do=f"`kvt tasks {dataset.name}` says what each needs.",
        )
    return TaskChoice(tuple(chosen.values()), left_out)


def is_several(dataset: Dataset) -> bool:
    """False for one name. A jsonl file holds one task, under any label; a folder of them one each."""
    if dataset.task is None:
        return False
    if dataset.name == "jsonl" and not (dataset.path and data_path(dataset.path).is_dir()):
        return not isinstance(dataset.task, str)
    return not isinstance(dataset.task, str) or _is_pattern(dataset.task)


def _is_pattern(text: str) -> bool:
    return text == ALL or any(char in text for char in "*?[")


def _known(dataset: Dataset) -> Sequence[str]:
    """Exact keys of all tasks, in the source's order."""
    match dataset.name:
        case "kvtext":
            from kvt_async.data.sources.kvtext import TASKS

            return list(TASKS)
        case "ruler":
            return list(ruler.TASKS)
        case "longbench" | "longbench_e":
            return list(longbench.tasks_of(dataset.name))
        case "jsonl":
            folder = data_path(dataset.path or "")
            return sorted(path.stem for path in folder.glob("*.jsonl") if path.is_file())
        case name if name in SHELF:
            return list(SHELF[name].tasks)
        case _:
            return list(plugin_source.tasks_of(dataset.name))


def _lacks(dataset: Dataset, key: str) -> str:
    """What a task needs that the config does not give; empty: nothing."""
    match dataset.name:
        case "ruler":
            return ruler.lacks(key, dataset.path)
        case "longbench" | "longbench_e":
            return longbench.lacks(key, dataset)
        case name if name in SHELF:
            return SHELF[name].lacks(dataset, key)
        case _:
            return ""


def _one(dataset: Dataset, key: str) -> Dataset:
    if dataset.name == "jsonl":
        return dataset.model_copy(update={"task": key, "path": f"{dataset.path}/{key}.jsonl"})
    return fitting_path(dataset.model_copy(update={"task": key}))


def fitting_path(dataset: Dataset) -> Dataset:
    """A data set of one task without a `path` that this task does not read."""
    if dataset.name == "ruler" and isinstance(dataset.task, str) and not _is_pattern(dataset.task):
        return dataset.model_copy(update={"path": ruler.file_of(dataset.task, dataset.path)})
    return dataset
