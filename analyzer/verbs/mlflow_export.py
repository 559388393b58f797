"""A group as one run of MLflow: figures as metrics, verdicts as tags, the config as params, the report with it."""

import importlib
import json
import os
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import yaml

from analyzer.read.drift import refuse_drift
from analyzer.read.snapshot import snapshot
from analyzer.results.results import Results, refuse_older
from analyzer.results.suite_results import SuiteResults, read_suite
from analyzer.stage_answers import Json, StageAnswer
from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError, ServerError
from kvt_async.contract.paths import RunPaths
from kvt_async.contract.settings import Settings
from kvt_async.contract.urls import public_url

Row = TypeVar("Row")

MOST_AT_ONCE = 100  # of params, metrics or tags in one call
MOST_CHARACTERS = 500  # of a param or a tag, in every version of MLflow
_NO_NAME = re.compile(r"[^\w\-. /]")
_CONFIG = "SELECT config_yaml FROM sessions WHERE exp_group_id = ? ORDER BY started_at DESC, rowid DESC LIMIT 1"


@dataclass(frozen=True)
class MlflowAnswer(StageAnswer):
    """The run that was made there."""

    run_id: str
    experiment: str
    tracking: str  # its address without credentials
    metrics: int
    params: int
    artifacts: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        files = " and ".join(self.artifacts) or "no report, for `kvt all` has not made one"
        return [
            f"run {self.run_id} of the experiment {self.experiment} at {self.tracking}",
            f"    {self.metrics} metrics, {self.params} params, {files}",
        ]

    def json(self) -> Json:
        return {
            "run_id": self.run_id,
            "experiment": self.experiment,
            "tracking": self.tracking,
            "metrics": self.metrics,
            "params": self.params,
            "artifacts": list(self.artifacts),
        }


def export_mlflow(
    conn: sqlite3.Connection, settings: Settings, paths: RunPaths, tracking_uri: str, experiment: str
) -> MlflowAnswer:
    """Make a run of MLflow, named as the group, in `experiment` (made where it is missing).

    Metrics are TASK/SERIES/BUDGET/accuracy, loss, loss_ci_low, loss_ci_high and fail_rate, and TASK/SERIES/safe_budget
    and loss_budget where they are proven. Tags hold the verdicts' sentences; params the config as it is stored, without
    secrets.

    Raises ConfigError where mlflow is not installed, MissingPrerequisiteError where nothing is analysed, ServerError
    where MLflow refuses, DriftError as the other exports do.
    """
    mlflow = _mlflow()
    with snapshot(conn) as facts:
        suite = read_suite(facts, settings.experiment.exp_group_id)
        stored = facts.execute(_CONFIG, (suite.first.group,)).fetchone()
    refuse_drift([] if settings.analysis.allow_drift else suite.first.drifts)
    for task in suite.tasks:
        refuse_older(task)
    if not any(task.stats for task in suite.tasks):
        raise MissingPrerequisiteError(
            "nothing is analysed yet", where=suite.first.group, do="Run `kvt all` with the same folder or config."
        )
    metrics = dict(_metrics(suite))
    params = dict(_flat(yaml.safe_load(stored[0]) if stored else {}))
    tags = _tags(suite)
    files = [path for path in (paths.run_dir / "report.html", paths.run_dir / "report.md") if path.is_file()]
    try:
        client = mlflow.MlflowClient(tracking_uri=tracking_uri)
        known = client.get_experiment_by_name(experiment)
        place = known.experiment_id if known is not None else client.create_experiment(experiment)
        run_id: str = client.create_run(place, run_name=suite.first.group).info.run_id
        now = time.time_ns() // 1_000_000
        for some in _batches(metrics.items(), MOST_AT_ONCE):
            client.log_batch(run_id, metrics=[mlflow.entities.Metric(key, value, now, 0) for key, value in some])
        for some_params in _batches(params.items(), MOST_AT_ONCE):
            client.log_batch(run_id, params=[mlflow.entities.Param(*param) for param in some_params])
        for some_tags in _batches(tags.items(), MOST_AT_ONCE):
            client.log_batch(run_id, tags=[mlflow.entities.RunTag(*tag) for tag in some_tags])
        for path in files:
            client.log_artifact(run_id, str(path))
        client.set_terminated(run_id)
    except mlflow.exceptions.MlflowException as error:
        what = str(error).replace(tracking_uri, public_url(tracking_uri)).splitlines()[0][:MOST_CHARACTERS]
        raise ServerError(
            f"MLflow: {what}",
            where=public_url(tracking_uri),
            do="Give the address of a tracking server or store that this MLflow takes.",
        ) from None
    return MlflowAnswer(
        run_id, experiment, public_url(tracking_uri), len(metrics), len(params), tuple(path.name for path in files)
    )


