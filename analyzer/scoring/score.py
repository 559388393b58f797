"""Responses -> scores. Best over golds happens here, once; a request failure scores 0; what is pending has no row.

A run is scored again only when its fingerprint changes: the scorer's version, the metric, how many requests are
answered, failed or were retried, and the same of full cache (for `identical_to_full`). Facts are append-only, so
equal counts are equal facts. Whoever changes a stored score loses the record of that run (a trigger), and it is scored
again.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from analyzer import metrics, parallel
from analyzer.metrics import JudgeCalls
from analyzer.metrics.fast.call_faults import call_faults
from analyzer.metrics.fast.overlap import answers, closes_reasoning, has_reasoning, normalised, overlap_scores
from analyzer.metrics.fast.task_metric import task_scores
from analyzer.read import outcomes, row_portions, runs
from analyzer.read.examples import BinnedDataset
from analyzer.read.group_connection import members_of, open_part
from analyzer.read.later_turns import without_lengths
from analyzer.read.snapshot import snapshot
from analyzer.scoring import failure_labels
from analyzer.scoring.opened_reasoning import opens_reasoning
from analyzer.scoring.prepared_golds import Golds
from analyzer.scoring.runs_to_score import SCORER_VERSION, GroupToScore, RunToScore
from analyzer.scoring.scorable import scorable
from analyzer.store import derived_rows
from kvt_async.contract.formulas.metric_needs import is_known
from kvt_async.contract.schema import connect_for_reading


@dataclass(frozen=True)
class ScoreReport:
    """What `score` did: counts over the runs asked for. `scored` rows were written now, `skipped` stood already."""

    exp_group_id: str
    generation: int
    scored: int
    skipped: int
    failures: int
    pending: int
    runs_scored: tuple[str, ...]
    runs_kept: tuple[str, ...]
    rescored: tuple[str, ...] = ()  # a sentence for each task that another metric than its own scores


@dataclass(frozen=True)
class Rules:
    """How answers are read: of a task's runs all alike, but for those whose prompts were cut."""

    metric: str
    server_counts: bool  # the server's count of prompt tokens and ours are of the same text in the same vocabulary
    opened: bool = False  # the chat template opens reasoning before the answer


def score(
    conn: sqlite3.Connection,
    exp_group_id: str,
    *,
    run_id: str | None = None,
    generation: int | None = None,
    metric: str | None = None,
    recompute: bool = False,
) -> ScoreReport:
    """Write one scores row per finished request of the newest generation (or the one given), or of one run of it,
    by the task's own metric or by `metric`.

    With `recompute` every stored row of these runs is dropped and made again.

    `conn` must allow writing derived tables. Raises MissingPrerequisiteError without runs, ConfigError for an unknown
    metric, one whose package is not installed, or a `metric` that needs what the examples don't have.
    """
    with snapshot(conn) as facts:
        gen = runs.newest_generation(facts, exp_group_id, generation)
        all_runs = runs.runs(facts, exp_group_id, gen)
        chosen = [runs.find_run(all_runs, run_id)] if run_id else all_runs
        datasets = {i: scorable(facts, i, metric) for i in dict.fromkeys(run.dataset_id for run in chosen)}
        group = GroupToScore(conn, facts, exp_group_id, gen, all_runs, datasets)
        counts = group.counts
        tasks = [task for at in range(len(group.members)) for task in group.tasks(at, chosen)]
        todo = [task for task, is_scored in tasks if recompute or not is_scored]
        kept = [task for task, is_scored in tasks if not recompute and is_scored]
        for at, member in enumerate(group.members):
            group.begin(at, [task.run.run_id for task in todo if task.member is member], drop=recompute)
        opened = {i: opens_reasoning(facts, run_id, group.full_of.get(i)) for i, run_id in _first_runs(todo).items()}
        score_all(conn, facts, [replace(task, opened=opened[task.run.dataset_id]) for task in todo])
    if members_of(conn):
        for db in dict.fromkeys(task.member.db for task in todo):
            derived_rows.settle(db)
    return ScoreReport(
        exp_group_id,
        gen,
        scored=sum(task.rows for task in todo),
        skipped=sum(task.rows for task in kept),
        failures=sum(counts[run.run_id].failures for run in chosen),
        pending=sum(counts[run.run_id].pending for run in chosen),
        runs_scored=tuple(dict.fromkeys(task.run.run_id for task in todo)),
        runs_kept=tuple(dict.fromkeys(task.run.run_id for task in kept)),
        rescored=tuple(dataset.metric_sentence for dataset in datasets.values() if dataset.other_metric),
    )


