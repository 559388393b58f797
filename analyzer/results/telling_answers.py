"""The most telling changed answers of a task: what full cache got right and a level wrong, and the other way round.

Read from facts and scores where a report is made, and stored nowhere. The same rows give the same choice.
"""

import json
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from analyzer.read.group_connection import parts
from analyzer.read.row_portions import read_frame
from analyzer.read.runs import Run
from analyzer.results.number_format import cache_kept, number
from analyzer.results.series_names import series_name
from analyzer.results.word_diff import Piece, word_diff
from kvt_async.contract.formulas.conversation import turn_of
from kvt_async.contract.formulas.prompt_text import stored_messages
from kvt_async.contract.visible import visible

if TYPE_CHECKING:
    from analyzer.results.results import Results

MOST = 20
MOST_OF_A_TASK = 5  # where a group has several
GAINS = 5  # one in so many may be a gain
MUCH = 0.5  # of a score: such a change is shown before a smaller one
ANSWER, QUESTION, GOLDS, PROMPT = 700, 300, 300, 1_100  # characters shown of each
SAME = 120  # of a stretch that both answers have
_SCHEMA = {
    "example_id": pl.String,
    "sample": pl.Int64,
    "turn": pl.Int64,
    "request_id": pl.String,
    "score": pl.Float64,
}
_SCORED = """SELECT r.example_id, r.sample_idx, r.turn_idx, r.request_id, s.score FROM requests r
    JOIN scores s ON s.request_id = r.request_id WHERE r.run_id = ?
    AND EXISTS (SELECT 1 FROM responses p WHERE p.request_id = r.request_id)"""
_ENTRIES = "SELECT example_id, seq, bin_idx, token_len FROM manifest_entries WHERE dataset_id = ?"
_ENTRY_SCHEMA = {"example_id": pl.String, "seq": pl.Int64, "bin": pl.Int64, "tokens": pl.Int64}
_EXAMPLE = """SELECT x.question, x.context, x.answers_json, x.meta_json, d.prompt_json FROM examples x
    JOIN datasets d USING (dataset_id) WHERE x.dataset_id = ? AND x.example_id = ?"""


@dataclass(frozen=True, slots=True)
class TellingAnswer:
    """One example whose answer changed. Texts are cut to what a page holds and hold no control characters; `full` and
    `here` are the two answers in pieces, as in word_diff."""

    level: str
    length: str  # of its bin
    tokens: int
    example: str
    request_id: str
    turn: int | None  # of a conversation, from 1 on
    question: str
    golds: str
    prompt: str
    full: tuple[Piece, ...]
    here: tuple[Piece, ...]
    score_full: float
    score_here: float

    @property
    def scores(self) -> str:
        return f"{number(self.score_full)} → {number(self.score_here)}"


@dataclass(frozen=True, slots=True)
class TellingAnswers:
    """Those shown; `says`: which they are and how they were chosen."""

    rows: tuple[TellingAnswer, ...]
    says: str


