"""Two groups side by side: accuracies of the levels that both have, and the answers that changed between them."""

import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import polars as pl

from analyzer.read.group_connection import parts
from analyzer.read.group_tasks import group_tasks
from analyzer.read.row_portions import read_frame
from analyzer.read.runs import Run, newest_generation, newest_group, runs
from analyzer.results.word_diff import word_diff
from analyzer.verbs.compare import compare
from kvt_async.contract.errors import ConfigError, KvtError
from kvt_async.contract.visible import visible
from viewer.answers.answer_index import level_of, refuse_benched
from viewer.answers.answer_texts import shortened
from viewer.groups.group_places import GroupPlace
from viewer.groups.opened_group import opened_group

PAGE = 25
MOST_TEXT = 4_000  # characters of an answer in the list
Json = dict[str, Any]
_ANSWERS = """SELECT r.example_id, r.sample_idx, r.turn_idx, r.request_id, p.text, p.tool_calls_json, s.score
    FROM requests r JOIN responses p ON p.request_id = r.request_id LEFT JOIN scores s ON s.request_id = r.request_id
    WHERE r.run_id = ?"""
_SCHEMA = {
    "example_id": pl.String,
    "sample": pl.Int64,
    "turn": pl.Int64,
    "request_id": pl.String,
    "text": pl.String,
    "calls": pl.String,
    "score": pl.Float64,
}
_SAME_PLACE = ["example_id", "sample", "turn"]


def shared_levels(a: GroupPlace, b: GroupPlace) -> Json:
    """Levels that both groups ran, by task, and what `kvt compare` says of them: `compared` rows and `remarks`, or
    `refusal`, why scores can't be compared."""
    with ExitStack() as stack:
        conns = [stack.enter_context(opened_group(place)) for place in (a, b)]
        levels = [
            {"task": visible(task), "level": visible(level)}
            for task, ours, theirs in _shared_tasks(conns, (a, b))
            for level in ours
            if level in theirs
        ]
        for place, conn in zip((a, b), conns, strict=True):
            if newest_group(conn)[0] != place.name:
                refusal = f"scores of {place.name} can't be compared here: its database holds a newer group"
                return {"levels": levels, "compared": [], "remarks": [], "refusal": visible(refusal)}
        try:
            answer = compare(conns[0], conns[1], allow_drift=True)
        except KvtError as error:
            refusal = "\n".join([error.what, *error.details])
            return {"levels": levels, "compared": [], "remarks": [], "refusal": visible(refusal)}
    rows = [{**asdict(level), "where": visible(level.where)} for level in answer.levels]
    return {"levels": levels, "compared": rows, "remarks": [visible(each) for each in answer.remarks], "refusal": ""}


def changed_answers(a: GroupPlace, b: GroupPlace, task: str, level: str, *, after: int = 0) -> Json:
    """A page of the answers at a level that are not the same in both groups, in the order of A's manifest. `n_both`:
    answers that both have, `n_changed`: of them, other ones. Raises ConfigError for a level that one lacks."""
    with ExitStack() as stack:
        conns = [stack.enter_context(opened_group(place)) for place in (a, b)]
        shared = {name: (ours, theirs) for name, ours, theirs in _shared_tasks(conns, (a, b))}
        both = shared.get(task)
        if both is None or level not in both[0] or level not in both[1]:
            raise ConfigError(f"the two groups don't share {task} {level}".rstrip())
        chosen = [runs_of[level] for runs_of in both]
        frames = [_hashed(conn, run) for conn, run in zip(conns, chosen, strict=True)]
        pairs = frames[0].join(frames[1], on=_SAME_PLACE, how="inner", suffix="_b")
        changed = pairs.filter(
            pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_b")) for name in ("text", "calls"))
        )
        changed = changed.join(_entries(conns[0], chosen[0].dataset_id), on="example_id", how="left")
        page = changed.sort("entry", "sample", "turn")[after : after + PAGE].to_dicts()
        rows = [_pair(conns, row) for row in page]
    return {"rows": rows, "n_both": pairs.height, "n_changed": changed.height, "first": after, "page": PAGE}


def _shared_tasks(
    conns: Sequence[sqlite3.Connection], places: Sequence[GroupPlace]
) -> list[tuple[str, dict[str, Run], dict[str, Run]]]:
    """(name in A, levels of A, levels of B) of the tasks that both have; of one task each, these two."""
    sides = []
    for conn, place in zip(conns, places, strict=True):
        refuse_benched(conn, place.name)
        generation = newest_generation(conn, place.name)
        every = runs(conn, place.name, generation)
        sides.append(
            {
                task.name: {level_of(run): run for run in every if run.dataset_id == task.dataset_id}
                for task in group_tasks(conn, place.name, generation)
            }
        )
    one, other = sides
    if len(one) == len(other) == 1:
        return [(next(iter(one)), next(iter(one.values())), next(iter(other.values())))]
    return [(name, one[name], other[name]) for name in one if name in other]


def _hashed(conn: sqlite3.Connection, run: Run) -> pl.DataFrame:
    """The answers of a run, a number in place of each text."""
    rows = (row for part in parts(conn) for row in part.execute(_ANSWERS, (run.run_id,)))
    return read_frame(rows, _SCHEMA, lambda part: part.with_columns(pl.col("text", "calls").hash()))


def _entries(conn: sqlite3.Connection, dataset_id: str) -> pl.DataFrame:
    rows = conn.execute("SELECT example_id, seq FROM manifest_entries WHERE dataset_id = ?", (dataset_id,))
    return read_frame(rows, {"example_id": pl.String, "entry": pl.Int64})


def _pair(conns: Sequence[sqlite3.Connection], row: Json) -> Json:
    texts = [_text(conn, row[name]) for conn, name in zip(conns, ("request_id", "request_id_b"), strict=True)]
    one, other = word_diff(*texts)
    return {
        "example": visible(row["example_id"]),
        "sample": row["sample"],
        "turn": row["turn"],
        "a": {"id": row["request_id"], "score": row["score"], "pieces": [list(piece) for piece in one]},
        "b": {"id": row["request_id_b"], "score": row["score_b"], "pieces": [list(piece) for piece in other]},
    }


def _text(conn: sqlite3.Connection, request_id: str) -> str:
    sql = "SELECT text, tool_calls_json FROM responses WHERE request_id = ?"
    for part in parts(conn):
        if (stored := part.execute(sql, (request_id,)).fetchone()) is not None:
            return shortened(stored[0] + (f"\ncalls {stored[1]}" if stored[1] else ""), MOST_TEXT)
    return ""
