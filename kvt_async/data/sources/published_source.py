"""What every published data set of files has in common: its tasks by name, their files, and how records become rows.

A module of one data set (mrcr.py, gsm8k.py, ...) says what its tasks are and turns a record into an example; shelf.py
lists them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.metric_needs import check_known
from kvt_async.contract.paths import data_path
from kvt_async.contract.settings import Dataset, Settings
from kvt_async.data.sources.json_rows import check_max_line
from kvt_async.data.sources.published_files import OpenedFile, PublishedFile, open_file
from kvt_async.data.sources.source import ExampleSource, Published, Row, check_params, did_you_mean
from kvt_async.records import Example

Record = dict[str, Any]
Params = Mapping[str, Any]
ReadRows = Callable[[Sequence[OpenedFile]], Iterator[Row]]
SHARED_PARAMS = ("metric", "max_line_mb")


@dataclass(frozen=True, slots=True)
class PublishedTask:
    """One task as it was published. `files` are read by `rows` in this order.

    `template`: the published prompt; None where the question is the whole prompt's end (the default template).
    """

    published: Published
    files: tuple[PublishedFile, ...]
    rows: ReadRows
    template: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PublishedSource:
    """A data set of files. `tasks`: exact key -> what it is; `task(key, params)`: that task under `dataset.params`,
    raising ConfigError for a parameter's value that it doesn't take; `params`: which it takes, beside metric and
    max_line_mb. `unavailable(key, params)`: why a task can't be run under these parameters; empty: it can. `notes`:
    what `kvt tasks` says of the list. `refuse(settings)` raises ConfigError for what else in a config doesn't fit.
    """

    name: str
    tasks: Mapping[str, str]
    task: Callable[[str, Params], PublishedTask]
    params: tuple[str, ...] = ()
    unavailable: Callable[[str, Params], str] = lambda _key, _params: ""
    notes: tuple[str, ...] = ()
    refuse: Callable[[Settings], None] = lambda _settings: None

    def task_of(self, dataset: Dataset) -> PublishedTask:
        """Raises ConfigError for a key that is not exactly one of the tasks, and for parameters that are not taken."""
        key = dataset.task_key
        if key not in self.tasks:
            advice = f"{did_you_mean(key, tuple(self.tasks))} See `kvt tasks {self.name}`."
            raise ConfigError(f"{self.name} has no task {key!r}", where="dataset.task", do=advice)
        check_params(dataset.params, (*self.params, *SHARED_PARAMS), self.name)
        check_max_line(dataset.params)
        if why := self.unavailable(key, dataset.params):
            raise ConfigError(f"{self.name} can't run {key}: {why}", where="dataset.params")
        return self.task(key, dataset.params)

    def metric_of(self, settings: Settings) -> str:
        """The task's own metric, or dataset.params.metric."""
        own = self.task_of(settings.dataset).published.metric
        return str(settings.dataset.params.get("metric", own))

    def check(self, settings: Settings) -> None:
        """What can be known without opening a file. Raises ConfigError."""
        check_known(self.metric_of(settings), "dataset.params.metric")
        self.refuse(settings)

    def published(self, dataset: Dataset) -> Published | None:
        """What the task is published with; None for a key that no task has."""
        return self.task_of(dataset).published if dataset.task_key in self.tasks else None

    def lacks(self, dataset: Dataset, key: str) -> str:
        """What stands against a task: its parameters, or what the file or folder of the config does not hold; empty:
        nothing, or the hub is asked."""
        if why := self.unavailable(key, dataset.params):
            return why
        if dataset.path is None:
            return ""
        path = data_path(dataset.path)
        files = self.task_of(dataset.model_copy(update={"task": key})).files
        missing = [file.path for file in files if file.local(path) is None]
        return f"{dataset.path} holds no {missing[0]}" if missing else ""

    def open(self, settings: Settings) -> ExampleSource:
        """Raises ConfigError or ServerError where a file is missing, broken or can't be had."""
        self.check(settings)
        task = self.task_of(settings.dataset)
        opened = (open_file(file, settings) for file in task.files)
        files = list({file.path: file for file in opened}.values())  # one copy may hold what is published in several
        return ExampleSource(
            revision=" ".join(file.pin for file in files),
            metric=self.metric_of(settings),
            rows=lambda: _numbered(task.rows(files)),
            template=task.template,
            max_new_tokens=task.published.max_new_tokens,
            notes=task.notes,
            published=True,
        )

    def list_tasks(self, params: Params) -> list[tuple[str, str]]:
        """(key, what it is, metric and answer length) of each task."""
        rows = []
        for key, about in self.tasks.items():
            own = self.task(key, params).published
            rows.append((key, f"{about}; {own.metric}, {own.max_new_tokens} tokens"))
        return rows


def each_record(parse: Callable[[Record, str], Iterable[Example]]) -> ReadRows:
    """Rows of files whose records stand each for itself: `parse(record, where)` gives the examples of one.

    Raises ConfigError naming the place for a record that lacks a field which `parse` reads.
    """

    def rows(files: Sequence[OpenedFile]) -> Iterator[Row]:
        for file in files:
            for where, record in file.records():
                try:
                    examples = list(parse(record, where))
                except KeyError as error:
                    raise ConfigError(
                        f"the field {error.args[0]!r} is missing",
                        where=where,
                        do="Is this the published file of this task? Your own data: dataset.name: jsonl.",
                    ) from None
                yield from (Row(example, where) for example in examples)

    return rows


def _numbered(rows: Iterator[Row]) -> Iterator[Row]:
    """An id that comes again gets #2, #3: nobody can correct what is published."""
    seen: dict[str, int] = {}
    for row in rows:
        name = row.example.example_id
        seen[name] = n = seen.get(name, 0) + 1
        yield row if n == 1 else Row(replace(row.example, example_id=f"{name}#{n}"), row.where)
