"""Which answers an explorer shows: a filter over the index, a page of it, and how many there are of each kind."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import polars as pl

from analyzer.read.group_connection import parts
from analyzer.read.row_portions import read_frame
from kvt_async.contract.errors import ConfigError
from viewer.answers.answer_index import FAILED, PARTLY, PENDING, RIGHT, STATES, UNSCORED, WRONG, AnswerIndex, level_of

PAGE = 50
MOST_SEARCH = 500  # characters
SEARCHES_KEPT = 8
NONE = "(none)"


@dataclass(frozen=True, slots=True)
class AnswerFilter:
    """What was chosen; empty: anything. `outcome`: right, partly, wrong, not scored, failed, pending. `differs`: yes or
    no, from full cache's answer. `text`: what answer or question holds, in any case (of ASCII letters)."""

    task: str = ""
    bin: str = ""
    level: str = ""
    label: str = ""
    outcome: str = ""
    differs: str = ""
    text: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "AnswerFilter":
        """From the parameters of an address; those that are none of ours are left out."""
        chosen = cls(**{each.name: query.get(each.name, "") for each in fields(cls)})
        if len(chosen.text) > MOST_SEARCH:
            raise ConfigError(f"a search has {MOST_SEARCH} characters at most", where="text")
        return chosen


@dataclass(frozen=True)
class AnswerPage:
    """Rows of the index in their order. `n`: answers that the filter lets through; `first`: how many of them come
    before this page; counts: by field of the filter, how many answers each choice would show."""

    rows: list[dict[str, Any]]
    n: int
    first: int
    counts: dict[str, list[tuple[str, int]]]


def answer_page(
    index: AnswerIndex, masks: Mapping[str, pl.Series], *, after: int | None = None, before: int | None = None
) -> AnswerPage:
    """The page after (or before) a key; from the start where neither is given."""
    every = pl.Series([True]).new_from_index(0, index.answers.height)
    for mask in masks.values():
        every = every & mask
    shown = index.answers.filter(every)
    keys = shown["key"]
    if before is not None:
        end = int((keys < before).sum())
        start = max(0, end - PAGE)
    else:
        start = int((keys <= after).sum()) if after is not None else 0
        end = start + PAGE
    rows = shown[start:end].with_columns(pl.col("label", "state").cast(pl.String)).to_dicts()
    return AnswerPage(rows, shown.height, start, {name: _counts(index, masks, name) for name in _COUNTED})


def masks_of(index: AnswerIndex, chosen: AnswerFilter, conn: sqlite3.Connection) -> dict[str, pl.Series]:
    """By field of the filter, whether each answer passes; fields that let everything through are left out."""
    rows = index.answers
    masks: dict[str, pl.Series] = {}
    if chosen.task:
        masks["task"] = _among(rows["task"], [i for i, t in enumerate(index.tasks) if t.task.name == chosen.task])
    if chosen.bin:
        pairs = [(i, b) for i, t in enumerate(index.tasks) for b, name in t.bins.items() if name == chosen.bin]
        mask = pl.Series([False]).new_from_index(0, rows.height)
        for task, bin_idx in pairs:
            mask = mask | ((rows["task"] == task) & (rows["bin"] == bin_idx).fill_null(False))
        masks["bin"] = mask
    if chosen.level:
        masks["level"] = _among(rows["run"], [i for i, run in enumerate(index.runs) if level_of(run) == chosen.level])
    if chosen.label:
        names = rows["label"].cast(pl.String)
        masks["label"] = names.is_null() if chosen.label == NONE else (names == chosen.label).fill_null(False)
    if chosen.outcome:
        masks["outcome"] = rows.select(_outcome() == chosen.outcome).to_series().fill_null(False)
    if chosen.differs:
        masks["differs"] = (rows["differs"] == (chosen.differs == "yes")).fill_null(False)
    if chosen.text.strip():
        masks["text"] = _holding(index, chosen.text.strip(), conn)
    return masks


def _among(column: pl.Series, places: list[int]) -> pl.Series:
    return column.is_in(pl.Series(places, dtype=column.dtype).implode())


def _outcome() -> pl.Expr:
    score, state = pl.col("score"), pl.col("state")
    return (
        pl.when(state != pl.lit("answered", dtype=STATES))
        .then(state.cast(pl.String))
        .when(score.is_null())
        .then(pl.lit(UNSCORED))
        .when(score >= 1)
        .then(pl.lit(RIGHT))
        .when(score <= 0)
        .then(pl.lit(WRONG))
        .otherwise(pl.lit(PARTLY))
    )


