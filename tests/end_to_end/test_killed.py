"""kill -9 in the middle of a stage: the next run gives the same bytes, and nothing stays behind."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from kvt_async.contract.paths import DB_NAME
from kvt_async.contract.schema_tables import DERIVED_TABLES
from tests.analyzer.synthetic import make_db
from tests.end_to_end.conftest import Kvt, overrides

PREPARED = ("prepare", "-c", "demo", *overrides("dataset.params={contexts: 60, max_tokens: 512}", "binning.n_bins=2"))


def test_a_killed_prepare_leaves_nothing_that_the_next_one_does_not_sweep(kvt: Kvt, tmp_path: Path) -> None:
    killed_when(lambda: any((tmp_path / "data").rglob(".prepare-*")), tmp_path, *PREPARED)
    again = kvt(*PREPARED)
    assert again.returncode == 0, again.stderr
    (manifest,) = (tmp_path / "data").rglob("manifest.json")
    assert [path.name for path in manifest.parent.iterdir()] == ["manifest.json"]
    elsewhere = kvt(*PREPARED, *overrides("output.data_dir=other", "output.runs_dir=other"))
    assert elsewhere.returncode == 0, elsewhere.stderr
    (other,) = (tmp_path / "other").rglob("manifest.json")
    assert manifest.read_bytes() == other.read_bytes()


def test_a_killed_analysis_is_finished_by_the_next_one_with_the_same_rows(kvt: Kvt, tmp_path: Path) -> None:
    found = []
    for name in ("whole", "killed"):
        db = make_db(tmp_path / name / "synthetic" / DB_NAME, n_per_bin=20)
        command = (
            "all",
            "-c",
            "default.yaml",
            *overrides("experiment.exp_group_id=synthetic", f"output.runs_dir={name}"),
        )
        (tmp_path / "default.yaml").write_text("analysis: {resamples: 2000}\n")
        if name == "killed":
            killed_when(partial(has_scores, db), tmp_path, *command)
        done = kvt(*command)
        assert done.returncode == 0, done.stderr
        found.append(rows(db))
    assert found[0]["budget_stats"]
    assert found[0] == found[1]


def killed_when(begun: Callable[[], bool], folder: Path, *words: str) -> None:
    """Start a command and kill it as soon as it has begun with what is asked for."""
    with subprocess.Popen(
        [sys.executable, "-m", "kvt_async", *words], cwd=folder, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 60
        while not begun():
            assert process.poll() is None, "it was over before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.001)  # polling another process, bounded by the deadline
        process.kill()


def has_scores(db: Path) -> bool:
    return bool(rows(db)["scores"])


def rows(db: Path) -> dict[str, list[str]]:
    with closing(sqlite3.connect(db)) as conn:
        return {name: sorted(map(repr, conn.execute(f"SELECT * FROM {name}"))) for name in DERIVED_TABLES}
