"""The explorer's filters and pages, against the database's own words."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from analyzer.read.group_connection import open_group
from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError
from kvt_async.contract.load import load_settings
from kvt_async.contract.paths import DB_NAME
from tests.analyzer.synthetic import make_db
from tests.shards.split import by_context, split
from tests.viewer.conftest import GROUP
from viewer.answers.answer_filter import AnswerFilter, AnswerPage, answer_page, masks_of
from viewer.answers.answer_index import AnswerIndex, answer_index, facts_seen
from viewer.answers.answer_texts import answer_detail, first_rows, listed_rows
from viewer.answers.changed_answers import changed_answers, shared_levels
from viewer.groups.group_places import group_places
from viewer.groups.group_progress import group_progress
from viewer.groups.opened_group import opened_group

SETTINGS = load_settings(None, [f"experiment.exp_group_id={GROUP}"], environ={})


@pytest.fixture(scope="module")
def conn(runs_dir: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_group(runs_dir / GROUP / DB_NAME)) as opened:
        yield opened


@pytest.fixture(scope="module")
def index(conn: sqlite3.Connection) -> AnswerIndex:
    return answer_index(conn, GROUP)


def page(index: AnswerIndex, conn: sqlite3.Connection, **chosen: str) -> AnswerPage:
    return answer_page(index, masks_of(index, AnswerFilter(**chosen), conn))


def counted(conn: sqlite3.Connection, where: str) -> int:
    sql = f"""SELECT count(*) FROM requests r JOIN runs u USING (run_id) JOIN scores s ON s.request_id = r.request_id
        LEFT JOIN responses p ON p.request_id = r.request_id
        JOIN manifest_entries e ON e.dataset_id = u.dataset_id AND e.example_id = r.example_id WHERE {where}"""
    return int(conn.execute(sql).fetchone()[0])


@pytest.mark.parametrize(
    ("chosen", "where"),
    [
        ({}, "1"),
        ({"level": "snapkv/aware 0.2"}, "u.series = 'snapkv/aware' AND u.kv_budget = 0.2"),
        ({"level": "full"}, "u.is_full AND NOT u.repeat_idx"),
        ({"outcome": "right"}, "p.text IS NOT NULL AND s.score = 1"),
        ({"outcome": "wrong"}, "p.text IS NOT NULL AND s.score = 0"),
        ({"outcome": "partly"}, "p.text IS NOT NULL AND s.score > 0 AND s.score < 1"),
        ({"outcome": "failed"}, "p.text IS NULL"),
        ({"differs": "yes", "level": "random 0.5"}, "u.run_id LIKE '%random-0.5%' AND s.first_divergence >= 0"),
        ({"differs": "no"}, "s.flags LIKE '%identical_to_full%'"),
        ({"text": "WINDOW.hacked"}, "p.text LIKE '%window.hacked%'"),
        ({"text": "%"}, "instr(p.text, '%')"),
    ],
)  # fmt: skip
def test_a_filter_lets_through_what_the_database_says(
    index: AnswerIndex, conn: sqlite3.Connection, chosen: dict[str, str], where: str
) -> None:
    assert page(index, conn, **chosen).n == counted(conn, where)
    assert counted(conn, where) or chosen in ({"outcome": "partly"}, {"text": "%"})


def test_a_length_is_chosen_by_its_name(index: AnswerIndex, conn: sqlite3.Connection) -> None:
    for bin_idx, name in index.tasks[0].bins.items():
        assert page(index, conn, bin=name).n == counted(conn, f"e.bin_idx = {bin_idx}") > 0


def test_the_choices_of_each_field_add_up_to_what_the_other_fields_let_through(
    index: AnswerIndex, conn: sqlite3.Connection
) -> None:
    shown = page(index, conn, outcome="wrong", level="random 0.2")
    assert sum(n for _, n in shown.counts["outcome"]) == counted(conn, "u.series = 'random' AND u.kv_budget = 0.2")
    assert dict(shown.counts["level"])["random 0.2"] == shown.n
    assert sum(n for _, n in shown.counts["bin"]) == shown.n


def test_pages_follow_each_other_without_gap_or_repetition_in_both_directions(
    index: AnswerIndex, conn: sqlite3.Connection
) -> None:
    masks = masks_of(index, AnswerFilter(differs="yes"), conn)
    first = answer_page(index, masks)
    pages, shown = [first], first
    while shown.first + len(shown.rows) < shown.n:
        shown = answer_page(index, masks, after=shown.rows[-1]["key"])
        pages.append(shown)
    keys = [row["key"] for each in pages for row in each.rows]
    assert len(keys) == len(set(keys)) == first.n
    assert keys == sorted(keys)
    assert answer_page(index, masks, before=pages[1].rows[0]["key"]).rows == first.rows


def test_the_first_page_without_an_index_is_the_first_page_with_it(
    index: AnswerIndex, conn: sqlite3.Connection
) -> None:
    def without_length(row: dict[str, Any]) -> dict[str, Any]:
        """Rows without what only the index has; its scores have seven digits."""
        score = None if row["score"] is None else round(row["score"], 5)
        return {name: value for name, value in row.items() if name not in ("length", "key")} | {"score": score}

    with_index = listed_rows(conn, index, answer_page(index, {}).rows)
    assert list(map(without_length, first_rows(conn, GROUP))) == list(map(without_length, with_index))


def test_an_answer_stands_beside_full_caches_with_what_differs(index: AnswerIndex, conn: sqlite3.Connection) -> None:
    row = page(index, conn, level="random 0.2", differs="yes", outcome="wrong").rows[0]
    detail = answer_detail(conn, SETTINGS, row["request_id"])
    here, full = ("".join(text for text, _ in detail[side]["pieces"]) for side in ("here", "full"))
    stored = dict(conn.execute("SELECT request_id, text FROM responses"))
    of_full = conn.execute(
        "SELECT q.request_id FROM requests r JOIN requests q USING (example_id) JOIN runs u ON u.run_id = q.run_id "
        "WHERE r.request_id = ? AND u.is_full AND u.repeat_idx = 0",
        (row["request_id"],),
    ).fetchone()[0]
    assert (here, full) == (stored[row["request_id"]], stored[of_full])
    assert not all(same for _, same in detail["here"]["pieces"])
    assert len(detail["others"]) == 6
    with pytest.raises(MissingPrerequisiteError):
        answer_detail(conn, SETTINGS, "no such request")


def test_answers_that_are_not_scored_differ_by_their_texts(tmp_path: Path) -> None:
    """A sweep at work has no scores yet."""
    db = make_db(tmp_path / "db.sqlite", n_bins=2, exp_group_id=GROUP)
    with closing(open_group(db)) as conn:
        index = answer_index(conn, GROUP)
        n = conn.execute(
            "SELECT count(*) FROM requests r JOIN runs u USING (run_id) JOIN responses p USING (request_id) "
            "JOIN runs b ON b.is_full AND NOT b.repeat_idx JOIN requests q ON q.run_id = b.run_id "
            "AND q.example_id = r.example_id JOIN responses f ON f.request_id = q.request_id "
            "WHERE u.run_id <> b.run_id AND f.text <> p.text"
        ).fetchone()[0]
        assert page(index, conn, differs="yes").n == n > 0
        assert page(index, conn, outcome="not scored").n == index.answers.height


def test_what_was_seen_changes_with_the_facts(tmp_path: Path) -> None:
    db = make_db(tmp_path / "db.sqlite", n_bins=2)
    with closing(open_group(db)) as conn, closing(sqlite3.connect(db)) as writer:
        before = facts_seen(conn)
        assert facts_seen(conn) == before
        writer.execute("INSERT INTO requests SELECT request_id || 'x', run_id, example_id, 1, 0, 'p', created_at "
                       "FROM requests LIMIT 1")  # fmt: skip
        writer.commit()
        assert facts_seen(conn) != before


def test_a_search_has_an_end() -> None:
    with pytest.raises(ConfigError):
        AnswerFilter.of({"text": "x" * 501})


def test_two_groups_show_the_levels_that_changed_and_how(runs_dir: Path, tmp_path: Path) -> None:
    """A copy in which three answers of one level are other ones."""
    other = tmp_path / "runs"
    shutil.copytree(runs_dir, other)
    with closing(sqlite3.connect(other / GROUP / DB_NAME, isolation_level=None)) as writer:
        writer.execute("DROP TRIGGER responses_no_update")
        (run,) = writer.execute("SELECT run_id FROM runs WHERE series = 'random' AND kv_budget = 0.2").fetchone()
        ids = writer.execute(
            "SELECT p.request_id FROM responses p JOIN requests USING (request_id) WHERE run_id = ? LIMIT 3 OFFSET 1",
            (run,),
        ).fetchall()
        writer.executemany("UPDATE responses SET text = 'changed words' WHERE request_id = ?", ids)
    a, b = group_places([runs_dir])[0], group_places([other])[0]
    shared = shared_levels(a, b)
    assert not shared["refusal"]
    levels = [level["level"] for level in shared["levels"]]
    changed = {level: changed_answers(a, b, shared["levels"][0]["task"], level) for level in levels}
    assert {level: answer["n_changed"] for level, answer in changed.items() if answer["n_changed"]} == {"random 0.2": 3}
    texts = ["".join(text for text, _ in row["b"]["pieces"]) for row in changed["random 0.2"]["rows"]]
    assert texts == ["changed words"] * 3
    with pytest.raises(ConfigError):
        changed_answers(a, b, "no task", "full")


def test_a_group_in_several_databases_is_one_list(runs_dir: Path, index: AnswerIndex, tmp_path: Path) -> None:
    own = tmp_path / GROUP / DB_NAME
    split(runs_dir / GROUP / DB_NAME, own, 2, by_context(2))
    (place,) = group_places([tmp_path])
    with opened_group(place) as conn:
        of_shards = answer_index(conn, GROUP)
        columns = ["request_id", "state", "score", "differs", "key"]
        assert of_shards.answers.select(columns).equals(index.answers.select(columns))
        row = page(of_shards, conn, level="random 0.2", differs="yes").rows[-1]
        assert answer_detail(conn, place.settings(), row["request_id"])["full"]["pieces"]
    assert group_progress(place)["responses"] == index.answers.filter(pl.col("state") == "answered").height
    assert not own.exists()  # looking makes no database of the group's own
