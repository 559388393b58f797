"""The view attempt_metrics: a span is divided by the tokens that came in it, and by no others."""

import sqlite3
from pathlib import Path
from typing import Any

import orjson
import pytest

from kvt_async.contract.schema import connect_for_reading, connect_for_writing, create

MS = 1_000_000
SPAN = {"first_content_ns": 100 * MS, "last_delta_ns": 240 * MS}
HIDDEN = {"completion_tokens_details": {"reasoning_tokens": 100}}


def insert(conn: sqlite3.Connection, usage: Any = None, **marks: Any) -> None:
    """One answered attempt; its request and run are nobody's business here."""
    conn.execute("PRAGMA foreign_keys=OFF")
    conn.execute(
        "INSERT INTO responses (request_id, attempt_idx, text, usage_json, created_at) VALUES ('r:0', 0, 'a', ?, 't')",
        (None if usage is None else orjson.dumps(usage).decode(),),
    )
    marks = {"start_ns": 0, "end_ns": 300 * MS, "stamp_source": "transport"} | marks
    values = ", ".join("?" * len(marks))
    conn.execute(
        f"INSERT INTO telemetry (request_id, attempt_idx, {', '.join(marks)}) VALUES ('r:0', 0, {values})",
        tuple(marks.values()),
    )


def metrics(usage: Any = None, **marks: Any) -> dict[str, Any]:
    conn = sqlite3.connect(":memory:", isolation_level=None)
    create(conn)
    conn.row_factory = sqlite3.Row
    insert(conn, usage, **marks)
    return dict(conn.execute("SELECT * FROM attempt_metrics").fetchone())


@pytest.mark.parametrize(
    ("usage", "marks", "tpot_ms"),
    [
        ({}, {**SPAN, "completion_tokens": 8}, 20),
        (HIDDEN, {**SPAN, "completion_tokens": 108}, 20),  # counted and not sent
        ({"reasoning_tokens": 100}, {**SPAN, "completion_tokens": 108}, 20),
        ({"output_tokens_details": {"reasoning_tokens": 100.0}}, {**SPAN, "completion_tokens": 108}, 20),
        (HIDDEN, {**SPAN, "first_reasoning_ns": 50 * MS, "completion_tokens": 191}, 1),  # counted and sent
        ({}, {"first_tool_ns": 100 * MS, "last_delta_ns": 240 * MS, "completion_tokens": 8}, 20),
        ({}, {**SPAN, "first_tool_ns": 60 * MS, "completion_tokens": 10}, 20),
        ({}, {"first_content_ns": 100 * MS, "last_delta_ns": 100 * MS, "completion_tokens": 8}, None),  # one arrival
        (HIDDEN, {**SPAN, "completion_tokens": 101}, None),  # one token of it was sent
        (HIDDEN, {**SPAN, "completion_tokens": 100}, None),
        (HIDDEN, {**SPAN, "completion_tokens": 50}, None),
        ({}, {**SPAN, "completion_tokens": 1}, None),
        (None, {**SPAN}, None),  # no usage: not guessed
        ({}, {"completion_tokens": 8}, None),  # not streamed
    ],
)
def test_tpot_is_the_span_over_the_tokens_that_came_in_it(usage: Any, marks: Any, tpot_ms: float | None) -> None:
    found = metrics(usage, **marks)["tpot_s"]
    assert found == (None if tpot_ms is None else pytest.approx(tpot_ms / 1000))


@pytest.mark.parametrize(
    ("marks", "ttft_ms", "latency_ms"),
    [
        (SPAN, 100, 240),
        ({**SPAN, "first_tool_ns": 60 * MS}, 60, 240),
        ({"first_tool_ns": 60 * MS, "last_delta_ns": 200 * MS}, 60, 200),
        ({**SPAN, "first_reasoning_ns": 30 * MS}, 30, 240),
        ({**SPAN, "first_text_kernel_ns": 90 * MS}, 90, 240),
        ({}, None, 300),
    ],
)
def test_output_of_every_kind_begins_and_ends_a_reply(marks: Any, ttft_ms: float | None, latency_ms: float) -> None:
    found = metrics({}, **marks)
    assert found["ttft_s"] == (None if ttft_ms is None else pytest.approx(ttft_ms / 1000))
    assert found["latency_s"] == pytest.approx(latency_ms / 1000)


@pytest.mark.parametrize(
    ("marks", "best_ms", "ours_ms"),
    [
        (SPAN, 100, 100),
        ({**SPAN, "first_text_kernel_ns": 90 * MS}, 90, 100),
        ({**SPAN, "first_reasoning_ns": 30 * MS, "first_text_kernel_ns": 20 * MS}, 20, 30),
        ({"first_tool_ns": 60 * MS}, 60, 60),
        ({}, None, None),
    ],
)
def test_the_first_text_has_the_best_stamp_and_our_own(marks: Any, best_ms: int | None, ours_ms: int | None) -> None:
    conn = sqlite3.connect(":memory:", isolation_level=None)
    create(conn)
    insert(conn, {}, **marks)
    (row,) = conn.execute("SELECT * FROM first_text").fetchall()
    assert row == ("r:0", 0, *(None if ms is None else ms * MS for ms in (best_ms, ours_ms)))


def test_a_database_of_before_is_read_by_the_definitions_of_today(tmp_path: Path) -> None:
    db = tmp_path / "old.sqlite"
    conn = connect_for_writing(db)
    insert(conn, HIDDEN, **SPAN, completion_tokens=108)
    conn.execute("DROP VIEW attempt_metrics")
    conn.execute("CREATE VIEW attempt_metrics AS SELECT request_id, attempt_idx, 0.0013 AS tpot_s FROM telemetry")
    for view in ("outcomes", "first_text"):
        conn.execute(f"DROP VIEW {view}")
    conn.close()
    before = db.read_bytes()
    reader = connect_for_reading(db)
    assert reader.execute("SELECT tpot_s FROM attempt_metrics").fetchall() == [(pytest.approx(0.02),)]
    assert reader.execute("SELECT count(*) FROM outcomes").fetchone() == (0,)
    assert reader.execute("SELECT first_text_ns FROM first_text").fetchall() == [(100 * MS,)]
    reader.close()
    assert db.read_bytes() == before
