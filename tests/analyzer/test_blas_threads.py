"""The number of BLAS threads changes no stored digit, so none that a report prints: whole analyses, compared."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from analyzer.score import score
from kvt_async.contract.schema import connect_for_reading
from tests.analyzer.synthetic import make_db

ANALYZE = """
import sys
from pathlib import Path
from analyzer.analyze import analyze
from kvt_async.contract.load import load_settings
from kvt_async.contract.schema import DERIVED_TABLES, connect_for_reading
conn = connect_for_reading(Path(sys.argv[1]), write_derived=True)
settings = load_settings(None, ["experiment.exp_group_id=synthetic", "analysis.ci=bootstrap"], environ={})
analyze(conn, settings)
for table in DERIVED_TABLES:
    for row in conn.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4, 5, 6"):
        print(table, row)
"""


def test_a_whole_analysis_is_the_same_with_one_blas_thread_and_with_two(tmp_path: Path) -> None:
    db = make_db(tmp_path / "1.sqlite", n_bins=2, n_per_bin=400, graded=True, flips=0.1, failures=0.02,
                 series=("snapkv/aware", "random"), budgets=(1.0, 0.7, 0.5, 0.3, 0.1))  # fmt: skip
    conn = connect_for_reading(db, write_derived=True)
    score(conn, "synthetic")
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.close()
    shutil.copy(db, tmp_path / "2.sqlite")
    stored = []
    for threads in ("1", "2"):
        names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
        done = subprocess.run(
            [sys.executable, "-c", ANALYZE, str(tmp_path / f"{threads}.sqlite")],
            env=os.environ | dict.fromkeys(names, threads) | {"PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
            check=True,
        )
        stored.append(done.stdout.splitlines())
    tables = {line.split()[0] for line in stored[0]}
    assert {"bin_stats", "budget_stats", "transition_summary", "comparisons"} <= tables
    assert stored[0] == stored[1]
