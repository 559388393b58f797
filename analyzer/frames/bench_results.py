"""A bench as a notebook opens it: frames of its loads and its requests."""

import sqlite3
from dataclasses import dataclass

import polars as pl

from analyzer.bench.bench_analysis import measured
from analyzer.bench.exports.bench_csv import load_rows, request_rows
from analyzer.bench.figures.points import Point
from analyzer.bench.figures.stage_results import StageResult
from analyzer.bench.read import stage_facts
from analyzer.bench.read.request_metrics import with_metrics
from analyzer.read.runs import newest_generation
from kvt_async.contract.errors import MissingPrerequisiteError


@dataclass(frozen=True)
class BenchResults:
    """The newest generation of a benched group: its loads, each with its repeats together, and every request."""

    group: str
    generation: int
    points: list[Point]
    _requests: pl.DataFrame

    def loads(self) -> pl.DataFrame:
        """A row for every load: rates and latency percentiles, each with its interval (_low, _high); seconds and per
        second. null: nothing to say. The columns are those of `kvt bench export --format csv`."""
        return pl.DataFrame(load_rows(self.points), infer_schema_length=None)

    def requests(self) -> pl.DataFrame:
        """A row for every request of every stage, warm-up included (`phase`): times in seconds, tokens, state."""
        return self._requests


def read_bench(conn: sqlite3.Connection, group: str, alpha: float) -> BenchResults:
    """Read a benched group at one state of its database; intervals are of 1 - alpha.

    Raises MissingPrerequisiteError where nothing was measured yet.
    """
    generation = newest_generation(conn, group)
    stages, points, _ = measured(conn, stage_facts.stages(conn, group, generation), alpha)
    if not points:
        raise MissingPrerequisiteError("nothing was measured yet", where=group, do="Run `kvt bench -c CONFIG` first.")
    rows = [row for stage in stages if stage.n_started for row in _of_stage(conn, stage)]
    return BenchResults(group, generation, points, pl.DataFrame(rows, infer_schema_length=None))


def _of_stage(conn: sqlite3.Connection, stage: StageResult) -> list[dict[str, object]]:
    return list(request_rows(stage, with_metrics(stage_facts.requests(conn, stage.stage.run_id))))
