"""Outside rows -> canonical examples: functions to open a source, to check a config and its metric, to list tasks."""

from collections.abc import Callable

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.length_names import AskedLengths
from kvt_async.contract.formulas.metric_needs import check_installed, check_known
from kvt_async.contract.paths import data_path
from kvt_async.contract.settings import Dataset, Settings
from kvt_async.contract.vocabulary import OUR_SOURCES
from kvt_async.data.sources import generated, jsonl, longbench, plugin_source, ruler
from kvt_async.data.sources.shelf import SHELF
from kvt_async.data.sources.source import ExampleSource, Published, Row

__all__ = [
    "ExampleSource",
    "Row",
    "asked_lengths",
    "binned_by",
    "check_metric",
    "check_source",
    "list_tasks",
    "open_source",
    "published",
]


def open_source(settings: Settings) -> ExampleSource:
    """Open `dataset.name`. Raises ConfigError for an unknown task or parameter, or data that can't be read."""
    match settings.dataset.name:
        case "jsonl":
            return jsonl.open_source(settings)
        case "kvtext":
            return generated.open_kvtext(settings)
        case "ruler":
            return ruler.open_source(settings)
        case "longbench" | "longbench_e":
            return longbench.open_source(settings)
        case name if name in SHELF:
            return SHELF[name].open(settings)
        case _:
            return plugin_source.open_source(settings)


def check_source(settings: Settings) -> None:
    """What `validate` can know without opening or creating anything. Raises ConfigError."""
    match settings.dataset.name:
        case "jsonl":
            jsonl.check(settings)
        case "kvtext":
            generated.check_kvtext(settings)
        case "ruler":
            ruler.check(settings)
        case "longbench" | "longbench_e":
            longbench.check(settings)
        case name if name in SHELF:
            SHELF[name].check(settings)
        case _:
            plugin_source.check(settings)


def check_metric(settings: Settings) -> None:
    """Raises ConfigError where a package that scoring will need is not installed, or analysis.metric is no metric."""
    if settings.dataset.name == "jsonl":
        check_installed(jsonl.metric_of(settings), "dataset.params.metric")
    elif settings.dataset.name in ("longbench", "longbench_e"):
        check_installed(longbench.metric_of(settings), f"dataset.task {settings.dataset.task_key}")
    elif settings.dataset.name in SHELF:
        metric = SHELF[settings.dataset.name].metric_of(settings)
        check_installed(metric, f"dataset.task {settings.dataset.task_key}")
    elif settings.dataset.name not in OUR_SOURCES:
        check_installed(plugin_source.metric_of(settings), f"dataset.task {settings.dataset.task_key}")
    if settings.analysis.metric is not None:
        check_known(settings.analysis.metric, "analysis.metric")
        check_installed(settings.analysis.metric, "analysis.metric")


def published(dataset: Dataset) -> Published | None:
    """What the task is published with; None for data that nobody published, and for a key that no task has."""
    match dataset.name:
        case "ruler":
            return ruler.PUBLISHED.get(dataset.task_key)
        case "longbench" | "longbench_e":
            return longbench.published(dataset)
        case "jsonl" | "kvtext":
            return None
        case name if name in SHELF:
            return SHELF[name].published(dataset)
        case _:
            return plugin_source.published(dataset)


def asked_lengths(settings: Settings) -> AskedLengths | None:
    """The lengths that the prompts of this data set are made for; None: they have their own."""
    own = published(settings.dataset)
    dataset = settings.dataset
    return AskedLengths.of(dataset.name, dataset.params, own.max_new_tokens if own else None)


def binned_by(settings: Settings) -> AskedLengths | None:
    """The lengths that make the bins; None: edges or quantiles do. Raises ConfigError where binning.by asks for lengths
    that no prompt was made for.
    """
    if settings.binning.by != "asked_length":
        return None
    if (lengths := asked_lengths(settings)) is None:
        raise ConfigError(
            f"the prompts of {settings.dataset.name} are made for no length",
            where="binning.by",
            do="Set it to null or quantile, or give binning.edges.",
        )
    return lengths


def list_tasks(
    name: str, settings: Settings, *, report: Callable[[str], None] = lambda _: None
) -> list[tuple[str, str]]:
    """Tasks of a source as (exact key, description). `report` is told where the list comes from, or why it can't be
    confirmed. Raises ConfigError for an unknown source.
    """
    if name == "kvtext":
        from kvt_async.data.sources.kvtext import TASKS

        return list(TASKS.items())
    if name == "ruler":
        return ruler.list_tasks(settings.dataset.path)
    if name in ("longbench", "longbench_e"):
        return longbench.list_tasks(name, settings, report)
    if name == "jsonl":
        report("jsonl has one task per file: dataset.task is your own label for it, and has no default.")
        path = data_path(settings.dataset.path or "")
        if settings.dataset.path is None:
            return [("LABEL", "dataset.path is not set")]
        return [(file.stem, str(file)) for file in (sorted(path.glob("*.jsonl")) if path.is_dir() else [path])]
    if name in SHELF:
        for note in SHELF[name].notes:
            report(note)
        return SHELF[name].list_tasks(settings.dataset.params if settings.dataset.name == name else {})
    return [(key, task.about) for key, task in plugin_source.tasks_of(name).items()]
