"""docs/ARCHITECTURE.md and MODULES.md show the tree that there is, and the query of the former runs."""

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from analyzer.scoring.score import score
from kvt_async.contract.schema import connect_for_reading
from tests.analyzer.synthetic import make_db

ROOT = Path(__file__).parents[2]


def test_the_pages_show_the_rooms_and_modules_of_the_code() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/architecture.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_its_query_names_the_examples_that_lost_most(tmp_path: Path) -> None:
    db = make_db(tmp_path / "x.sqlite", n_per_bin=10)
    with closing(connect_for_reading(db, write_derived=True)) as conn:
        score(conn, "synthetic")
    page = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
    (query,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    with closing(sqlite3.connect(db)) as conn:
        rows = conn.execute(query).fetchall()
    losses = [lost for *_, lost in rows]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == 1.0