def _first_runs(tasks: Sequence[RunToScore]) -> dict[str, str]:
    """A run of each data set, by its id."""
    return {task.run.dataset_id: task.run.run_id for task in reversed(tasks)}


def score_all(conn: sqlite3.Connection, facts: sqlite3.Connection, tasks: Sequence[RunToScore]) -> None:
    """Score every run, small ones together: of large experiments in processes of their own, the others here."""
    batches = parallel.batches(
        tasks, lambda task: (task.member.db, task.dataset, task.run.cuts_prompts), lambda task: task.rows
    )
    elsewhere = parallel.results(_score_elsewhere, batches, rows=sum(task.rows for task in tasks))
    for batch, done in zip(batches, elsewhere, strict=True):
        if done:
            continue
        if members_of(facts):
            _score_elsewhere(batch)
        else:
            _score_runs(conn, facts, batch, _golds_of(batch[0]))
    _golds.clear()


def plugin_sha256(metric: str) -> str | None:
    """SHA-256 of the plugin's file that gives a metric here; None: none does, or it is one of kvt's."""
    origin = metrics.origin(metric) if is_known(metric) else None
    return None if origin is None else origin.sha256


def _score_elsewhere(batch: Sequence[RunToScore]) -> bool:
    """_score_runs in a process of its own. Where it sees newer facts than a `mark` tells of, the next `score` redoes
    that run."""
    member = batch[0].member
    with (
        closing(connect_for_reading(member.db, write_derived=True)) as conn,
        closing(open_part(member, batch[0].holders, held=True)) as facts,
    ):
        conn.execute(
            "PRAGMA foreign_keys=OFF"
        )  # scores are of requests that were just read, and these are never removed
        _score_runs(conn, facts, batch, _golds_of(batch[0]))
    return True


_golds: dict[tuple[Path, str, str], Golds] = {}


def _golds_of(task: RunToScore) -> Golds:
    """Of the task that is scored now: runs come task by task, and one task's golds are held at a time."""
    key = (task.member.db, task.dataset.dataset_id, task.dataset.metric)
    if key not in _golds:
        _golds.clear()
        _golds[key] = Golds(task.dataset)
    return _golds[key]


def _score_runs(conn: sqlite3.Connection, facts: sqlite3.Connection, batch: Sequence[RunToScore], golds: Golds) -> None:
    """Score runs of one task that are read by the same rules."""
    dataset, full_run_id = batch[0].dataset, batch[0].full_run_id
    rules = Rules(dataset.metric, server_counts=_same_text(batch[0].run, dataset), opened=batch[0].opened)
    batch_runs = [task.run for task in batch]
    derived_rows.drop_unfinished_scores(conn, [run.run_id for run in batch_runs])

    def set_states(c: sqlite3.Connection) -> None:
        detail: dict[str, Any] = {"scorer_version": SCORER_VERSION, "metric": dataset.metric}
        if (origin := metrics.origin(dataset.metric)) is not None:
            detail |= {"plugin": origin.as_json}
        for task in batch:
            state = (task.exp_group_id, task.generation, "score", task.run.run_id, task.mark)
            derived_rows.set_state(c, *state, detail | {"rows": task.rows})

    frames = with_golds(facts, batch_runs, full_run_id, golds, dataset.metric)
    write_scored(conn, frames, rules, set_states)


def with_golds(
    facts: sqlite3.Connection,
    batch_runs: Sequence[runs.Run],
    full_run_id: str | None,
    golds: Golds,
    metric: str,
) -> Iterator[pl.DataFrame]:
    """`score_frame`'s input: the finished requests of runs of one task in chunks, each with its golds."""
    for chunk in outcomes.score_inputs(facts, batch_runs, full_run_id, reads=reads(metric)):
        yield without_lengths(facts, [run.run_id for run in batch_runs], golds.beside(facts, chunk))


def reads(metric: str) -> outcomes.Reads:
    """What of a reply a metric reads."""
    task = metrics.find(metric)
    if task is not None and task.reads_given:
        return "given"
    return "calls" if task is not None and task.reads_calls else "text"


def judge_of(metric: str) -> JudgeCalls | None:
    """What tells the parts of an answer's tool calls apart; None: the metric reads something else."""
    task = metrics.find(metric)
    return None if task is None else task.judge_calls


def reads_golds(metric: str) -> bool:
    """Whether a metric holds answers against golds; else against fields of the example's meta alone."""
    task = metrics.find(metric)
    return task is None or task.reads_golds


