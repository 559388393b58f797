"""Levels as Every Eval Ever has them: the shape of its schemas 0.3.0, our figures, and the way back by `kvt import`."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import validate

from analyzer.results.results import read_results
from analyzer.scoring.score import score
from analyzer.summarise.analyze import analyze
from analyzer.verbs.eee_export import EeeAnswer, export_eee
from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.vocabulary import Unit
from kvt_async.import_command import Terms, imported
from kvt_async.imports.foreign_log import LogChoice
from tests.analyzer.conftest import Experiment, Opened

TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}


def shape(**fields: Any) -> dict[str, Any]:
    """An object that has these fields, all of them."""
    return {"type": "object", "required": list(fields), "properties": fields}


TEXT, NUMBER = {"type": "string"}, {"type": "number"}
AGGREGATE = shape(
    schema_version={"const": "0.3.0"},
    evaluation_id=TEXT,
    retrieved_timestamp=TEXT,
    source_metadata=shape(
        source_type={"const": "evaluation_run"},
        source_organization_name=TEXT,
        evaluator_relationship={"const": "other"},
    ),
    eval_library=shape(name={"const": "kvt"}, version=TEXT),
    model_info=shape(
        name=TEXT,
        id=TEXT,
        additional_details=TEXTS | {"required": ["deployment_type", "model_availability", "kv_budget", "kv_policy"]},
    ),
    evaluation_results={
        "type": "array",
        "minItems": 1,
        "items": shape(
            evaluation_result_id=TEXT,
            evaluation_name=TEXT,
            source_data=shape(dataset_name=TEXT, source_type={"const": "other"}, additional_details=TEXTS),
            metric_config=shape(lower_is_better={"const": False}, min_score=NUMBER, max_score=NUMBER),
            score_details=shape(
                score=NUMBER,
                details=TEXTS,
                uncertainty=shape(confidence_interval=shape(lower=NUMBER, upper=NUMBER, confidence_level=NUMBER)),
            ),
        ),
    },
    detailed_evaluation_results=shape(format={"const": "jsonl"}, file_path=TEXT, checksum=TEXT, total_rows=NUMBER),
)
INSTANCE = shape(
    schema_version={"const": "0.3.0"},
    evaluation_id=TEXT,
    model_id=TEXT,
    evaluation_name=TEXT,
    sample_id=TEXT,
    interaction_type={"enum": ["single_turn", "multi_turn"]},
    input=shape(raw=TEXT, reference={"type": "array", "items": TEXT}),
    answer_attribution={"type": "array"},
    evaluation=shape(score=NUMBER, is_correct={"type": "boolean"}),
    metadata=TEXTS,
)


def analysed(experiment: Experiment, **asked: Any) -> Opened:
    conn, settings = experiment(n_bins=2, bin_sizes=[12, 5], resamples=100, **asked)
    score(conn, "synthetic")
    analyze(conn, settings, partial=True)
    return conn, settings


def read(answer: EeeAnswer, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    samples = next(level.samples for level in answer.levels if level.name == name)
    aggregate = samples.with_name(samples.name.replace("_samples.jsonl", ".json"))
    return json.loads(aggregate.read_text()), [json.loads(line) for line in samples.read_text().splitlines()]


def test_every_level_has_the_shape_of_the_schemas_and_the_reports_figures(
    experiment: Experiment, tmp_path: Path
) -> None:
    conn, settings = analysed(experiment, failures=0.1)
    answer = export_eee(conn, settings, tmp_path, organization="me")
    assert [level.name for level in answer.levels] == ["full", "snapkv/aware:0.5", "snapkv/aware:0.2", "full#1"]
    results = read_results(conn, "synthetic")
    for run, level in zip((r for r in results.runs), answer.levels, strict=True):
        aggregate, lines = read(answer, level.name)
        validate(aggregate, AGGREGATE)
        for line in lines:
            validate(line, INSTANCE)
        (result,), stat = aggregate["evaluation_results"], results.stat(run)
        assert stat is not None
        assert result["score_details"]["score"] == pytest.approx(stat.acc_mean)
        interval = result["score_details"]["uncertainty"]["confidence_interval"]
        assert (interval["lower"], interval["upper"]) == (stat.acc_ci_low, stat.acc_ci_high)
        assert aggregate["model_info"]["additional_details"]["kv_budget"] == str(run.kv_budget)
        assert aggregate["detailed_evaluation_results"]["total_rows"] == len(lines) == level.rows
        assert (tmp_path / aggregate["detailed_evaluation_results"]["file_path"]).is_file()
        assert {line["evaluation_id"] for line in lines} == {aggregate["evaluation_id"]}
    again = export_eee(conn, settings, tmp_path, organization="me")
    assert again.levels == answer.levels
    assert len(list(tmp_path.rglob("*.json*"))) == 2 * len(answer.levels)


def test_what_was_exported_and_imported_again_has_the_same_scores_and_means(
    experiment: Experiment, tmp_path: Path
) -> None:
    conn, settings = analysed(experiment, failures=0.1)
    answer = export_eee(conn, settings, tmp_path / "out", organization="me", with_context=True)
    levels = [f"{level.name}={level.samples}" for level in answer.levels]
    facts = imported(levels, "g", LogChoice(), Terms(Unit.FRACTION, None, str(tmp_path)))
    assert all(run["agrees"] for run in facts["runs"])
    sql = "SELECT avg(score) FROM scores JOIN requests USING (request_id) JOIN runs USING (run_id) GROUP BY run_id"
    assert sorted(run["mean"] for run in facts["runs"]) == pytest.approx(sorted(m for (m,) in conn.execute(sql)))
    failed = conn.execute("SELECT count(*) FROM failures").fetchone()[0]
    assert sum(run["n_failed"] for run in facts["runs"]) == failed > 0


def test_a_text_with_any_kind_of_line_end_is_one_line(experiment: Experiment, tmp_path: Path) -> None:
    conn, settings = analysed(experiment, said=["one\u2028two\x85three\u2029"])
    _, lines = read(export_eee(conn, settings, tmp_path, organization="me"), "full")
    assert lines[0]["output"]["raw"] == ["one\u2028two\x85three\u2029"]


def test_what_is_not_analysed_is_refused(experiment: Experiment, tmp_path: Path) -> None:
    conn, settings = experiment(n_bins=1, n_per_bin=2)
    with pytest.raises(MissingPrerequisiteError, match="nothing is analysed"):
        export_eee(conn, settings, tmp_path, organization="me")