def outcome_of(row: Mapping[str, Any]) -> str:
    """The outcome of one row, as the filter names it."""
    if row["state"] in (FAILED, PENDING):
        return str(row["state"])
    score = row["score"]
    return UNSCORED if score is None else RIGHT if score >= 1 else WRONG if score <= 0 else PARTLY


def _holding(index: AnswerIndex, text: str, conn: sqlite3.Connection) -> pl.Series:
    """Whether answer, reasoning, tool calls or question of each row holds a text."""
    if text not in index.texts:
        pattern = "%" + text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        like = "LIKE ? ESCAPE '\\'"
        sql = f"""SELECT request_id FROM responses WHERE text {like} OR reasoning {like} OR tool_calls_json {like}"""
        ids = (row for part in parts(conn) for row in part.execute(sql, (pattern,) * 3))
        mask = _isin(index.answers["request_id"], read_frame(ids, {"request_id": pl.String})["request_id"])
        for place, each in enumerate(index.tasks):
            mask = mask | _asked(index, conn, place, each.task.dataset_id, (like, pattern))
        while len(index.texts) >= SEARCHES_KEPT:
            index.texts.pop(next(iter(index.texts)), None)
        index.texts[text] = mask
    return index.texts[text]


def _isin(column: pl.Series, values: pl.Series) -> pl.Series:
    return column.is_in(values.implode()) if len(values) else pl.Series([False]).new_from_index(0, len(column))


def _asked(
    index: AnswerIndex, conn: sqlite3.Connection, task: int, dataset_id: str, search: tuple[str, str]
) -> pl.Series:
    """Whether the question of each row of a task holds the text."""
    like, pattern = search
    sql = f"""SELECT e.seq FROM examples x JOIN manifest_entries e USING (dataset_id, example_id)
        WHERE dataset_id = ? AND x.question {like}"""
    seqs = read_frame(conn.execute(sql, (dataset_id, pattern)), {"seq": pl.Int64})["seq"]
    entry = index.answers["key"] // (4096 * 512 * 1024) - task * (1 << 24)
    return (index.answers["task"] == task) & _isin(entry, seqs)


_COUNTED = ("task", "bin", "level", "label", "outcome", "differs")


def _counts(index: AnswerIndex, masks: Mapping[str, pl.Series], name: str) -> list[tuple[str, int]]:
    """The choices of one field with the answers that each would show, under the rest of the filter."""
    every = pl.Series([True]).new_from_index(0, index.answers.height)
    for other, mask in masks.items():
        if other != name:
            every = every & mask
    expressions: dict[str, list[pl.Expr]] = {
        "task": [pl.col("task")],
        "bin": [pl.col("task"), pl.col("bin")],
        "level": [pl.col("run")],
        "label": [pl.col("label").cast(pl.String)],
        "outcome": [_outcome()],
        "differs": [pl.col("differs")],
    }
    keys = [each.alias(f"k{i}") for i, each in enumerate(expressions[name])]
    rows = index.answers.lazy().filter(every).group_by(keys).len().collect().rows()
    named: dict[str, int] = {}
    for *values, n in rows:
        if (choice := _choice(index, name, values)) is not None:
            named[choice] = named.get(choice, 0) + n
    return [(choice, named.get(choice, 0)) for choice in _order(index, name, named)]


def _choice(index: AnswerIndex, name: str, values: Sequence[Any]) -> str | None:
    match name:
        case "task":
            task: str = index.tasks[values[0]].task.name
            return task
        case "bin":
            bins: dict[int, str] = index.tasks[values[0]].bins
            return bins.get(values[1])
        case "level":
            return level_of(index.runs[values[0]])
        case "label":
            return NONE if values[0] is None else str(values[0])
        case "differs":
            return None if values[0] is None else "yes" if values[0] else "no"
        case _:
            return str(values[0])


def _order(index: AnswerIndex, name: str, named: Mapping[str, int]) -> list[str]:
    fixed = {
        "task": [each.task.name for each in index.tasks],
        "bin": list(dict.fromkeys(label for each in index.tasks for label in each.bins.values())),
        "level": index.levels,
        "outcome": [RIGHT, PARTLY, WRONG, UNSCORED, FAILED, PENDING],
        "differs": ["yes", "no"],
    }
    known = fixed.get(name, sorted(named, key=lambda choice: (choice != NONE, -named[choice], choice)))
    return [choice for choice in known if choice in named or name in ("task", "bin", "level")]