def rules_of(facts: sqlite3.Connection, run: runs.Run, full_run_id: str | None, dataset: BinnedDataset) -> Rules:
    """How the answers of a run are read."""
    opened = opens_reasoning(facts, run.run_id, full_run_id)
    return Rules(dataset.metric, server_counts=_same_text(run, dataset), opened=opened)


def _same_text(run: runs.Run, dataset: BinnedDataset) -> bool:
    """Whether the server counts the text that we counted, in the same vocabulary."""
    return not dataset.tokenizer_name.startswith("approx:") and not run.cuts_prompts


def write_scored(
    conn: sqlite3.Connection,
    frames: Iterable[pl.DataFrame],
    rules: Rules,
    finish: Callable[[sqlite3.Connection], None] = lambda _: None,
) -> None:
    """Score chunks of `score_frame`'s input and write them, the next scored while one is written; `finish` at the end.

    Few transactions, since others wait for their lock; rows in key order, so that the index grows at its end.
    """

    def rows_of(frame: pl.DataFrame) -> tuple[list[tuple[Any, ...]], int]:
        scored = score_frame(frame, rules)
        length = int(scored["pred_norm"].str.len_bytes().sum() or 0)
        return scored.drop("metric", "scorer_version").sort("request_id").rows(), length

    write = partial(derived_rows.write_scores, conn, metric=rules.metric, scorer_version=SCORER_VERSION)
    rows: list[tuple[Any, ...]] = []
    held = 0
    for more, length in parallel.one_ahead(rows_of, frames):
        if rows and (len(rows) + len(more) > row_portions.ROWS or held + length > row_portions.CHARACTERS):
            write(rows)
            rows, held = [], 0
        rows += more
        held += length
    write(rows, finish)


def with_said(frame: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """With answer (the text without reasoning, trimmed), marked (reasoning was marked in the text) and said (what the
    task's metric looks at). Needs the columns of `outcomes.score_inputs`."""
    frame = frame.with_columns(pl.col("text").fill_null(""))
    text = pl.col("text")
    if rules.opened:
        inside = failure_labels.at_its_length().fill_null(False) & ~pl.col("reasoned") & ~closes_reasoning(text)
        frame = frame.with_columns(text=pl.when(inside).then(pl.lit("<think>") + text).otherwise(text))
    frame = frame.with_columns(marked=has_reasoning(text))
    frame = frame.with_columns(answers(frame["text"], frame["marked"]).alias("answer"))
    said = pl.when("marked").then("answer").otherwise(text)
    return frame.with_columns(said=said if reads(rules.metric) == "text" else pl.coalesce("read", text))


def score_frame(frame: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """The columns of table `scores`, in order, for a chunk of `outcomes.score_inputs` joined with its golds.

    EM, F1 and labels look at the trimmed answer; the task's metric at the text as it came, since line breaks and
    indentation count in the official scripts (where reasoning was removed, the rest is trimmed), and a metric of tool
    calls at the calls. Reasoning is never scored: of a reply that was cut before reasoning ended nothing is left.
    """
    frame, at_length = with_said(frame, rules), failure_labels.at_its_length().fill_null(False)
    task = metrics.find(rules.metric)
    of_calls = reads(rules.metric) == "calls"
    frame = frame.with_columns(
        cut_reasoning=at_length
        & (pl.col("answer") == "")
        & ~pl.col("called")
        & (pl.col("reasoned") | pl.col("marked")),
    )
    frame = overlap_scores(frame.with_columns(pred_norm=normalised(pl.col("answer"))))
    frame = task_scores(frame, rules.metric)
    if (judge := judge_of(rules.metric)) is not None:
        frame = frame.with_columns(call_faults(frame, judge))
    ends_in_form = task is not None and isinstance(task.format_ok, metrics.AtTheEnd)
    if of_calls or ends_in_form:  # what was cut short is no fault of form
        frame = frame.with_columns(format_ok=pl.col("format_ok") | at_length)
    zero = pl.when(pl.col("is_failure") | pl.col("cut_reasoning")).then(0.0)  # cut short is no way to say nothing
    frame = frame.with_columns(
        em=zero.otherwise("em"),
        f1=zero.otherwise("f1"),
        score=zero.otherwise("score"),
    )
    return frame.select(
        "request_id",
        "em",
        "f1",
        "score",
        metric=pl.lit(rules.metric),
        pred_norm=pl.when(~pl.col("is_failure")).then("pred_norm"),
        gold_norm="gold_norm",
        failure_label=failure_labels.failure_label(),
        flags=failure_labels.flags(server_counts=rules.server_counts, of_calls=judge is not None),
        first_divergence="first_divergence",
        scorer_version=pl.lit(SCORER_VERSION),
    )
