"""Later turns whose prompts were made of the run's own earlier answers: `workload.history: own`. The manifest's texts
and lengths are not those of their prompts."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from analyzer.read.group_connection import parts
from kvt_async.contract.formulas.own_history import said

_HISTORY = """SELECT json_extract(e.contract_json, '$."workload.history"') FROM runs u
    JOIN experiments e ON e.exp_group_id = u.exp_group_id AND e.generation = u.generation WHERE u.run_id = ?"""


def has_own_history(conn: sqlite3.Connection, run_id: str) -> bool:
    """Whether the contract of a run's group says so."""
    row = conn.execute(_HISTORY, (run_id,)).fetchone()
    return row is not None and row[0] == "own"


def later_turns(conn: sqlite3.Connection, run_ids: Sequence[str]) -> list[str]:
    """example_ids of the later turns of runs of one group; none where the prompts are the manifest's."""
    if not run_ids or not has_own_history(conn, run_ids[0]):
        return []
    sql = "SELECT DISTINCT example_id FROM requests WHERE run_id = ? AND turn_idx > 0"
    return sorted({row[0] for run_id in run_ids for part in parts(conn) for row in part.execute(sql, (run_id,))})


def without_lengths(conn: sqlite3.Connection, run_ids: Sequence[str], frame: pl.DataFrame) -> pl.DataFrame:
    """A frame of requests of these runs with example_id and token_len, its later turns without a length of ours."""
    if not (later := later_turns(conn, run_ids)):
        return frame
    length = pl.when(pl.col("example_id").is_in(later)).then(None).otherwise(pl.col("token_len"))
    return frame.with_columns(token_len=length.cast(pl.Int64))


def own_answers(
    conn: sqlite3.Connection, run_id: str, sample_idx: int, turns: Mapping[str, int], *, opened: bool
) -> dict[int, str]:
    """What later turns are told that the run answered, by turn; one without an answer is missing. `turns`: example_id
    -> turn; `opened`: the chat template opens reasoning before an answer."""
    sql = """SELECT r.example_id, p.text, p.reasoning, p.tool_calls_json, p.finish_reason
        FROM requests r JOIN responses p ON p.request_id = r.request_id
        WHERE r.run_id = ? AND r.example_id = ? AND r.sample_idx = ?"""
    rows = (row for name in turns for part in parts(conn) for row in part.execute(sql, (run_id, name, sample_idx)))
    return {turns[name]: said(*reply, opened=opened) for name, *reply in rows}


def with_own_answers(meta_json: str, answers: Mapping[int, str]) -> dict[str, Any]:
    """An example's meta whose earlier turns are answered with `answers`, by turn; others keep what the data say."""
    meta: dict[str, Any] = json.loads(meta_json)
    given = enumerate(meta.get("turns") or ())
    return meta | {"turns": [[question, answers.get(turn, told)] for turn, (question, told) in given]}
