"""A group as one run of MLflow: what it is told, and what is refused. With MLflow itself where it is installed."""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from analyzer.results.results import read_results
from analyzer.scoring.score import score
from analyzer.summarise.analyze import analyze
from analyzer.verbs.mlflow_export import export_mlflow
from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError, ServerError
from kvt_async.contract.paths import RunPaths, run_paths
from tests.analyzer.conftest import Experiment

needs_mlflow = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mlflow", "sqlalchemy")),
    reason="mlflow and sqlalchemy are not installed: pip install mlflow",
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a database, MLflow keeps artifacts where it is called."""
    monkeypatch.chdir(tmp_path)


def paths(folder: Path) -> RunPaths:
    made = run_paths(str(folder), "synthetic")
    made.run_dir.mkdir(parents=True, exist_ok=True)
    (made.run_dir / "report.html").write_text("the report")
    return made


@needs_mlflow
def test_a_group_is_a_run_with_its_figures_verdicts_config_and_report(experiment: Experiment, tmp_path: Path) -> None:
    client_of = importlib.import_module("mlflow").MlflowClient
    conn, settings = experiment(n_per_bin=6, resamples=100)
    with pytest.raises(MissingPrerequisiteError, match="nothing is analysed"):
        export_mlflow(conn, settings, paths(tmp_path / "early"), f"sqlite:///{tmp_path}/m.db", "e")
    score(conn, "synthetic")
    analyze(conn, settings)
    uri = f"sqlite:///{tmp_path}/m.db"
    answer = export_mlflow(conn, settings, paths(tmp_path), uri, "mine")
    client = client_of(tracking_uri=uri)
    run: Any = client.get_run(answer.run_id)
    results = read_results(conn, "synthetic")
    for level in results.runs:
        stat, drop = results.stat(level), results.drop(level)
        assert stat is not None
        name = f"full {level.repeat_idx}" if level.repeat_idx else "full"
        at = f"{results.task}/{name if level.is_full else f'snapkv_aware/{level.kv_budget:g}'}"
        assert run.data.metrics[f"{at}/accuracy"] == pytest.approx(stat.acc_mean)
        assert run.data.metrics.get(f"{at}/loss") == (drop and pytest.approx(drop.drop_mean))
    verdict = results.verdict("snapkv/aware")
    assert verdict is not None
    assert run.data.tags[f"verdict/{results.task}/snapkv_aware"] == verdict.verdict_text[:500]
    assert run.info.status == "FINISHED"
    assert client.get_experiment(run.info.experiment_id).name == "mine"
    assert answer.artifacts == ("report.html",)
    assert len(run.data.metrics) == answer.metrics


@needs_mlflow
def test_what_mlflow_refuses_is_said_without_the_password(experiment: Experiment, tmp_path: Path) -> None:
    conn, settings = experiment(n_bins=1, n_per_bin=4, resamples=100)
    score(conn, "synthetic")
    analyze(conn, settings)
    with pytest.raises(ServerError) as caught:
        export_mlflow(conn, settings, paths(tmp_path), "nothing://me:hidden@host/x", "e")
    assert "hidden" not in str(caught.value)


def test_without_mlflow_the_words_say_what_to_install(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    conn, settings = experiment(n_bins=1, n_per_bin=1)
    with pytest.raises(ConfigError, match="mlflow is not installed"):
        export_mlflow(conn, settings, paths(tmp_path), "http://127.0.0.1:1", "e")
