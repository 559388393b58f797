"""Runs, read: their bin_stats rows, their evidence and their outcomes in the order of the dataset's entries.

Only what later steps need is kept of a run (51 bytes an outcome), so memory holds the details of one run at a time, or
of a few small ones.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from analyzer.read import examples, outcomes, run_counts
from analyzer.read.compressions import Compressions, compressions
from analyzer.read.drift import RunServer
from analyzer.read.examples import has_own_tokenizer
from analyzer.read.later_turns import without_lengths
from analyzer.read.outcomes import kept_fraction, kept_tokens
from analyzer.read.run_counts import RunCounts
from analyzer.read.runs import Run, metric_of_scores
from analyzer.read.snapshot import opened
from analyzer.scoring import failure_labels
from analyzer.scoring.answer_parts import answer_parts, names_parts
from analyzer.scoring.given_answers import given_answers
from analyzer.scoring.score import judge_of
from analyzer.stats.decompose import LABELS, Outcomes
from analyzer.stats.outcome_changes import AnswerTraits
from analyzer.stats.repeated_answers import NO_ANSWER, Aggregate, any_failed
from analyzer.store.tables import BinStat, Evidence
from analyzer.summarise.answer_traits import answer_traits, trait_columns
from analyzer.summarise.bin_stats import CiRule, bin_rows
from analyzer.summarise.budget_evidence import prompt_counts, run_evidence
from analyzer.summarise.guessing_floor import Floors, RepeatedAnswers, floors
from analyzer.summarise.held_golds import held_share
from kvt_async.contract.formulas.metric_needs import is_known
from kvt_async.contract.formulas.prompt_counts import PromptCounts
from kvt_async.contract.shards.group_databases import GroupDatabase

OUTCOME_BYTES = 600  # of an outcome while its run is read: its columns, once more while they are sorted
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
    compressions: Compressions | None = None  # of a run that evicts while it answers
    floors: Floors | None = None  # of full cache alone
    held: float | None = None  # of full cache alone, where it scores low: share of its answers that hold the gold


@dataclass(frozen=True)
class RunToRead:
    """A run to be read from the database at `db`, or from the databases of its group (`members`), where its counts are
    still those."""

    db: Path
    members: tuple[GroupDatabase, ...]
    run: Run
    counts: RunCounts
    reading: ReadingRule
    is_first: bool  # only the first answers of each example count, and more were asked for

    @property
    def kind(self) -> tuple[str, str]:
        """What `read_runs` needs to be alike."""
        return self.run.dataset_id, self.run.kv_unit


def read_elsewhere(batch: Sequence[RunToRead]) -> list[RunData] | None:
    """read_runs in a process of its own; None where a run has changed since it was counted."""
    db, members = batch[0].db, batch[0].members
    with opened(db, members) as facts:
        for part in batch:
            now = run_counts.counts(facts, part.run.run_id, part.reading.samples if part.is_first else None)
            if now != (part.counts.requests, part.counts.responses, part.counts.scores):
                return None
        entries = _entries(db, members, batch[0].run.dataset_id)
        return read_runs(facts, [(part.run, part.reading) for part in batch], entries)


@cache  # only in processes that end with the stage
def _entries(db: Path, members: tuple[GroupDatabase, ...], dataset_id: str) -> pl.DataFrame:
    with opened(db, members) as facts:
        return examples.entries(facts, dataset_id)


def read_runs(
    facts: sqlite3.Connection, batch: Sequence[tuple[Run, ReadingRule]], entries: pl.DataFrame
) -> list[RunData]:
    """Runs of one dataset, whose manifest holds `entries`, with budgets of one unit; their rules differ in nothing but
    the server."""
    runs, reading = [run for run, _ in batch], batch[0][1]
    frame = _frame(facts, runs, entries, reading.samples)
    of_calls = [_is_of_calls(facts, run) for run in runs]
    traits = {calls: trait_columns(frame, of_calls=calls) for calls in set(of_calls)}
    counts = prompt_counts(runs, frame, exact=has_own_tokenizer(facts, runs[0].dataset_id))
    applied = [compressions(facts, run, entries, reading.samples) for run in runs]
    ends = np.searchsorted(frame["run"].to_numpy(), np.arange(len(runs) + 1))
    rows = [slice(int(start), int(stop)) for start, stop in pairwise(ends)]
    n, k = entries.height, reading.samples
    answers = [_outcomes(frame[part], n, k) for part in rows]
    texts = [_texts(facts, run, entries, reading) if reading.aggregate.kind == "majority" else None for run in runs]
    score, scored = [each.score for each in answers], frame
    if k > 1:
        score = [reading.aggregate.scores(own.reshape(n, k), said) for own, said in zip(score, texts, strict=True)]
        scored = pl.concat(
            entries.select("bin_idx", "cluster", run=pl.lit(i), score=own).filter(~pl.Series(np.isnan(own)))
            for i, own in enumerate(score)
        )
    stats = bin_rows(runs, frame, reading.bins, reading.rule, scored)
    return [
        RunData(
            run=run,
            n=frame[rows[i]].height,
            score=score[i],
            failed=any_failed(answers[i].failed.reshape(n, k)) if k > 1 else answers[i].failed,
            answers=answers[i],
            evidence=run_evidence(run, frame[rows[i]], own.server, counts[i], applied[i]),
            counts=counts[i],
            stats=stats[i],
            traits=answer_traits(traits[of_calls[i]][rows[i]], n, _parts(facts, run, entries, frame[rows[i]])),
            compressions=applied[i],
            floors=floors(facts, run, entries, RepeatedAnswers(k, reading.aggregate, texts[i]))
            if run.is_baseline
            else None,
            held=held_share(facts, run, k, _mean(score[i])) if run.is_baseline else None,
        )
        for i, (run, own) in enumerate(batch)
    ]


def _mean(score: Floats) -> float:
    """Of what is scored; NaN where nothing is."""
    scored = score[~np.isnan(score)]
    return float(scored.mean()) if len(scored) else float("nan")


def _frame(facts: sqlite3.Connection, runs: Sequence[Run], entries: pl.DataFrame, samples: int) -> pl.DataFrame:
    """Outcomes of runs that have an entry, in the order of the runs and entries, with what is computed of each."""
    code = pl.col("failure_label").replace_strict(
        {name: i for i, name in enumerate(LABELS)}, default=len(LABELS) - 1, return_dtype=pl.Int64
    )
    unit = runs[0].kv_unit
    decoding = pl.col("run").is_in([i for i, run in enumerate(runs) if run.decodes])
    run_ids = [run.run_id for run in runs]
    frame = outcomes.outcomes(facts, runs, samples, entries=without_lengths(facts, run_ids, entries))
    return _in_order(frame).with_columns(
        code=code,
        cut=failure_labels.cut_off(),
        kept_fraction=kept_fraction(unit, decoding),
        # What is held at the end of an answer, and the bytes of its peak, have no like among full cache's figures.
        kept_tokens=pl.when(~decoding).then(kept_tokens(unit)),
        kv_bytes=pl.when(~decoding).then("kv_bytes"),
    )


def _in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows in the order of runs, entries and answers; column by column, so that they are not held twice. `frame` is
    empty afterwards."""
    order = frame.select(pl.arg_sort_by("run", "entry", "sample_idx")).to_series()
    return pl.DataFrame([frame.drop_in_place(name).gather(order) for name in frame.columns])


