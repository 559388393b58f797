"""The tasks of a config, each with the settings of that task alone: what every command works through.

An entry of `tasks` lies over the top-level sections dataset, prompt, binning, sampling and decoding, key by key; one
with its own `dataset.name` replaces `dataset` whole. Without entries the top-level `dataset` is what is run. Either may
name several tasks in short (see task_choice).
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from kvt_async.contract.config_section import Section
from kvt_async.contract.errors import ConfigError, KvtError
from kvt_async.contract.paths import manifest_path, run_paths
from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.settings import Dataset, Decoding, Settings, TaskEntry
from kvt_async.data.identity import dataset_id
from kvt_async.data.sources import asked_lengths, published
from kvt_async.data.sources.source import Published
from kvt_async.data.sources.task_choice import choose_tasks, fitting_path, is_several

_MERGED = ("dataset", "prompt", "binning", "sampling", "decoding")


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a group. `settings`: a config of this task alone, without `tasks`; dataset.task is its exact key."""

    name: str
    settings: Settings


@dataclass(frozen=True, slots=True)
class Tasks:
    """Every task of a config, in the order in which they are run; `notes` are sentences worth printing once."""

    tasks: tuple[Task, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of `tasks`, or a config without any: as it was given, and its merged settings."""

    where: str  # "tasks.0"; empty: the config has no entries
    given: TaskEntry
    settings: Settings


def tasks_of(settings: Settings) -> Tasks:
    """The tasks of a config: one where it names one.

    Raises ConfigError naming the entry: for a task that is not named, for two of one name or of one data set, for short
    forms that name nothing, and for sections that are not valid once they are merged.
    """
    entries = _entries(settings)
    datasets = [entry.settings.dataset for entry in entries]
    named = {_identity(each) for each in datasets if each.task is not None and not is_several(each)}
    tasks: list[Task] = []
    notes: list[str] = []
    for entry in entries:
        with _in_entry(entry.where):
            for task in _expanded(entry, named, notes):
                _check_distinct(task, tasks)
                tasks.append(task)
    return Tasks(tuple(tasks), (*notes, *_greedy_again(tasks)))


@contextlib.contextmanager
def naming(task: Task, of: Tasks) -> Iterator[None]:
    """Errors within say which task they are about, where there are several."""
    try:
        yield
    except KvtError as error:
        if len(of.tasks) > 1:
            error.where = f"task {task.name}: {error.where}" if error.where else f"task {task.name}"
        raise


def _entries(settings: Settings) -> list[_Entry]:
    if not settings.tasks:
        return [_Entry("", TaskEntry(), settings)]
    return [_merged(settings, entry, f"tasks.{idx}") for idx, entry in enumerate(settings.tasks)]


def _merged(settings: Settings, entry: TaskEntry, where: str) -> _Entry:
    sections: dict[str, Any] = {"tasks": []}
    for key in _MERGED:
        over: Section | None = getattr(entry, key)
        if over is not None:
            given, section = over.model_dump(exclude_unset=True), getattr(settings, key)
            whole = given if key == "dataset" and "name" in given else _deep(section.model_dump(), given)
            with _in_entry(where):
                sections[key] = _valid(type(section), whole, key)
    dataset: Dataset = sections.get("dataset", settings.dataset)
    if entry.dataset is None or "path" not in entry.dataset.model_fields_set:
        dataset = fitting_path(dataset)  # the file of the other tasks
    return _Entry(where, entry, settings.model_copy(update={**sections, "dataset": dataset}))


def _expanded(entry: _Entry, named: set[tuple[str, str]], notes: list[str]) -> Iterator[Task]:
    """The tasks of one entry. What another entry names itself is not taken twice by `all` or a glob."""
    dataset, given = entry.settings.dataset, entry.given
    choice = choose_tasks(dataset)
    notes += [f"{key} is left out: {why}" for key, why in choice.left_out.items() if (dataset.name, key) not in named]
    chosen = [each for each in choice.datasets if not is_several(dataset) or _identity(each) not in named]
    own_task = given.dataset.task if given.dataset is not None else None
    if given.check and given.name is None and (own_task is None or is_several(dataset)):
        raise ConfigError(
            "these assertions are about no one task",
            where="check",
            do="Give the entry a `name`, or name the task in the top-level check.",
        )
    if given.name is not None and len(choice.datasets) > 1:
        raise ConfigError(
            f"the name {given.name!r} is given to {len(choice.datasets)} tasks",
            where="name",
            do="Leave it out: each is called by its dataset.task.",
        )
    for each in chosen:
        name = given.name or each.task_key
        own = entry.settings.model_copy(update={"dataset": each})
        yield Task(name, _settled(own, name, notes))


def _by_asked_length(settings: Settings, name: str, notes: list[str]) -> Settings:
    """With bins of the asked lengths where the config leaves the rule open and quantiles would cut them otherwise.

    One quantile bin a length is the same bins under the same dataset_id. Data that were prepared by quantiles stay so.
    """
    binning, lengths, limit = settings.binning, asked_lengths(settings), settings.prompt.max_context_tokens
    if lengths is None or binning.by is not None or binning.edges is not None:
        return settings
    if binning.n_bins == len(lengths.lengths) or (limit is not None and limit < lengths.lengths[-1]):
        return settings
    if _is_prepared(settings):
        notes.append(
            f"{name}: it was prepared in {binning.n_bins} bins by quantiles and stays so; "
            "binning.by: asked_length would make a bin of each asked length"
        )
        return settings
    return settings.model_copy(update={"binning": binning.model_copy(update={"by": "asked_length"})})


def _is_prepared(settings: Settings) -> bool:
    """Whether this data set lies on the disk, or in the group's database."""
    name = dataset_id(settings)
    if manifest_path(settings.output.data_dir, name).is_file():
        return True
    db = run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path).db
    if not db.is_file():
        return False
    try:
        with contextlib.closing(connect_for_reading(db)) as conn:
            return conn.execute("SELECT 1 FROM datasets WHERE dataset_id = ?", (name,)).fetchone() is not None
    except (KvtError, sqlite3.Error):  # what is wrong with it is said where it is needed
        return False


