"""One run, read: its bin_stats rows, its evidence and its outcomes in the order of the dataset's entries.

Only what later steps need is kept of a run (54 bytes an outcome), so memory holds one run's details at a time.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from analyzer.read import examples, outcomes, run_counts
from analyzer.read.drift import RunServer
from analyzer.read.examples import has_own_tokenizer
from analyzer.read.outcomes import kept_fraction, kept_tokens
from analyzer.read.run_counts import RunCounts
from analyzer.read.runs import Run, metric_of_scores
from analyzer.read.snapshot import snapshot
from analyzer.scoring import failure_labels
from analyzer.scoring.score import judge_of
from analyzer.stats.decompose import LABELS, Outcomes
from analyzer.stats.outcome_changes import AnswerTraits
from analyzer.stats.repeated_answers import NO_ANSWER, Aggregate, any_failed
from analyzer.store.tables import BinStat, Evidence
from analyzer.summarise.answer_traits import answer_traits
from analyzer.summarise.bin_stats import CiRule, bin_rows
from analyzer.summarise.budget_evidence import prompt_counts, run_evidence
from analyzer.summarise.guessing_floor import Floors, RepeatedAnswers, floors
from kvt_async.contract.formulas.metric_needs import is_known
from kvt_async.contract.formulas.prompt_counts import PromptCounts
from kvt_async.contract.schema import connect_for_reading

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ReadingRule:
    """How a run is read: the bins of its data set, how intervals are made, what is known of its server, how many
    answers of each example count and how they make one score."""

    bins: tuple[int, ...]
    rule: CiRule
    server: RunServer
    samples: int
    aggregate: Aggregate


@dataclass(frozen=True)
class RunData:
    """One run, over the n entries of its data set with k answers each.

    answers [n * k]: answer j of entry i at i * k + j; score NaN where nothing is scored. score [n]: of each entry, NaN
    where one of its answers isn't scored. failed [n]: one of its requests failed. n: scored outcomes with an entry.
    """

    run: Run
    n: int
    score: Floats
    failed: Bools
    answers: Outcomes
    evidence: Evidence
    counts: PromptCounts
    stats: list[BinStat]
    traits: AnswerTraits
    floors: Floors | None = None  # of full cache alone


@dataclass(frozen=True)
class RunToRead:
    """A run to be read from the database at `db`, where its counts are still those."""

    db: Path
    run: Run
    counts: RunCounts
    reading: ReadingRule
    is_first: bool  # only the first answers of each example count, and more were asked for


def read_elsewhere(task: RunToRead) -> RunData | None:
    """read_run in a process of its own; None where the run has changed since it was counted."""
    with closing(connect_for_reading(task.db)) as conn, snapshot(conn) as facts:
        now = run_counts.counts(facts, task.run.run_id, task.reading.samples if task.is_first else None)
        if now != (task.counts.requests, task.counts.responses, task.counts.scores):
            return None
        return read_run(facts, task.run, _entries(task.db, task.run.dataset_id), task.reading)


@cache  # only in processes that end with the stage
def _entries(db: Path, dataset_id: str) -> pl.DataFrame:
    with closing(connect_for_reading(db)) as conn:
        return examples.entries(conn, dataset_id)


def read_run(facts: sqlite3.Connection, run: Run, entries: pl.DataFrame, reading: ReadingRule) -> RunData:
    """One run of a dataset whose manifest holds `entries`."""
    frame = outcomes.outcomes(facts, run, reading.samples).join(entries, on="example_id", how="inner")
    frame = frame.sort("entry", "sample_idx")
    counts = prompt_counts(run, frame, exact=has_own_tokenizer(facts, run.dataset_id))
    evidence = run_evidence(run, frame, reading.server, counts)
    frame = frame.with_columns(kept_fraction=kept_fraction(run.kv_unit), kept_tokens=kept_tokens(run.kv_unit))
    code = pl.col("failure_label").replace_strict(
        {name: i for i, name in enumerate(LABELS)}, default=len(LABELS) - 1, return_dtype=pl.Int64
    )
    n, k = entries.height, reading.samples
    score = np.full(n * k, np.nan)
    failed = np.zeros(n * k, dtype=bool)
    label = np.full(n * k, len(LABELS) - 1, dtype=np.int64)
    cut = np.zeros(n * k, dtype=bool)
    at = frame["entry"].cast(pl.Int64).to_numpy() * k + frame["sample_idx"].to_numpy()
    score[at] = frame["score"].to_numpy()
    failed[at] = frame["is_failure"].to_numpy()
    label[at] = frame.select(code.alias("code"))["code"].to_numpy()
    cut[at] = frame.select(cut=failure_labels.cut_off())["cut"].to_numpy()
    answers = Outcomes(score, failed, label, cut)
    texts = _texts(facts, run, entries, reading) if reading.aggregate.kind == "majority" else None
    own = reading.aggregate.scores(score.reshape(n, k), texts) if k > 1 else score
    scored = entries.select("bin_idx", "cluster", score=own).filter(~pl.Series(np.isnan(own))) if k > 1 else frame
    return RunData(
        run=run,
        n=frame.height,
        score=own,
        failed=any_failed(failed.reshape(n, k)) if k > 1 else failed,
        answers=answers,
        evidence=evidence,
        counts=counts,
        stats=bin_rows(run, frame, reading.bins, reading.rule, scored),
        traits=answer_traits(frame, n, of_calls=_is_of_calls(facts, run)),
        floors=floors(facts, run, entries, RepeatedAnswers(k, reading.aggregate, texts)) if run.is_baseline else None,
    )


def _is_of_calls(facts: sqlite3.Connection, run: Run) -> bool:
    """Whether the metric that scored a run judges the parts of tool calls."""
    metric = metric_of_scores(facts, run.run_id)
    return metric is not None and is_known(metric) and judge_of(metric) is not None


def _texts(facts: sqlite3.Connection, run: Run, entries: pl.DataFrame, reading: ReadingRule) -> npt.NDArray[np.int64]:
    """A number for each answer, [n, k], equal where normalised answers are; NO_ANSWER where there is none."""
    texts = np.full((entries.height, reading.samples), NO_ANSWER, dtype=np.int64)
    frame = outcomes.normalised_answers(facts, run, reading.samples).join(entries, on="example_id", how="inner")
    codes = frame["pred_norm"].rank("dense").cast(pl.Int64).to_numpy()
    texts[frame["entry"].to_numpy(), frame["sample_idx"].to_numpy()] = codes
    return texts
