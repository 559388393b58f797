"""One run, read: its bin_stats rows, its evidence and its outcomes in the order of the dataset's entries.

Only what later steps need is kept of a run (54 bytes an outcome), so memory holds one run's details at a time.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

from analyzer.read import examples, outcomes, run_counts
from analyzer.read.drift import run_server
from analyzer.read.examples import has_own_tokenizer
from analyzer.read.outcomes import kept_fraction, kept_tokens
from analyzer.read.run_counts import RunCounts
from analyzer.read.runs import Run
from analyzer.read.snapshot import snapshot
from analyzer.scoring import failure_labels
from analyzer.stats.decompose import LABELS, Outcomes
from analyzer.stats.outcome_changes import AnswerTraits
from analyzer.store.tables import BinStat, Evidence
from analyzer.summarise.answer_traits import answer_traits
from analyzer.summarise.bin_stats import CiRule, bin_rows
from analyzer.summarise.budget_evidence import prompt_counts, run_evidence
from analyzer.summarise.guessing_floor import Floors, floors
from kvt_async.contract.formulas.prompt_counts import PromptCounts
from kvt_async.contract.schema import connect_for_reading


@dataclass(frozen=True)
class RunData:
    """`aligned` runs over the entries: score NaN where nothing is scored. `n`: scored outcomes that have an entry."""

    run: Run
    n: int
    aligned: Outcomes
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
    bins: tuple[int, ...]
    rule: CiRule


def read_elsewhere(task: RunToRead) -> RunData | None:
    """read_run in a process of its own; None where the run has changed since it was counted."""
    with closing(connect_for_reading(task.db)) as conn, snapshot(conn) as facts:
        now = run_counts.counts(facts, task.run.run_id)
        if now != (task.counts.requests, task.counts.responses, task.counts.scores):
            return None
        return read_run(facts, task.run, _entries(task.db, task.run.dataset_id), task.bins, task.rule)


@cache  # only in processes that end with the stage
def _entries(db: Path, dataset_id: str) -> pl.DataFrame:
    with closing(connect_for_reading(db)) as conn:
        return examples.entries(conn, dataset_id)


def read_run(facts: sqlite3.Connection, run: Run, entries: pl.DataFrame, bins: Sequence[int], rule: CiRule) -> RunData:
    """One run of a dataset whose manifest holds `entries`; its intervals are made by `rule`."""
    frame = outcomes.outcomes(facts, run).join(entries, on="example_id", how="inner").sort("entry")
    counts = prompt_counts(run, frame, exact=has_own_tokenizer(facts, run.dataset_id))
    evidence = run_evidence(run, frame, run_server(facts, run, rule.alpha), counts)
    frame = frame.with_columns(kept_fraction=kept_fraction(run.kv_unit), kept_tokens=kept_tokens(run.kv_unit))
    code = pl.col("failure_label").replace_strict(
        {name: i for i, name in enumerate(LABELS)}, default=len(LABELS) - 1, return_dtype=pl.Int64
    )
    score = np.full(entries.height, np.nan)
    failed = np.zeros(entries.height, dtype=bool)
    label = np.full(entries.height, len(LABELS) - 1, dtype=np.int64)
    cut = np.zeros(entries.height, dtype=bool)
    at = frame["entry"].to_numpy()
    score[at] = frame["score"].to_numpy()
    failed[at] = frame["is_failure"].to_numpy()
    label[at] = frame.select(code.alias("code"))["code"].to_numpy()
    cut[at] = frame.select(cut=failure_labels.cut_off())["cut"].to_numpy()
    stats = bin_rows(run, frame, bins, rule)
    traits = answer_traits(frame, entries.height)
    own_floors = floors(facts, run, entries) if run.is_baseline else None
    return RunData(run, frame.height, Outcomes(score, failed, label, cut), evidence, counts, stats, traits, own_floors)
