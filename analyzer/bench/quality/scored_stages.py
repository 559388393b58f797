"""Stages whose answers are scored (`bench.scored`): their scores made, and read example by example.

A stage's runs have the data set of the manifest, and its requests the examples' ids, so that scoring, floors and
`kvt verify` are those of a sweep. What differs is what an answer is compared with: the same prompt unloaded.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from analyzer.bench.read.stage_facts import StageFacts, run_of
from analyzer.read.row_portions import read_frame
from analyzer.read.run_counts import NOTHING, run_counts
from analyzer.read.snapshot import path_of
from analyzer.scoring.opened_reasoning import opens_reasoning
from analyzer.scoring.runs_to_score import RunToScore, score_fingerprint
from analyzer.scoring.scorable import scorable
from analyzer.scoring.score import score_all
from analyzer.store import derived_rows
from kvt_async.contract.formulas.finish_reasons import is_cut_off
from kvt_async.contract.shards.group_databases import GroupDatabase

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_ANSWERS = """SELECT r.example_id, s.score, p.request_id IS NULL, p.finish_reason FROM requests r
JOIN bench_arrivals a ON a.request_id = r.request_id AND a.phase = 'measured'
LEFT JOIN scores s ON s.request_id = r.request_id LEFT JOIN responses p ON p.request_id = r.request_id
WHERE r.run_id = ?"""
_SCHEMA = {"example_id": pl.String, "score": pl.Float64, "failed": pl.Int64, "finish_reason": pl.String}


@dataclass(frozen=True)
class ScoredLevel:
    """The stages of one level; `baseline` is its first asking unloaded, `again` the others."""

    level: str | None
    baseline: StageFacts
    again: tuple[StageFacts, ...]
    loads: Mapping[str, tuple[StageFacts, ...]]  # by label, from the lowest up; repeats together

    @property
    def stages(self) -> tuple[StageFacts, ...]:
        return (self.baseline, *self.again, *(stage for of_load in self.loads.values() for stage in of_load))

    @property
    def planned(self) -> int:
        """Loads that the ladder could have had; of several commands those of the longest, or what was sent."""
        return max(len(self.loads), *(int(stage.plan["scored"]["loads"]) for stage in self.stages))


def scored_levels(stages: Sequence[StageFacts]) -> list[ScoredLevel]:
    """Of each level whose answers are scored and that was asked unloaded."""
    scored = [stage for stage in stages if "scored" in stage.plan]
    levels = []
    for level in dict.fromkeys(stage.level for stage in scored):
        of_level = [stage for stage in scored if stage.level == level]
        askings = sorted((s for s in of_level if s.is_unloaded), key=lambda s: s.repeat_idx)
        under_load = sorted((s for s in of_level if not s.is_unloaded), key=lambda s: (s.value, s.load))
        by_load = {
            load: tuple(s for s in under_load if s.load == load) for load in dict.fromkeys(s.load for s in under_load)
        }
        if askings:
            levels.append(ScoredLevel(level, askings[0], tuple(askings[1:]), by_load))
    return levels


def score_stages(
    conn: sqlite3.Connection,
    facts: sqlite3.Connection,
    key: tuple[str, int],
    levels: Sequence[ScoredLevel],
    metric: str | None,
) -> None:
    """Write the scores that are missing or made otherwise; key: group and generation. Raises as `kvt score` does."""
    if not levels:
        return
    dataset = scorable(facts, run_of(facts, levels[0].baseline.run_id).dataset_id, metric)
    counts = run_counts(facts, *key, kept=False)
    for level in levels:
        full = level.baseline.run_id
        tasks = []
        for stage in level.stages:
            own = counts.get(stage.run_id, NOTHING)
            mark = score_fingerprint(dataset.metric, own, counts.get(full, NOTHING))
            stands = derived_rows.state(facts, *key, "score", stage.run_id) == mark and own.scores == own.finished
            if not stands:
                here, run = GroupDatabase(path_of(facts)), run_of(facts, stage.run_id)
                opened = opens_reasoning(facts, stage.run_id, full)
                task = RunToScore(here, *key, run, full, dataset, mark, own.finished, opened=opened)
                tasks.append(task)
        derived_rows.begin_scores(conn, *key, [task.run.run_id for task in tasks])
        score_all(conn, facts, tasks)


@dataclass(frozen=True)
class Arm:
    """What stages answered, over the entries of their manifest [n]; NaN where an example was not asked.

    score: mean of an example's answers, failures 0, and NaN too where one of them is owed. failed: share of its
    requests that failed. cut_off: share of its answers that their length ended, NaN without an answer. asked: its
    finished requests. present: asked at all, be it that the answer is still owed.
    """

    score: Floats
    failed: Floats
    cut_off: Floats
    asked: npt.NDArray[np.int64]
    present: Bools
    n_pending: int


def arm_of(facts: sqlite3.Connection, stages: Sequence[StageFacts], entries: pl.DataFrame) -> Arm:
    """The measured answers of some stages together. What bench.max_s left out was not asked; what a killed bench still
    owes is pending."""
    frames, n_pending = [], 0
    for stage in stages:
        frame = read_frame(facts.execute(_ANSWERS, (stage.run_id,)), _SCHEMA)
        owed = frame["score"].is_null()
        n_pending += int(owed.sum()) if stage.partial else 0
        frames.append(frame if stage.partial else frame.filter(~owed))
    every = pl.concat(frames)
    cut = [is_cut_off(reason) for reason in every["finish_reason"].to_list()]
    failed = pl.col("failed").cast(pl.Float64)
    grouped = (
        every.with_columns(cut=pl.Series(cut, dtype=pl.Boolean))
        .group_by("example_id")
        .agg(
            score=pl.when(pl.col("score").is_null().any()).then(None).otherwise(pl.col("score").mean()),
            failed=failed.filter(pl.col("score").is_not_null()).mean(),
            cut_off=pl.col("cut").filter(pl.col("failed") == 0).mean(),
            asked=pl.col("score").count(),
        )
    )
    joined = entries.select("example_id").join(grouped, on="example_id", how="left", maintain_order="left")
    score, failed_share, cut_off = (
        joined[name].fill_null(float("nan")).to_numpy() for name in ("score", "failed", "cut_off")
    )
    asked = joined["asked"].fill_null(0).cast(pl.Int64).to_numpy()
    return Arm(score, failed_share, cut_off, asked, joined["asked"].is_not_null().to_numpy(), n_pending)