def _outcomes(frame: pl.DataFrame, n: int, k: int) -> Outcomes:
    """The outcomes of one run, of k answers to each of n entries, each in its place."""
    score = np.full(n * k, np.nan)
    failed = np.zeros(n * k, dtype=bool)
    label = np.full(n * k, len(LABELS) - 1, dtype=np.int8)
    cut = np.zeros(n * k, dtype=bool)
    at = frame["entry"].cast(pl.Int64).to_numpy() * k + frame["sample_idx"].to_numpy()
    score[at] = frame["score"].to_numpy()
    failed[at] = frame["is_failure"].to_numpy()
    label[at] = frame["code"].to_numpy()
    cut[at] = frame["cut"].to_numpy()
    return Outcomes(score, failed, label, cut)


def _parts(facts: sqlite3.Connection, run: Run, entries: pl.DataFrame, frame: pl.DataFrame) -> pl.DataFrame | None:
    """What the scores of a run are made of, with the entry of each; None where the metric names no parts."""
    if not names_parts(facts, run):
        return None
    named = entries.select("example_id", "entry")
    scores = frame.select("entry", "sample_idx", "score").join(named, on="entry", maintain_order="left").drop("entry")
    parts = answer_parts(facts, run, scores)
    return None if parts is None else parts.join(named, on="example_id")


def _is_of_calls(facts: sqlite3.Connection, run: Run) -> bool:
    """Whether the metric that scored a run judges the parts of tool calls."""
    metric = metric_of_scores(facts, run.run_id)
    return metric is not None and is_known(metric) and judge_of(metric) is not None


def _texts(facts: sqlite3.Connection, run: Run, entries: pl.DataFrame, reading: ReadingRule) -> npt.NDArray[np.int64]:
    """A number for each answer, [n, k], equal where given answers are; NO_ANSWER where there is none."""
    texts = np.full((entries.height, reading.samples), NO_ANSWER, dtype=np.int64)
    frame = given_answers(facts, run, reading.samples).join(entries, on="example_id", how="inner")
    codes = frame["answer"].rank("dense").cast(pl.Int64).to_numpy()
    texts[frame["entry"].to_numpy(), frame["sample_idx"].to_numpy()] = codes
    return texts
