"""A database with a prepared dataset, a session and runs, written with plain SQL: where store and plan tests start."""

import sqlite3
from pathlib import Path

from kvt_async.contract.errors import EndState, ErrorType
from kvt_async.contract.schema import connect_for_writing
from kvt_async.records import Attempt, Marks, Outcome, Reply, Request
from tests.tables import insert, insert_run, insert_session

GROUP, DATASET, RUN, SESSION, NOW = "g", "jsonl__made", "full-00000000", "s1", "2026-01-01T00:00:00.000Z"


def make_group(db: Path, n: int, *, run_ids: tuple[str, ...] = (RUN,), n_bins: int = 2) -> None:
    """`n` manifest entries over `n_bins` bins, shortest first; one session; the runs, without requests."""
    conn = connect_for_writing(db)
    conn.execute("BEGIN")
    insert(
        conn,
        "datasets",
        dataset_id=DATASET,
        name="jsonl",
        task="made",
        tokenizer_name="approx:chars/4",
        tokenizer_sha256="x",
        metric="qa_f1",
        prompt_json='{"template": "{context} {question}", "system": null}',
        selection_json="{}",
    )
    insert(conn, "manifests", dataset_id=DATASET, version=1, sha256="sha", created_at=NOW, n_entries=n)
    conn.executemany("INSERT INTO bins VALUES (?,?,?,?)", [(DATASET, b, b * 10, b * 10 + 9) for b in range(n_bins)])
    conn.executemany(
        "INSERT INTO examples VALUES (?,?,?,?,?,?,?)",
        ((DATASET, f"e{i}", f"question {i}?", f"context {i}.", '["a"]', "{}", f"c{i}") for i in range(n)),
    )
    conn.executemany(
        "INSERT INTO manifest_entries VALUES (?,?,?,1,?,?,?,?,0,?)",
        ((DATASET, f"e{i}", i, i * n_bins // n, 10 + i, 8, 10 + i, f"p{i}") for i in range(n)),
    )
    insert(
        conn, "experiments", exp_group_id=GROUP, generation=1, created_at=NOW, contract_json="{}", contract_sha256="x"
    )
    add_session(conn, SESSION)
    for idx, run_id in enumerate(run_ids):
        insert_run(
            conn,
            run_id=run_id,
            exp_group_id=GROUP,
            dataset_id=DATASET,
            engine_name="e",
            series=f"series{idx}",
            prompt_template_version="t",
            level_idx=idx,
            created_at=NOW,
        )
    conn.execute("COMMIT")
    conn.close()


def add_session(conn: sqlite3.Connection, session_id: str, *, at: str = NOW, concurrency: int = 8) -> None:
    insert_session(
        conn,
        session_id=session_id,
        exp_group_id=GROUP,
        started_at=at,
        config_yaml="",
        config_sha256="x",
        kvt_version="0",
        python="3",
        platform="p",
        concurrency=concurrency,
    )


def request(seq: int = 0, run_id: str = RUN, *, series_idx: int = 0, attempts_before: int = 0) -> Request:
    return Request(
        f"{run_id}:{seq}",
        run_id,
        f"e{seq}",
        ("http://h/v1",),
        "/chat/completions",
        b"{}",
        True,
        10,
        4,
        series_idx,
        attempts_before,
    )


def request_row(seq: int = 0, run_id: str = RUN) -> tuple[str, tuple[object, ...]]:
    return ("requests", (f"{run_id}:{seq}", run_id, f"e{seq}", 0, 0, f"p{seq}", NOW))


def attempt(idx: int = 0, *, text: str | None = "an answer", series_idx: int = 0) -> Attempt:
    """A try that gave `text`; None: one that timed out."""
    marks = Marks(start_ns=1_000, first_content_ns=2_000_000, end_ns=3_000_000, prompt_tokens=10, completion_tokens=2)
    reply = None if text is None else Reply(text, None, "stop", {"prompt_tokens": 10}, {"effective": 1.0}, 1.0)
    return Attempt(
        attempt_idx=idx,
        series_idx=series_idx,
        started_at=NOW,
        endpoint="http://h/v1",
        http_status=200,
        end_state=EndState.DONE if reply else EndState.TIMEOUT,
        error_type=None if reply else ErrorType.IDLE_TIMEOUT,
        error_message=None,
        partial_text=None,
        retry_after_s=None,
        latency_s=0.003,
        marks=marks,
        reply=reply,
    )


def outcome(seq: int = 0, run_id: str = RUN, **last: object) -> Outcome:
    return Outcome(request(seq, run_id), attempt(**last))  # type: ignore[arg-type]


def gave_up(seq: int = 0, run_id: str = RUN, *, series_idx: int = 0, idx: int = 0) -> Outcome:
    last = attempt(idx, text=None, series_idx=series_idx)
    return Outcome(request(seq, run_id, series_idx=series_idx, attempts_before=idx), last, "attempts_exhausted")