def telling_answers(conn: sqlite3.Connection, results: "Results", most: int = MOST) -> TellingAnswers:
    """Up to `most` answers of the first series that lost any, from the largest budget where it lost downwards.

    They are taken from every length bin in turn, changes of MUCH or more first, then the larger change, then the
    manifest's order; an example is shown once. One in GAINS may be an answer that the level got better.
    """
    full = results.full
    if full is None:
        return TellingAnswers((), "")
    entries = read_frame(conn.execute(_ENTRIES, (results.dataset_id,)), _ENTRY_SCHEMA)
    baseline = _scored(conn, full)
    for series in results.series:
        levels = _levels(results, series)
        chosen: list[dict[str, Any]] = []
        n_lost = n_gained = 0
        for run in levels:
            changed = _changed(baseline, _scored(conn, run), entries).filter(
                ~pl.col("example_id").is_in([row["example_id"] for row in chosen])
            )
            lost, gained = _in_turn(changed, sign=1), _in_turn(changed, sign=-1)
            if not chosen and not lost:
                continue
            if not chosen:
                first, n_lost, n_gained = run, len(lost), len(gained)
                gains = gained[: most // GAINS]
                chosen = [{**row, "run": run} for row in [*lost[: most - len(gains)], *gains]]
            else:
                chosen += [{**row, "run": run} for row in lost[: most - len(chosen)]]
            if len(chosen) >= most:
                break
        if chosen:
            lengths = {b.bin_idx: b.label for b in results.bins}
            rows = tuple(_telling(conn, results.dataset_id, row, lengths) for row in chosen)
            return TellingAnswers(rows, _says(first, n_lost, n_gained, len(rows)))
    return TellingAnswers((), "No answer scored less at any level than at full cache.")


def _levels(results: "Results", series: str) -> list[Run]:
    """Where to look for lost answers, in this order: from the largest budget with a proven loss down, else from the
    largest whose mean fell."""
    levels = results.judged_levels(series) or results.levels(series)
    v = results.verdict(series)
    if v is not None and v.loss is not None:
        return [run for run in levels if run.kv_budget <= v.loss]
    drops = [(run, results.drop(run)) for run in levels]
    fell = [run.kv_budget for run, drop in drops if drop is not None and (drop.drop_mean or 0) > 0]
    return [run for run in levels if run.kv_budget <= max(fell)] if fell else levels


def _scored(conn: sqlite3.Connection, run: Run) -> pl.DataFrame:
    return read_frame((row for part in parts(conn) for row in part.execute(_SCORED, (run.run_id,))), _SCHEMA)


def _changed(full: pl.DataFrame, here: pl.DataFrame, entries: pl.DataFrame) -> pl.DataFrame:
    """Pairs whose scores differ, one of each example: its first answer that changed."""
    pairs = here.join(full, on=["example_id", "sample", "turn"], suffix="_full").join(entries, on="example_id")
    pairs = pairs.with_columns(loss=pl.col("score_full") - pl.col("score")).filter(pl.col("loss") != 0)
    return pairs.sort("seq", "turn", "sample").unique("example_id", keep="first", maintain_order=True)


def _in_turn(changed: pl.DataFrame, *, sign: int) -> list[dict[str, Any]]:
    """Those that lost (sign 1) or gained (-1), the bins taking turns."""
    size = pl.col("loss") * sign
    own = changed.filter(size > 0).with_columns(is_small=size < MUCH, size=size)
    own = own.sort(["is_small", "bin", "size", "seq"], descending=[False, False, True, False])
    return own.with_columns(at=pl.int_range(pl.len()).over("is_small", "bin")).sort("is_small", "at", "bin").to_dicts()


def _telling(conn: sqlite3.Connection, dataset_id: str, row: dict[str, Any], lengths: dict[int, str]) -> TellingAnswer:
    question, context, answers, meta, prompt = conn.execute(_EXAMPLE, (dataset_id, row["example_id"])).fetchone()
    rule, of_row = json.loads(prompt), json.loads(meta)
    messages = stored_messages(rule, context, question, of_row)
    turn = turn_of(of_row)
    run: Run = row["run"]
    full, here = word_diff(_answer(conn, row["request_id_full"]), _answer(conn, row["request_id"]))
    return TellingAnswer(
        level=f"{series_name(run.series)}, {cache_kept(run.kv_budget, run.kv_unit)}",
        length=lengths.get(row["bin"], ""),
        tokens=row["tokens"],
        example=visible(row["example_id"]),
        request_id=row["request_id"],
        turn=turn.turn + 1 if turn else None,
        question=cut(question or messages[-1]["content"], QUESTION),
        golds=cut(" | ".join(map(str, json.loads(answers))), GOLDS),
        prompt=cut("\n\n".join(f"{m['role']}: {m['content']}" for m in messages), PROMPT),
        full=_short(full),
        here=_short(here),
        score_full=row["score_full"],
        score_here=row["score"],
    )


def _answer(conn: sqlite3.Connection, request_id: str) -> str:
    sql = "SELECT substr(text, 1, 20000), substr(tool_calls_json, 1, 20000) FROM responses WHERE request_id = ?"
    for part in parts(conn):
        if (stored := part.execute(sql, (request_id,)).fetchone()) is not None:
            return visible(f"{stored[0]}\ncalls {stored[1]}".lstrip() if stored[1] else stored[0])
    return ""


def cut(text: str, most: int) -> str:
    """A text as it may be shown, the middle of a long one left out."""
    if len(text) > most:
        tail = most // 3
        text = f"{text[: most - tail]} … [{len(text) - most:,} characters left out] … {text[-tail:]}"
    return visible(text)


def _short(pieces: list[Piece]) -> tuple[Piece, ...]:
    """An answer of at most ANSWER characters and an end mark: stretches that both have are left out in the middle."""
    out: list[Piece] = []
    left = ANSWER
    for whole, same in pieces:
        is_long = same and len(whole) > SAME + 3
        text = f"{whole[: SAME // 2]} … {whole[-SAME // 2 :]}" if is_long else whole
        if len(text) > left:
            out.append(Piece(f"{text[:left]} …", same))
            break
        out.append(Piece(text, same))
        left -= len(text)
    return tuple(out)


def _says(run: Run, n_lost: int, n_gained: int, n_shown: int) -> str:
    level = f"{series_name(run.series)}, {cache_kept(run.kv_budget, run.kv_unit)}"
    return (
        f"{level}: the largest budget where a loss shows. There, {n_lost:,} answers scored less than full cache's and "
        f"{n_gained:,} more. {n_shown} are shown, those of smaller budgets after them: from every length in turn, "
        f"changes of {number(MUCH)} or more first, then the larger change, then the data's order. At most a fifth "
        f"are gains. Long texts are cut; `kvt show EXAMPLE` prints them whole."
    )
