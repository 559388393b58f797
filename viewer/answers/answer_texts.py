"""Texts of answers for the page: previews of a list, and one answer beside full cache's. Every text is made visible:
what a terminal or a bidirectional layout would obey is shown as an escape."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from analyzer.read.group_connection import parts
from analyzer.read.group_tasks import group_tasks
from analyzer.read.runs import Run, newest_generation, runs
from analyzer.results.word_diff import Piece, word_diff
from analyzer.verbs.show import ShowAnswer, ShownExample, ShownLevel, show
from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.settings import Settings
from kvt_async.contract.visible import visible
from viewer.answers.answer_filter import PAGE, outcome_of
from viewer.answers.answer_index import ANSWERED, FAILED, PENDING, AnswerIndex, level_of, refuse_benched

PREVIEW = 240  # characters
MOST_TEXT = 60_000  # characters of one text in a page
Json = dict[str, Any]
_PREVIEW = f"""SELECT r.request_id, r.example_id, substr(p.text, 1, {PREVIEW + 1}),
    substr(p.tool_calls_json, 1, {PREVIEW + 1}) FROM requests r LEFT JOIN responses p ON p.request_id = r.request_id
    WHERE r.request_id = ?"""
_FIRST = """SELECT r.request_id, r.sample_idx, r.turn_idx, p.request_id IS NOT NULL, s.score, s.failure_label, s.flags,
    EXISTS (SELECT 1 FROM give_ups g WHERE g.request_id = r.request_id), s.first_divergence
    FROM requests r LEFT JOIN responses p ON p.request_id = r.request_id
    LEFT JOIN scores s ON s.request_id = r.request_id WHERE r.run_id = ? AND r.example_id = ?
    ORDER BY r.sample_idx, r.turn_idx"""


def shortened(text: str, most: int = MOST_TEXT) -> str:
    """A text that fits a page, as it may be shown."""
    if len(text) > most:
        text = f"{text[:most]}\n… [{len(text) - most:,} more characters: kvt show prints them all]"
    return visible(text)


def listed_rows(conn: sqlite3.Connection, index: AnswerIndex, rows: Iterable[Json]) -> list[Json]:
    """Rows of the index as the list shows them: names for numbers, and how each answer begins."""
    return [
        _listed(
            conn,
            row,
            task=index.tasks[row["task"]].task.name,
            length=index.tasks[row["task"]].bins.get(row["bin"], ""),
            run=index.runs[row["run"]],
        )
        for row in rows
    ]


def _listed(conn: sqlite3.Connection, row: Json, *, task: str, length: str, run: Run) -> Json:
    text = ""
    example_id = ""
    for part in parts(conn):
        if (stored := part.execute(_PREVIEW, (row["request_id"],)).fetchone()) is not None:
            example_id = stored[1]
            text = _line(stored[2] or "") + (f" calls {_line(stored[3])}" if stored[3] else "")
            break
    return {
        "id": row["request_id"],
        "key": str(row["key"]),
        "task": visible(task),
        "length": length,
        "level": visible(level_of(run)),
        "example": visible(example_id),
        "sample": row["sample"],
        "turn": row["turn"],
        "outcome": outcome_of(row),
        "score": row["score"],
        "label": visible(row["label"] or ""),
        "differs": row["differs"],
        "text": text.strip(),
    }


def _line(text: str) -> str:
    cut = text[:PREVIEW] + ("…" if len(text) > PREVIEW else "")
    return visible(" ".join(cut.split()))


def first_rows(conn: sqlite3.Connection, group: str) -> list[Json]:
    """The first page without a filter, while the index is still being made: found by keys, however many there are."""
    refuse_benched(conn, group)
    generation = newest_generation(conn, group)
    every = runs(conn, group, generation)
    shown: list[Json] = []
    for task in group_tasks(conn, group, generation):
        own = [run for run in every if run.dataset_id == task.dataset_id]
        entries = conn.execute(
            "SELECT example_id FROM manifest_entries WHERE dataset_id = ? ORDER BY seq LIMIT ?", (task.dataset_id, PAGE)
        )
        for (example_id,) in entries.fetchall():
            rows = [
                (row[1], row[2], at, run, row)
                for at, run in enumerate(own)
                for part in parts(conn)
                for row in part.execute(_FIRST, (run.run_id, example_id))
            ]
            for sample, turn, at, run, row in sorted(rows, key=lambda each: each[:3]):
                same = "identical_to_full" in (row[6] or "")
                told = {
                    "request_id": row[0],
                    "key": at,
                    "sample": sample,
                    "turn": turn,
                    "state": ANSWERED if row[3] else FAILED if row[7] else PENDING,
                    "score": row[4],
                    "label": row[5],
                    "differs": None if row[8] is None and not same else not same,
                }
                shown.append(_listed(conn, told, task=task.name, length="", run=run))
            if len(shown) >= PAGE:
                return shown[:PAGE]
    return shown


def answer_detail(conn: sqlite3.Connection, settings: Settings, request_id: str) -> Json:
    """One answer beside full cache's, with the example as it was sent. Raises MissingPrerequisiteError for a request
    that the group does not have."""
    group = settings.experiment.exp_group_id
    generation = newest_generation(conn, group)
    every = {run.run_id: run for run in runs(conn, group, generation)}
    sql = "SELECT run_id, example_id, sample_idx, turn_idx FROM requests WHERE request_id = ?"
    place = next((row for part in parts(conn) if (row := part.execute(sql, (request_id,)).fetchone())), None)
    if place is None or place[0] not in every:
        raise MissingPrerequisiteError(f"{group} has no request {visible(request_id[:200])}")
    run, example_id, sample = every[place[0]], str(place[1]), int(place[2])
    task = next(t.name for t in group_tasks(conn, group, generation) if t.dataset_id == run.dataset_id)
    answer: ShowAnswer = show(conn, settings, example_id, task=task, full=True)
    example = next(each for each in answer.examples if each.example_id == example_id)
    here = next(each for each in example.levels if (each.run_id, each.sample_idx) == (run.run_id, sample))
    full = next((e for e in example.levels if e.is_full and not e.repeat_idx and e.sample_idx == sample), None)
    beside = full if full is not None and full is not here else None
    pieces: tuple[list[Piece], list[Piece]] | None = None
    if beside is not None and here.state == beside.state == "response":
        pieces = word_diff(shortened(beside.text or ""), shortened(here.text or ""))
    return {
        "id": request_id,
        "example": visible(example_id),
        "task": visible(task),
        "tokens": example.token_len,
        "cut": example.prompt_truncated,
        "turn": None if example.turn is None else example.turn + 1,
        "conversation": None if example.conversation is None else visible(str(example.conversation)),
        "golds": [shortened(str(gold), 4_000) for gold in example.answers],
        "judged_by": _fields(example.judged_by),
        "offered": _fields(example.offered),
        "messages": [{"role": visible(m["role"]), "text": shortened(str(m["content"]))} for m in example.messages],
        "here": _told(here, pieces[1] if pieces else None),
        "full": None if beside is None else _told(beside, pieces[0] if pieces else None),
        "others": _others(example, here, every),
    }


def _fields(values: Json) -> list[list[str]]:
    return [[visible(name), shortened(json.dumps(value, ensure_ascii=False), 8_000)] for name, value in values.items()]


def _told(level: ShownLevel, pieces: Sequence[Piece] | None) -> Json:
    """What the page shows of one level's answer; `pieces` where it stands beside another one."""
    text = shortened(level.text or "")
    why = "" if level.state != "failure" else f"{level.error_type or 'nothing was sent'} ({level.reason})"
    return {
        "level": visible(level.name),
        "state": level.state,
        "failure": visible(why),
        "pieces": [list(piece) for piece in (pieces if pieces is not None else [Piece(text, True)] if text else [])],
        "reasoning": shortened(level.reasoning or ""),
        "calls": shortened(level.tool_calls_json or ""),
        "finish": visible(level.finish_reason or ""),
        "score": level.score,
        "metric": visible(level.metric or ""),
        "label": visible(level.failure_label or ""),
        "flags": visible((level.flags or "").replace(",", ", ").replace("_", " ")),
        "kept": level.kv_effective,
        "parts": [[visible(name), value] for name, value in level.parts.items()],
        "told": [shortened(told, 8_000) for told in level.told or ()],
    }


def _others(example: ShownExample, here: ShownLevel, every: dict[str, Run]) -> list[Json]:
    """How every level answered the example, in a line each."""
    return [
        {
            "run": level.run_id,
            "level": visible(level.name),
            "here": level is here,
            "state": level.state,
            "score": level.score,
            "text": _line((level.text or "")[: PREVIEW + 1] or (level.tool_calls_json or "")[: PREVIEW + 1]),
            "sample": level.sample_idx,
        }
        for level in example.levels
        if level.run_id in every
    ]
