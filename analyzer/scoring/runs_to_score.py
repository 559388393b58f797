"""What a generation has to be scored: its runs, in each of the databases that its facts lie in.

A run is scored again only when its fingerprint changes: the scorer's version, the metric, how many requests are
answered, failed or were retried, and the same of full cache (for `identical_to_full`). Facts are append-only, so
equal counts are equal facts.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import cached_property

from analyzer import metrics
from analyzer.read import kept_counts
from analyzer.read.examples import BinnedDataset
from analyzer.read.group_connection import is_whole, members_of, parts
from analyzer.read.run_counts import NOTHING, RunCounts, counts_to_keep, holders, run_counts
from analyzer.read.runs import Run
from analyzer.read.snapshot import path_of
from analyzer.store import derived_rows
from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.shards.group_databases import GroupDatabase

SCORER_VERSION = "5"  # raise it whenever any score, label or flag could change; CHANGELOG says "scores change"


@dataclass(frozen=True)
class RunToScore:
    """A run to be scored in one database of its group, `member`: `mark` is the fingerprint of what its `rows` scores
    depend on. holders: the other databases that may hold full cache's answers to its examples."""

    member: GroupDatabase
    exp_group_id: str
    generation: int
    run: Run
    full_run_id: str | None
    dataset: BinnedDataset
    mark: str
    rows: int
    holders: tuple[GroupDatabase, ...] = ()
    opened: bool = False  # the chat template opens reasoning before the answer


@dataclass(frozen=True)
class GroupToScore:
    """A generation of a group, its databases, and the data sets that are scored. `conn` may write derived tables."""

    conn: sqlite3.Connection
    facts: sqlite3.Connection
    exp_group_id: str
    generation: int
    runs: Sequence[Run]
    datasets: Mapping[str, BinnedDataset]

    @cached_property
    def members(self) -> tuple[GroupDatabase, ...]:
        return members_of(self.facts) or (GroupDatabase(path_of(self.facts)),)

    @cached_property
    def full_of(self) -> dict[str, str]:
        """The run of full cache, by data set."""
        return {run.dataset_id: run.run_id for run in self.runs if run.is_baseline}

    @cached_property
    def of_parts(self) -> list[dict[str, RunCounts]]:
        """Counts of the runs in each database."""
        return [run_counts(part, self.exp_group_id, self.generation) for part in parts(self.facts)]

    @cached_property
    def counts(self) -> dict[str, RunCounts]:
        """Of every run in all databases together."""
        return {
            run.run_id: RunCounts.together([counts.get(run.run_id, NOTHING) for counts in self.of_parts])
            for run in self.runs
        }

    def tasks(self, at: int, chosen: Sequence[Run]) -> Iterator[tuple[RunToScore, bool]]:
        """The chosen runs in one database, each with whether it is scored; task by task, whose golds are read once."""
        counts, part = self.of_parts[at], parts(self.facts)[at]
        others = {full: holders(self.members, self.of_parts, at, full) for full in self.full_of.values()}
        place = {name: i for i, name in enumerate(self.datasets)}
        for run in sorted(chosen, key=lambda run: place[run.dataset_id]):
            own = counts.get(run.run_id, NOTHING)
            if members_of(self.facts) and not own.requests:
                continue
            dataset, full = self.datasets[run.dataset_id], self.full_of.get(run.dataset_id)
            asked = others[full] if full else ()
            of_full = [self.of_parts[i].get(full, NOTHING) for i in (at, *asked)] if full else []
            mark = score_fingerprint(dataset.metric, own, RunCounts.together(of_full) if of_full else None)
            task = RunToScore(
                self.members[at],
                self.exp_group_id,
                self.generation,
                run,
                full,
                dataset,
                mark,
                own.finished,
                tuple(self.members[i] for i in asked),
            )
            stored = derived_rows.state(part, self.exp_group_id, self.generation, "score", run.run_id)
            yield task, stored == mark and own.scores == own.finished

    def begin(self, at: int, run_ids: Sequence[str], *, drop: bool) -> None:
        """Before the scores of these runs are written to a database: what was counted is kept; with `drop`, all scores
        that it has of them go."""
        key, part = (self.exp_group_id, self.generation), parts(self.facts)[at]
        mark = kept_counts.facts_mark(part, kept_counts.COUNTS) if is_whole(part) else None
        if not run_ids and (mark is None or derived_rows.state(part, *key, kept_counts.COUNTS, "*") == mark):
            return
        db = self.members[at].db
        alone = not members_of(self.facts)
        with nullcontext(self.conn) if alone else closing(connect_for_reading(db, write_derived=True)) as conn:
            if run_ids:
                derived_rows.begin_scores(conn, *key, run_ids)
            derived_rows.keep(conn, *key, kept_counts.COUNTS, mark, counts_to_keep(self.of_parts[at]))
            if drop:
                derived_rows.drop_scores(conn, run_ids)


def score_fingerprint(metric: str, run: RunCounts, full: RunCounts | None) -> str:
    """What a run's scores depend on. Raises ConfigError for an unknown metric."""
    of_full = (full.responses, full.try_series) if full else None
    return derived_rows.fingerprint(
        SCORER_VERSION, metrics.identity(metric), run.responses, run.failures, run.try_series, of_full
    )
