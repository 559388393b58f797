"""Which examples of several logs are compared: those that all have, where all asked the same of them."""

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import orjson

from kvt_async.contract.errors import ConfigError
from kvt_async.imports.foreign_log import ForeignLog, identity
from kvt_async.records import Level


@dataclass(slots=True)
class ImportedTask:
    """One task over all levels: examples that all its logs have, in the order of the first."""

    name: str
    logs: list[tuple[Level, ForeignLog]] = field(default_factory=list)
    questions: dict[str, str] = field(default_factory=dict)  # example_id -> identity
    lengths: dict[str, int] = field(default_factory=dict)
    epochs: int = 1
    is_counted: bool = False
    left_out: int = 0  # examples that some log lacks

    @property
    def first(self) -> ForeignLog:
        """The log of full cache."""
        return self.logs[0][1]

    @property
    def dataset_id(self) -> str:
        """A name and a hash of what was asked, by what it is scored, and by whom."""
        about = [self.first.tool_name, self.name, self.first.measure, sorted(self.questions.items())]
        slug = "".join(c if c.isalnum() or c in "-_." else "-" for c in self.name)[:40]
        return f"imported__{slug}__{hashlib.sha256(orjson.dumps(about)).hexdigest()[:8]}"


def tasks_of(logs: Sequence[tuple[Level, Sequence[ForeignLog]]]) -> list[ImportedTask]:
    """The tasks that every level has, in the order of the first level."""
    names = [log.task for log in logs[0][1]]
    common = [name for name in names if all(any(log.task == name for log in own) for _, own in logs)]
    if not common:
        raise ConfigError(
            "no task is in all of these files",
            details=tuple(f"{level.label}: {', '.join(log.task for log in own)}" for level, own in logs),
            do="Import files of the same tasks.",
        )
    tasks = []
    for name in common:
        task = ImportedTask(name)
        task.logs = [(level, next(log for log in own if log.task == name)) for level, own in logs]
        tasks.append(task)
    return tasks


def compare(task: ImportedTask, say: Callable[[str], None]) -> None:
    """Settle which examples of a task count. Raises ConfigError where two levels asked otherwise."""
    measures = {log.measure for _, log in task.logs}
    if len(measures) > 1:
        raise ConfigError(
            f"{task.name} is scored by {' and '.join(sorted(measures))}",
            do="Choose one with --metric and --filter.",
        )
    common: dict[str, str] | None = None
    epochs: list[dict[str, set[int]]] = []
    seen, counted = set[str](), True
    for _, log in task.logs:
        own: dict[str, str] = {}
        n_of: dict[str, set[int]] = {}
        for answer in log.answers():
            key = identity(answer)
            if own.setdefault(answer.example_id, key) != key:
                raise _other_prompt(log, answer.example_id, "an earlier line of the same file")
            n_of.setdefault(answer.example_id, set()).add(answer.epoch)
            if common is None:
                task.lengths[answer.example_id] = answer.prompt_tokens or max(1, len(answer.prompt) // 4)
                counted = counted and bool(answer.prompt_tokens)
        if not own:
            raise ConfigError(f"{task.name} has no answers in this file", where=str(log.path))
        for example_id, key in own.items():
            if common is not None and common.get(example_id, key) != key:
                raise _other_prompt(log, example_id, str(task.first.path))
        seen |= own.keys()
        common = own if common is None else {name: key for name, key in common.items() if name in own}
        epochs.append(n_of)
    assert common is not None
    if not common:
        raise ConfigError(f"the files of {task.name} have no example in common", do="Import files of the same data.")
    numbers = [n_of[name] for n_of in epochs for name in common]
    task.epochs = next(n for n in itertools.count() if any(n not in own for own in numbers))
    if not task.epochs:
        raise ConfigError(f"some examples of {task.name} have no first answer", where=str(task.first.path))
    task.questions, task.is_counted = common, counted
    task.left_out = len(seen) - len(common)
    if task.left_out:
        say(f"note: {task.name}: {task.left_out} of {len(seen)} examples are not in all files and were left out")
    if max(map(len, numbers)) > task.epochs:
        say(f"note: {task.name}: some files have more answers to an example; {task.epochs} of each are taken")


def _other_prompt(log: ForeignLog, example_id: str, other: str) -> ConfigError:
    return ConfigError(
        f"{log.task}: example {example_id} is another question than in {other}",
        where=str(log.path),
        do="A loss is paired prompt by prompt: import runs of the same data, template and few-shot examples.",
    )