def _mlflow() -> Any:
    """The package, which by itself would report its use to its makers."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        return importlib.import_module("mlflow")
    except ImportError:
        raise ConfigError(
            "mlflow is not installed", where="kvt export --format mlflow", do="Run: pip install 'kvt[mlflow]'"
        ) from None


def _metrics(suite: SuiteResults) -> Iterator[tuple[str, float]]:
    for task in suite.tasks:
        yield from _of_task(task)
    for stat in suite.stats:
        if stat.series and not stat.repeat_idx and stat.drop_mean is not None:
            yield _name("all tasks", stat.series, f"{stat.kv_budget:g}", "loss"), stat.drop_mean
    for verdict in suite.verdicts:
        if verdict.mean_safe_budget is not None:
            yield _name("all tasks", verdict.series, "safe_budget"), verdict.mean_safe_budget


def _of_task(task: Results) -> Iterator[tuple[str, float]]:
    for run in task.runs:
        stat, drop = task.stat(run), task.drop(run)
        full = f"full {run.repeat_idx}" if run.repeat_idx else "full"
        level = (full,) if run.is_full else (run.series, f"{run.kv_budget:g}")
        values = {
            "accuracy": stat.acc_mean if stat else None,
            "accuracy_ci_low": stat.acc_ci_low if stat else None,
            "accuracy_ci_high": stat.acc_ci_high if stat else None,
            "fail_rate": stat.fail_rate if stat else None,
            "loss": drop.drop_mean if drop else None,
            "loss_ci_low": drop.drop_ci_low if drop else None,
            "loss_ci_high": drop.drop_ci_high if drop else None,
        }
        yield from ((_name(task.task, *level, key), value) for key, value in values.items() if value is not None)
    for series in task.series:
        verdict = task.verdict(series)
        budgets = {"safe_budget": verdict.safe_budget, "loss_budget": verdict.loss} if verdict else {}
        yield from ((_name(task.task, series, key), value) for key, value in budgets.items() if value is not None)


def _tags(suite: SuiteResults) -> dict[str, str]:
    tags = {"kvt.group": suite.first.group, "kvt.contract_sha256": suite.first.contract_sha256}
    tags |= {
        f"verdict/{_name(task.task, series)}": verdict.verdict_text
        for task in suite.tasks
        for series in task.series
        if (verdict := task.verdict(series)) is not None
    }
    tags |= {f"verdict/{_name('all tasks', v.series)}": v.verdict_text for v in suite.verdicts}
    if suite.partial:
        tags["kvt.partial"] = "true"
    return {name: text[:MOST_CHARACTERS] for name, text in tags.items() if text}


def _batches(rows: Iterable[tuple[str, Row]], size: int) -> Iterator[list[tuple[str, Row]]]:
    rest = iter(rows)
    while some := list(islice(rest, size)):
        yield some


def _name(*parts: str) -> str:
    """As MLflow takes it: letters, digits and _ - . / only. A slash within a part would look like another level."""
    return "/".join(_NO_NAME.sub("_", part).replace("/", "_") for part in parts)


def _flat(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Every key of a config that has a value, with its sections in front: ("model.name", "llama")."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{key}.")
        elif value not in (None, "", [], {}):
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            yield _NO_NAME.sub("_", f"{above}{key}"), text[:MOST_CHARACTERS]
