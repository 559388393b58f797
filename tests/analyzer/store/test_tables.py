"""The derived tables: their classes have the schema's columns, and their numbers are what they were.

golden/derived_tables.json holds what the analysis stored of one synthetic database before its rows had classes: every
column but the fingerprint, which follows the program's version, and the sentence, which follows its words.
"""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from analyzer.scoring.score import score
from analyzer.store import derived_rows
from analyzer.store.suite_tables import SuiteStat, SuiteVerdict
from analyzer.store.tables import (
    BinStat,
    Comparison,
    Drop,
    Evidence,
    OutcomeChange,
    Verdict,
    columns,
)
from analyzer.summarise.analyze import analyze
from analyzer.verify.differences import BOOTSTRAP, DRAWN, EXACT, equal, is_json
from tests.analyzer.conftest import Experiment

GOLDEN: dict[str, dict[str, list[Any]]] = json.loads(
    (Path(__file__).parents[1] / "golden" / "derived_tables.json").read_text(encoding="utf-8")
)
WORLD: dict[str, Any] = {
    "n_bins": 2,
    "n_per_bin": 24,
    "series": ("snapkv/aware", "random"),
    "budgets": (1.0, 0.5, 0.1),
    "flips": 0.1,
    "failures": 0.05,
    "graded": True,
    "cached_tokens": 7,
    "cluster_size": 2,
}
ROWS = (BinStat, Evidence, Drop, Verdict, Comparison, OutcomeChange, SuiteStat, SuiteVerdict)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.TABLE)
def test_a_row_has_the_columns_of_its_table_but_those_that_every_row_gets(
    experiment: Experiment, row: type[Any]
) -> None:
    conn, _ = experiment(n_bins=1, n_per_bin=1)
    stored = {column[1] for column in conn.execute(f"PRAGMA table_info({row.TABLE})")}
    added = {"fingerprint"}
    if row.TABLE in derived_rows.GROUP_TABLES:
        added |= {"exp_group_id", "generation", *({"dataset_id"} & set(row.KEY))}
    assert stored == set(columns(row)) | added
    assert set(row.KEY) <= {field.name for field in fields(row)} | {"dataset_id"}


def test_every_number_is_what_it_was_before_rows_had_classes(experiment: Experiment) -> None:
    conn, settings = experiment(resamples=200, **WORLD)
    score(conn, "synthetic")
    analyze(conn, settings)
    for table, golden in GOLDEN.items():
        names = ", ".join(f'"{name}"' for name in golden["columns"])
        stored = conn.execute(f"SELECT {names} FROM {table} ORDER BY 1, 2, 3, 4, 5, 6").fetchall()
        assert len(stored) == len(golden["rows"]), table
        for row, before in zip(stored, golden["rows"], strict=True):
            for name, value, was in zip(golden["columns"], row, before, strict=True):
                tolerance = DRAWN if name in BOOTSTRAP else EXACT
                assert equal(was, value, tolerance, json_text=is_json(name)), (table, before[:4], name, was, value)
