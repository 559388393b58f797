"""docs/DATABASE.md shows the schema that there is, and each of its queries answers the question above it."""

import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from analyzer.scoring.score import score
from analyzer.summarise.analyze import analyze
from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.schema_tables import DERIVED_TABLES, FACT_TABLES
from tests.analyzer.summarise.test_suite_rows import CALM, NIAH
from tests.analyzer.synthetic import make_db
from tests.tables import insert, insert_session
from tests.worlds import settings_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/DATABASE.md").read_text(encoding="utf-8")
QUESTION = re.compile(r"^(\d+)\. (.*?\?) `([^`]*)`\n\n +```sql\n(.*?)```", re.MULTILINE | re.DOTALL)
QUESTIONS = {said: (re.split(r",\s+", columns), query) for _, said, columns, query in QUESTION.findall(PAGE)}

SUITE = {"exp_group_id": "g", "generation": 1, "series": "snapkv/aware", "n_tasks": 1, "n_nothing_to_lose": 0,
         "n_cannot_tell": 0, "suite_safe": 0.5, "guard": 0.15, "broken_tasks": "[]", "verdict": "transition",
         "verdict_text": "safe on average", "tasks_json": "[]", "evidence": "verified", "partial": 0, "method": "",
         "fingerprint": ""}  # fmt: skip


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """An analysed group with failures, and a second session that met another server under another config."""
    db = make_db(tmp_path_factory.mktemp("page") / "x.sqlite", n_bins=2, n_per_bin=10, failures=0.1, exp_group_id="g")
    with closing(connect_for_reading(db, write_derived=True)) as conn:
        score(conn, "g")
        analyze(conn, settings_of("experiment.exp_group_id=g", "analysis.resamples=100"))
        (first,) = conn.execute("SELECT session_id FROM sessions").fetchone()
        insert_session(conn, session_id="later", exp_group_id="g", started_at="2026-01-09T00:00:00Z")
        for session, version in ((first, "1"), ("later", "2")):
            insert(conn, "server_snapshots", session_id=session, taken_at="", phase="start", endpoint="http://h",
                   identity_json=f'{{"version": "{version}"}}')  # fmt: skip
        insert(conn, "suite_summary", **SUITE)
    with closing(sqlite3.connect(db)) as plain:  # as any program opens it
        yield plain


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """An analysed group of two tasks with failures."""
    db = make_db(
        tmp_path_factory.mktemp("page") / "x.sqlite", tasks=(NIAH, CALM), n_bins=2, n_per_bin=10, failures=0.1,
        exp_group_id="g",
    )  # fmt: skip
    with closing(connect_for_reading(db, write_derived=True)) as conn:
        score(conn, "g")
        analyze(conn, settings_of("experiment.exp_group_id=g", "analysis.resamples=100"))
    with closing(sqlite3.connect(db)) as plain:
        yield plain


def answered(group: sqlite3.Connection, said: str) -> list[dict[str, object]]:
    names, query = QUESTIONS[said]
    cursor = group.execute(query)
    assert [column[0] for column in cursor.description] == names
    return [dict(zip(names, row, strict=True)) for row in cursor]


def test_the_page_shows_the_tables_and_views_of_the_schema() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/database_page.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_no_column_is_without_a_word() -> None:
    rows = re.findall(r"^\| `(\w+)` \|(?: [A-Z ]+ \|)?(.*)\|$", PAGE, re.MULTILINE)
    assert len(rows) > 400
    assert [name for name, text in rows if not text.strip()] == []


def test_the_picture_has_every_table() -> None:
    (picture,) = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert {*FACT_TABLES, *DERIVED_TABLES} <= set(re.findall(r"\w+", picture))


def test_there_are_ten_questions() -> None:
    assert len(QUESTIONS) == len(re.findall("```sql", PAGE)) == 10


@pytest.mark.parametrize("said", QUESTIONS)
def test_a_query_answers_with_the_columns_that_the_page_names(group: sqlite3.Connection, said: str) -> None:
    assert answered(group, said)


def test_the_answers_are_right(group: sqlite3.Connection) -> None:
    found = {said.split("?")[0]: answered(group, said) for said in QUESTIONS}
    lost = [row["lost"] for row in found["Which prompts lost most at budget 0.2"]]
    assert lost == sorted(lost, key=float, reverse=True)  # type: ignore[arg-type]
    assert lost[0] == 1.0
    failures = group.execute("SELECT count(*) FROM failures").fetchone()[0]
    assert sum(row["n"] for row in found["What failed, how, and at which level"]) == failures > 0  # type: ignore[misc]
    changed = found["What changed from one session to the next"]
    assert [(row["config_changed"], row["server_changed"]) for row in changed] == [(None, 0), (1, 1)]
    differing = group.execute("SELECT count(*) FROM scores WHERE flags NOT LIKE '%identical_to_full%'").fetchone()[0]
    assert 0 < len(found["Which answers differ from full cache's"]) < differing
    verdicts = [[row[name] for name in ("task", "series", "safe_budget", "sentence")]
                for row in found["What is the verdict of every task and series"]]  # fmt: skip
    assert verdicts[0] == ["*", "snapkv/aware", 0.5, "safe on average"]
    assert [verdict[:2] for verdict in verdicts[1:]] == [["single_needle", "snapkv/aware"]]
    responses = group.execute("SELECT count(*) FROM responses").fetchone()[0]
    for question in ("How many tokens did each level cost", "What is the median TTFT of each level"):
        assert sum(row.get("responses", row.get("n")) for row in found[question]) == responses  # type: ignore[misc]


@pytest.mark.parametrize("said", [said for said, (columns, _) in QUESTIONS.items() if "series" in columns])
def test_rows_of_two_tasks_can_be_told_apart(suite: sqlite3.Connection, said: str) -> None:
    """All that is told of single levels is told per task, but for who served a level: a server serves all tasks."""
    rows = answered(suite, said)
    if said.startswith("Who served"):
        assert "task" not in rows[0]
        return
    tasks = {row["task"] for row in rows} - {"*"}
    if not said.startswith("Which prompts lost"):  # twenty rows: maybe all of the task that lost most
        assert tasks == {NIAH["task"], CALM["task"]}
    key = ("task", "series", "kv_budget", "repeat_idx", "example_id", "lo_tokens", "error_type", "http_status")
    keys = [tuple(row.get(name) for name in key) for row in rows]
    assert len(keys) == len(set(keys))
    wanted = {"How many tokens did each level cost": "responses", "What is the median TTFT of each level": "n"}
    if (column := wanted.get(said.removesuffix("?"))) is not None:
        answers = dict(
            suite.execute("""SELECT c.task, count(*) FROM responses JOIN requests USING (request_id)
            JOIN runs USING (run_id) JOIN task_contracts c USING (exp_group_id, generation, dataset_id) GROUP BY 1""")
        )
        assert answers == {task: sum(row[column] for row in rows if row["task"] == task) for task in tasks}  # type: ignore[misc]
