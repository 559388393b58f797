"""What the scores of a run's answers are made of, where the metric tells: instructions that were followed."""

import sqlite3
from collections.abc import Iterator

import polars as pl

from analyzer import metrics
from analyzer.metrics.fast.row_scorer import needed_meta
from analyzer.read import examples, outcomes
from analyzer.read.runs import Run, baseline_id, metric_of_scores
from analyzer.scoring.prepared_golds import prepared_golds
from analyzer.scoring.score import reads, rules_of, with_said

SCHEMA = {"example_id": pl.String, "sample_idx": pl.Int64, "part": pl.String, "value": pl.Float32}


def names_parts(facts: sqlite3.Connection, run: Run) -> bool:
    """Whether the metric of a run's scores tells what they are made of."""
    metric = metric_of_scores(facts, run.run_id)
    task = metrics.find(metric) if metric is not None else None
    return task is not None and task.parts is not None


def answer_parts(facts: sqlite3.Connection, run: Run, scores: pl.DataFrame) -> pl.DataFrame | None:
    """Every part of every answer of a run: example_id, sample_idx, part (its name) and value in [0, 1]; None where the
    metric names none. `scores`: example_id, sample_idx, score of the answers to look at. A failed request has none.

    An answer whose score is 1 is right in all parts, and is not judged again.
    """
    metric = metric_of_scores(facts, run.run_id)
    task = metrics.find(metric) if metric is not None else None
    if task is None or task.parts is None:
        return None
    dataset = examples.dataset(facts, run.dataset_id).scored_by(metric)
    full = baseline_id(facts, run)
    rules, golds = rules_of(facts, run, full, dataset), prepared_golds(facts, dataset)
    parts = task.parts

    def rows() -> Iterator[tuple[str, int, str, float]]:
        for chunk in outcomes.score_inputs(facts, [run], full, reads=reads(dataset.metric)):
            frame = with_said(chunk.filter(~pl.col("is_failure")), rules)
            frame = frame.join(scores, on=["example_id", "sample_idx"]).join(golds, on="example_id")
            columns = frame.select("example_id", "sample_idx", "said", "score", pl.col("needed_json").cast(pl.String))
            for example_id, sample_idx, said, score, needed in columns.iter_rows():
                for name, value in parts(None if score == 1 else said, needed_meta(needed)).items():
                    yield example_id, sample_idx, name, value

    return pl.DataFrame(list(rows()), schema=SCHEMA, orient="row")
