"""A data source of a plugin: the user's function gives rows as dicts, checked as the lines of a jsonl file are."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from kvt_async.contract import plugin_registry
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.metric_needs import check_known
from kvt_async.contract.paths import data_path
from kvt_async.contract.plugin_registry import Kind, Plugin, SourceTask
from kvt_async.contract.settings import Dataset, Settings
from kvt_async.contract.vocabulary import OUR_SOURCES
from kvt_async.data.sources import jsonl
from kvt_async.data.sources.source import ExampleSource, Published, Row, check_params, did_you_mean, file_sha256


def check(settings: Settings) -> None:
    """Raises ConfigError for a source, task or parameter that there isn't; opens nothing."""
    plugin, task = _plugin(settings.dataset.name), task_of(settings)
    check_params(settings.dataset.params, (*plugin.options["params"], "metric"), plugin.name)
    check_known(metric_of(settings), f"dataset.task {settings.dataset.task_key}: {task.about}")


def metric_of(settings: Settings) -> str:
    """The task's own metric, or dataset.params.metric."""
    return str(settings.dataset.params.get("metric", task_of(settings).metric))


def task_of(settings: Settings) -> SourceTask:
    """Raises ConfigError for a key that is not exactly one of the source's tasks."""
    name, key = settings.dataset.name, settings.dataset.task_key
    tasks = tasks_of(name)
    if key not in tasks:
        raise ConfigError(f"{name} has no task {key!r}", where="dataset.task", do=did_you_mean(key, tuple(tasks)))
    return tasks[key]


def tasks_of(name: str) -> Mapping[str, SourceTask]:
    """The tasks of a source. Raises ConfigError where no plugin gives it."""
    tasks: Mapping[str, SourceTask] = _plugin(name).options["tasks"]
    return tasks


def published(dataset: Dataset) -> Published | None:
    """What the plugin says of a task's answers; None where it says nothing, or isn't loaded."""
    plugin = plugin_registry.find(Kind.SOURCE, dataset.name)
    task = plugin.options["tasks"].get(dataset.task_key) if plugin is not None else None
    return None if task is None or task.max_new_tokens is None else Published(task.max_new_tokens, task.metric)


def open_source(settings: Settings) -> ExampleSource:
    check(settings)
    plugin, task, dataset = _plugin(settings.dataset.name), task_of(settings), settings.dataset
    path = data_path(dataset.path) if dataset.path is not None else None
    revision = plugin.options["revision"] or f"sha256:{plugin.origin.sha256}"
    if path is not None and path.is_file():
        revision += f" data sha256:{file_sha256(path)}"
    return ExampleSource(
        revision=f"{plugin.name} {revision}",
        metric=metric_of(settings),
        rows=lambda: _rows(plugin, dataset.task_key, path, dataset.params),
        template=task.template,
        max_new_tokens=task.max_new_tokens,
    )


def _rows(plugin: Plugin, task: str, path: Path | None, params: Mapping[str, Any]) -> Iterator[Row]:
    own = {key: value for key, value in params.items() if key != "metric"}
    n = 0
    try:
        for n, row in enumerate(plugin.function(task, path, own)):
            where = f"{plugin.name} {task} #{n}"
            if not isinstance(row, dict):
                raise ConfigError(
                    f"{plugin.says} gave {type(row).__name__}, not a dict", where=where, do="Yield one dict an example."
                )
            yield from jsonl.rows_of(_json(plugin, row, where), where)
    except Exception as error:
        raise plugin.failed(error, about=(f"after {n} rows of {task}",)) from None


def _json(plugin: Plugin, row: dict[str, Any], where: str) -> bytes:
    try:
        return orjson.dumps(row)
    except TypeError as error:
        raise ConfigError(
            f"{plugin.says} gave what JSON has no word for: {error}",
            where=where,
            do="Rows hold texts, numbers, lists and dicts with texts as keys.",
        ) from None


def _plugin(name: str) -> Plugin:
    if (plugin := plugin_registry.find(Kind.SOURCE, name)) is None:
        known = (*OUR_SOURCES, *plugin_registry.names(Kind.SOURCE))
        raise ConfigError(f"there is no dataset {name!r}", where="dataset.name", do=did_you_mean(name, known))
    return plugin
