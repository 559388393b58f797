"""Whether a data set's answers can be scored by a metric: asked before any stored score is replaced."""

import json
import sqlite3
from collections.abc import Mapping

from analyzer import metrics
from analyzer.metrics.single import as_answer, meta_fault, scorer
from analyzer.read import examples
from analyzer.read.examples import BinnedDataset
from analyzer.read.stored_plugins import of_sessions, scored_from
from analyzer.store.derived_rows import ScoredBy
from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError
from kvt_async.contract.formulas.metric_needs import check_installed, check_known, is_known

_KEY = "analysis.metric"
_SHOWN = 5
_LISTS = {"all_classes": "the classes to choose from", "tools": "the tools that could be called"}
_ENTRIES = (
    "FROM manifest_entries e JOIN examples x ON x.dataset_id = e.dataset_id AND x.example_id = e.example_id "
    "WHERE e.dataset_id = ?"
)


def scorable(facts: sqlite3.Connection, dataset_id: str, metric: str | None) -> BinnedDataset:
    """The data set, to be scored by `metric`; None: by the task's own, which `kvt prepare` has tried on every gold.

    Raises ConfigError for a metric that isn't known or lacks a package, that needs fields of meta which examples don't
    have or that it can't judge, or that reads a form (a class, a number, a letter) which no gold of an example has;
    MissingPrerequisiteError as `refuse_undefined`.
    """
    dataset = examples.dataset(facts, dataset_id).scored_by(metric)
    refuse_undefined(facts, dataset)
    if dataset.other_metric is None:
        return dataset
    check_known(dataset.metric, _KEY)
    check_installed(dataset.metric, _KEY)
    task = metrics.find(dataset.metric)
    for field in task.needs_meta if task is not None else ():
        _refuse_without(facts, dataset, field)
    if task is not None and not task.reads_golds:
        _refuse_faults(facts, dataset)
    if task is not None and task.format_ok is not None:
        _refuse_formless_golds(facts, dataset)
    return dataset


def refuse_undefined(facts: sqlite3.Connection, dataset: BinnedDataset) -> None:
    """Raise MissingPrerequisiteError for the metric of a plugin that isn't loaded, naming the file that defined it;
    ConfigError for one that nobody ever defined here.
    """
    metric = dataset.metric
    if is_known(metric):
        return
    files = scored_from(facts, metric) or (of_sessions(facts) if dataset.other_metric is None else [])
    if not files:
        check_known(metric, _KEY)
    raise MissingPrerequisiteError(
        f"the metric {metric} is a plugin's, which is not loaded",
        details=tuple(f"it was defined by {file}" for file in files),
        do="Name the file in a config, `plugins: [FILE]`, and pass that with -c CONFIG; a package must be installed.",
    )


def refuse_changed(metric: str, records: Mapping[str, ScoredBy]) -> None:
    """Raise MissingPrerequisiteError where a run was scored (`records`, by run) by a plugin's metric whose file is
    another one now.
    """
    origin = metrics.origin(metric)
    other = {run_id: by.file for run_id, by in records.items() if origin is not None and by.sha256 != origin.sha256}
    if origin is not None and other:
        raise MissingPrerequisiteError(
            f"the metric {metric} has changed since these scores were made: it is of {origin.says}",
            details=tuple(f"{run_id}: scored by {file}" for run_id, file in other.items()),
            do="Run `kvt score -c CONFIG` first.",
        )


def _refuse_without(facts: sqlite3.Connection, dataset: BinnedDataset, field: str) -> None:
    """Refuse a metric that reads a field of meta which some of the examples don't have."""
    kind = f"""json_type(x.meta_json, '$."{field}"')"""
    lacks = f"{kind} IS NOT 'array'" if field in _LISTS else f"coalesce({kind}, 'null') = 'null'"
    without, n = facts.execute(
        f"SELECT count(*) FILTER (WHERE {lacks}), count(*) {_ENTRIES}", (dataset.dataset_id,)
    ).fetchone()
    if without:
        what = _LISTS.get(field, f"the field {field}")
        raise _cannot(dataset, f"needs {what}, and {without:,} of {n:,} examples have no meta.{field}")


def _refuse_faults(facts: sqlite3.Connection, dataset: BinnedDataset) -> None:
    """Refuse a metric that reads no golds where it can't judge some examples."""
    rows = facts.execute("SELECT e.example_id, x.meta_json " + _ENTRIES, (dataset.dataset_id,))
    faults = [f"{name}: {fault}" for name, meta in rows if (fault := meta_fault(dataset.metric, json.loads(meta)))]
    if faults:
        more = [f"and {len(faults) - _SHOWN:,} more"] if len(faults) > _SHOWN else []
        raise _cannot(dataset, f"can't judge {len(faults):,} examples", (*faults[:_SHOWN], *more))


def _refuse_formless_golds(facts: sqlite3.Connection, dataset: BinnedDataset) -> None:
    score, lost, n = scorer(dataset.metric), [], 0
    rows = facts.execute("SELECT e.example_id, x.answers_json, x.meta_json " + _ENTRIES, (dataset.dataset_id,))
    for example_id, answers, meta_json in rows:
        n += 1
        golds, meta = [str(gold) for gold in json.loads(answers)], json.loads(meta_json)
        if golds and all(score(as_answer(dataset.metric, gold), (gold,), meta) == 0 for gold in golds):
            lost.append(f"{example_id}: {golds[0][:60]!r}")
    if lost:
        more = [f"and {len(lost) - _SHOWN:,} more"] if len(lost) > _SHOWN else []
        what = f"finds no answer of its form in the golds of {len(lost):,} of {n:,} examples"
        raise _cannot(dataset, what, (*lost[:_SHOWN], *more))


def _cannot(dataset: BinnedDataset, what: str, details: tuple[str, ...] = ()) -> ConfigError:
    return ConfigError(
        f"{dataset.task} can't be scored by {dataset.metric}: the metric {what}; nothing was scored",
        where=_KEY,
        details=details,
        do=f"Choose another metric; the task's own is {dataset.own_metric}.",
    )
