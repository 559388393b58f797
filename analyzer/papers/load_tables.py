"""A bench's results as tables: rates and latencies of every load, as its report has them."""

import sqlite3

from analyzer.bench.bench_analysis import measured
from analyzer.bench.exports.bench_csv import load_rows
from analyzer.bench.figures.points import Point
from analyzer.bench.read import stage_facts
from analyzer.bench.report import bench_tables
from analyzer.bench.report.trust import trust
from analyzer.papers.table_formats import TitledTable
from analyzer.read.runs import newest_generation
from analyzer.read.snapshot import snapshot
from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError

LOADS, LATENCIES = "loads", "latencies"
KINDS = (LOADS, LATENCIES)


def measured_loads(conn: sqlite3.Connection, group: str, alpha: float) -> list[Point]:
    """Every load of the newest generation of a benched group that anything was sent of.

    Raises MissingPrerequisiteError where there is none.
    """
    with snapshot(conn) as reader:
        generation = newest_generation(reader, group)
        _, points, _ = measured(reader, stage_facts.stages(reader, group, generation), alpha)
    if not points:
        raise MissingPrerequisiteError("nothing was measured yet", do="Run `kvt bench -c CONFIG` first.")
    return points


def held(points: list[Point]) -> tuple[str, ...]:
    """How far the figures of each level's loads hold, a sentence for each."""
    sentences = []
    for level in dict.fromkeys(point.level for point in points):
        sentence = trust([point for point in points if point.level == level])
        sentences.append(f"{level}: {sentence}" if level else sentence)
    return tuple(sentences)


def bench_result_tables(points: list[Point], what: str) -> list[TitledTable]:
    """The tables called `what`; all: rates, then latencies. Both have the same rows of values: a load each.

    Raises ConfigError for a table that a bench doesn't have.
    """
    if what not in ("all", *KINDS):
        raise ConfigError(
            f"a bench has no table {what!r}: it has loads and no budgets to judge",
            where="--what",
            do=f"One of: {', '.join(KINDS)}, all.",
        )
    rows = load_rows(points)
    tables = [
        TitledTable(LOADS, "Rates of every load", bench_tables.loads(points), rows),
        TitledTable(LATENCIES, "Latencies of every load", bench_tables.latencies(points), rows),
    ]
    return [table for table in tables if what in ("all", table.name)]