def _settled(settings: Settings, name: str, notes: list[str]) -> Settings:
    """With the task's own published values where the config gives none; another value than that is said."""
    settings = _by_asked_length(settings, name, notes)
    decoding, own = settings.decoding, published(settings.dataset)
    if own is None:
        return settings.model_copy(
            update={"decoding": decoding.model_copy(update={"max_tokens": decoding.most_tokens})}
        )
    for key, given, theirs in (
        ("decoding.max_tokens", decoding.max_tokens, own.max_new_tokens),
        ("decoding.stop", decoding.stop, own.stop),
        ("dataset.params.metric", settings.dataset.params.get("metric"), own.metric),
    ):
        if given is not None and theirs is not None and given != theirs:
            notes.append(f"{name}: {key} {given}, the task's own is {theirs}")
    notes += _other_sampling(decoding, own, name)
    settled = {
        "max_tokens": own.max_new_tokens if decoding.max_tokens is None else decoding.max_tokens,
        "stop": own.stop if decoding.stop is None else decoding.stop,
    }
    return settings.model_copy(update={"decoding": decoding.model_copy(update=settled)})


def _other_sampling(decoding: Decoding, own: Published, name: str) -> Iterator[str]:
    """Says where answers are drawn in another way than the published one; without a temperature, top_p cuts nothing."""
    temperature = decoding.extra_body.get("temperature", decoding.temperature)
    if own.temperature is not None and temperature != own.temperature:
        drawn = "the server's own" if temperature is None else f"{temperature:g}"
        yield f"{name}: decoding.temperature {drawn}, the task is published with {own.temperature:g}"
    top_p = decoding.extra_body.get("top_p")
    if temperature != 0 and own.top_p is not None and top_p != own.top_p:
        cut = "not set" if top_p is None else f"{top_p:g}"
        yield f"{name}: decoding.extra_body.top_p {cut}, the task is published with {own.top_p:g}"


def _greedy_again(tasks: list[Task]) -> Iterator[str]:
    """Says where several answers to a question are asked for and none of them is drawn; named where not all tasks do.

    extra_body lies over the fields of a request, its temperature too.
    """
    greedy: dict[int, list[str]] = {}
    for task in tasks:
        decoding = task.settings.decoding
        if decoding.samples > 1 and decoding.extra_body.get("temperature", decoding.temperature) == 0:
            greedy.setdefault(decoding.samples, []).append(task.name)
    for samples, names in greedy.items():
        whose = "" if len(names) == len(tasks) else f"{', '.join(names)}: "
        yield (
            f"{whose}decoding.samples {samples} at temperature 0: the same question {samples} times; only the server's "
            "own noise can differ"
        )


def _identity(dataset: Dataset) -> tuple[str, str]:
    return dataset.name, dataset.task_key


def _check_distinct(task: Task, others: list[Task]) -> None:
    """Names are also file names, so those that differ in case alone are one. Raises ConfigError."""
    for other in others:
        if other.name.casefold() == task.name.casefold():
            raise ConfigError(
                f"two tasks are called {task.name}", where="name", do="Give one of them a `name` of its own."
            )
        if (data := dataset_id(task.settings)) == dataset_id(other.settings):
            raise ConfigError(
                f"{other.name} and {task.name} are the same data set, {data}",
                do="Leave one out. Other decoding of the same data is an experiment group of its own.",
            )


def _deep(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`, as one config file over another."""
    both = dict(base)
    for key, value in over.items():
        inner = both.get(key)
        both[key] = _deep(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return both


def _valid(section: type[Section], values: dict[str, Any], key: str) -> Section:
    try:
        return section.model_validate(values)
    except ValidationError as error:
        problems = tuple(f"{item['msg'].removeprefix('Value error, ')}" for item in error.errors(include_url=False))
        raise ConfigError("not valid with what lies under it", where=key, details=problems) from None


@contextlib.contextmanager
def _in_entry(where: str) -> Iterator[None]:
    """Errors within say which entry of `tasks` they are about."""
    try:
        yield
    except ConfigError as error:
        if where:
            error.where = f"{where}.{error.where}" if error.where else where
        raise
