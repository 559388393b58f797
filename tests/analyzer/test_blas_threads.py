"""The number of BLAS threads changes no stored digit, no printed character and no byte of a picture."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from analyzer.scoring.score import score
from kvt_async.contract.schema import connect_for_reading
from tests.analyzer.synthetic import make_db

ANALYZE_AND_REPORT = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from analyzer.summarise.analyze import analyze
from analyzer.report.build import build_report
from kvt_async.contract.load import load_settings
from kvt_async.contract.paths import RunPaths
from kvt_async.contract.schema import DERIVED_TABLES, connect_for_reading
folder = Path(sys.argv[1])
conn = connect_for_reading(folder / "x.sqlite", write_derived=True)
settings = load_settings(None, ["experiment.exp_group_id=synthetic", "analysis.ci=bootstrap"], environ={})
analyze(conn, settings)
for table in DERIVED_TABLES:
    for row in conn.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4, 5, 6"):
        print(table, row)
build_report(conn, settings, RunPaths(folder, folder / "x.sqlite"), now=datetime(2026, 1, int(sys.argv[2]), tzinfo=UTC))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[str], Path]]:
    """By number of threads: the derived rows, and the folder of the report."""
    start = tmp_path_factory.mktemp("threads")
    db = make_db(start / "x.sqlite", n_bins=2, n_per_bin=400, graded=True, flips=0.1, failures=0.02,
                 series=("snapkv/aware", "random"), budgets=(1.0, 0.7, 0.5, 0.3, 0.1))  # fmt: skip
    conn = connect_for_reading(db, write_derived=True)
    score(conn, "synthetic")
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.close()
    found = {}
    for threads in ("1", "2"):
        folder = start / threads
        folder.mkdir()
        shutil.copy(db, folder / "x.sqlite")
        names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")
        done = subprocess.run(
            [sys.executable, "-c", ANALYZE_AND_REPORT, str(folder), threads],
            env=os.environ | dict.fromkeys(names, threads) | {"PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
            check=True,
        )
        found[threads] = (done.stdout.splitlines(), folder)
    return found


def test_a_whole_analysis_is_the_same_with_one_blas_thread_and_with_two(
    made: dict[str, tuple[list[str], Path]],
) -> None:
    one, two = made["1"][0], made["2"][0]
    tables = {line.split()[0] for line in one}
    assert {"bin_stats", "budget_stats", "transition_summary", "comparisons"} <= tables
    assert one == two


@pytest.mark.parametrize("name", ["report.md", "report.html"])
def test_a_report_is_the_same_but_for_its_generated_at_line(made: dict[str, tuple[list[str], Path]], name: str) -> None:
    one, two = ((folder / name).read_text(encoding="utf-8").splitlines() for _, folder in made.values())
    assert [(a, b) for a, b in zip(one, two, strict=True) if a != b] == [
        ("Generated at 2026-01-01 00:00:00 UTC", "Generated at 2026-01-02 00:00:00 UTC")
    ]


def test_pictures_are_the_same_to_the_byte(made: dict[str, tuple[list[str], Path]]) -> None:
    one, two = (
        {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted((folder / "plots").iterdir())}
        for _, folder in made.values()
    )
    assert len(one) == 3 * 11
    assert one == two
