"""Two experiment groups side by side, task by task, paired on the examples that both have.

What must be equal for a score to mean the same thing (dataset, selection, template, metric, scorer) is checked first;
every other difference of the two contracts is what is compared, and is listed. Overall means weigh A's bins equally.
More than two groups: compared_groups.py.
"""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from analyzer.read import examples, outcomes
from analyzer.read import runs as tables
from analyzer.read.drift import group_drifts, refuse_drift
from analyzer.read.group_tasks import group_tasks
from analyzer.read.run_counts import run_counts
from analyzer.read.safe_budgets import safe_budgets
from analyzer.read.snapshot import snapshot
from analyzer.stage_answers import Json, StageAnswer
from analyzer.stats.holm import holm
from analyzer.stats.paired_tests import Units
from analyzer.store import derived_rows
from kvt_async.contract.errors import ConfigError, ContractMismatchError, MissingPrerequisiteError
from kvt_async.contract.formulas.prompt_counts import PromptCounts
from kvt_async.contract.formulas.server_identity import Drift
from kvt_async.contract.labels import task_level
from kvt_async.contract.vocabulary import EvidenceStatus

ALPHA = 0.05
_SAME = ("dataset.", "selection.", "prompt.")


@dataclass(frozen=True)
class ComparedLevel:
    """One level of both groups over the examples that both have: A minus B. None: they share no example.

    n_better, n_worse: pairs in which A scored higher, and lower. p: two-sided; p_holm: adjusted over all levels.
    """

    series: str
    kv_budget: float
    n: int
    acc_a: float | None
    acc_b: float | None
    diff: float | None
    diff_ci_low: float | None
    diff_ci_high: float | None
    n_better: int
    n_worse: int
    p: float
    p_holm: float = 1.0
    task: str = ""  # '' where each group has one

    @property
    def where(self) -> str:
        """Task, series and budget."""
        return task_level(self.task, f"{self.series} {self.kv_budget:g}")

    @property
    def line(self) -> str:
        where = self.where
        if not self.n:
            return f"{where}: no shared example"
        return (
            f"{where}: A {self.acc_a:.3f}, B {self.acc_b:.3f}, A - B {self.diff:+.3f} "
            f"[{self.diff_ci_low:+.3f}, {self.diff_ci_high:+.3f}], n={self.n}, p (Holm) {self.p_holm:.3g}"
        )


@dataclass(frozen=True)
class CompareAnswer(StageAnswer):
    """Groups A and B by name, what differs in their contracts, and their levels side by side.

    differs: key of the contract, or decoding.samples -> [in A, in B]. only_in: by group, the levels that the other one
    lacks. series_only: the series that A alone has, and those of B. drift: where a server became another one.
    read_short: whose prompts were read shorter than sent.
    """

    a: str
    b: str
    differs: dict[str, list[Any]]
    levels: list[ComparedLevel]
    only_in: dict[str, list[str]]
    series_only: tuple[list[str], list[str]]
    drift: list[str]
    read_short: list[str]

    @property
    def alarms(self) -> list[str]:
        """What speaks against one of them."""
        lines = [f"READ SHORT: {what}" for what in self.read_short]
        return lines + [f"DRIFT: the server became another one while its group was sent: {what}" for what in self.drift]

    @property
    def differences(self) -> list[str]:
        """What is compared: in the contracts, the answers of each example and the series."""
        lines = [f"compared: {key}: {a!r} in A, {b!r} in B" for key, (a, b) in self.differs.items()]
        lines += [
            f"compared: series only in {side}: {', '.join(series)}"
            for side, series in zip("AB", self.series_only, strict=True)
            if series
        ]
        if lines or self.lone:
            return lines
        return ["the two contracts are equal: what differs is the server or the day"]

    @property
    def lone(self) -> list[str]:
        """Levels and tasks that one of them lacks."""
        return [f"only in {name}: {', '.join(levels)}" for name, levels in self.only_in.items() if levels]

    @property
    def remarks(self) -> list[str]:
        return [*self.alarms, *self.differences, *self.lone]

    @property
    def lines(self) -> list[str]:
        levels = [level.line for level in self.levels]
        indented = [f"  {line}" for line in (*self.differences, *levels, *self.lone)]
        return [f"A = {self.a}, B = {self.b}", *self.alarms, *indented]

    def json(self) -> Json:
        return asdict(self)


@dataclass(frozen=True)
class ComparedTask:
    """A task of a group: its contract (what its group shares among it, and the number of answers of each example), and
    its levels with their scores by example."""

    contract: dict[str, Any]
    runs: dict[tuple[str, float], tables.Run]
    scores: dict[tuple[str, float], pl.DataFrame]
    entries: pl.DataFrame


@dataclass(frozen=True)
class ComparedGroup:
    """A group's newest generation: its tasks by name, scorer versions, and what is to be said against it.

    safe: series -> safe budget of the last analysis, of all tasks together where there are several; None: none is
    proven safe. A series without a verdict is not in it.
    """

    name: str
    tasks: dict[str, ComparedTask]
    scorer: set[str]
    evidence: dict[str, str]
    drifts: list[Drift]
    prompts: PromptCounts
    safe: dict[str, float | None]

    @property
    def series(self) -> list[str]:
        """Of any task, full cache among them, in the order of the levels."""
        return list(dict.fromkeys(series for task in self.tasks.values() for series, _ in task.scores))


def compare(a: sqlite3.Connection, b: sqlite3.Connection, *, allow_drift: bool = False) -> CompareAnswer:
    """Task by task, level by level: accuracy of A and B on shared examples, the paired difference A - B, its 95%
    interval and p. Raises as `compared` does."""
    return compared(read_group(a), read_group(b), allow_drift=allow_drift)


def compared(left: ComparedGroup, right: ComparedGroup, *, allow_drift: bool = False) -> CompareAnswer:
    """Two groups that were read.

    Raises ContractMismatchError naming each field that must be equal and isn't, MissingPrerequisiteError where no level
    is shared, DriftError where a group's server became another one, unless `allow_drift`.
    """
    names = _shared_tasks(left, right)
    for mine, theirs in names:
        _refuse_unequal(left, right, mine, theirs)
    if not allow_drift:
        for side in (left, right):
            refuse_drift(side.drifts, group=side.name, leave="--allow-drift")
    several = len(left.tasks) > 1 or len(right.tasks) > 1
    differs: dict[str, list[Any]] = {}
    levels: list[ComparedLevel] = []
    for mine, theirs in names:
        one, other = left.tasks[mine], right.tasks[theirs]
        for key in sorted({*one.contract, *other.contract}):
            values = [one.contract.get(key), other.contract.get(key)]
            if values[0] != values[1]:
                differs.setdefault(key if differs.get(key, values) == values else task_level(mine, key), values)
        shared = [level for level in one.scores if level in other.scores]
        levels += [replace(_pair(level, one, other), task=mine if several else "") for level in shared]
    if not levels:
        raise MissingPrerequisiteError(
            f"{left.name} and {right.name} share no level", do="Run both groups with the same series and budgets."
        )
    adjusted = holm([level.p for level in levels])
    tasks = ({mine for mine, _ in names}, {theirs for _, theirs in names})
    only = {
        side.name: _only_in(side, of_both, {(level.task, level.series, level.kv_budget) for level in levels}, several)
        for side, of_both in zip((left, right), tasks, strict=True)
    }
    drift = [f"{side.name}: {drift.what}" for side in (left, right) for drift in side.drifts]
    short = [f"{side.name}: {side.prompts.sentence}" for side in (left, right) if side.prompts.are_short]
    return CompareAnswer(
        a=left.name,
        b=right.name,
        differs=differs,
        levels=[replace(level, p_holm=p) for level, p in zip(levels, adjusted, strict=True)],
        only_in=only,
        series_only=(
            [series for series in left.series if series not in right.series],
            [series for series in right.series if series not in left.series],
        ),
        drift=drift,
        read_short=short,
    )


def _shared_tasks(left: ComparedGroup, right: ComparedGroup) -> list[tuple[str, str]]:
    """(name in A, name in B) of each task that both have; of two groups of one task each, these two."""
    if len(left.tasks) == len(right.tasks) == 1:
        return [(next(iter(left.tasks)), next(iter(right.tasks)))]
    shared = [(name, name) for name in left.tasks if name in right.tasks]
    if not shared:
        raise MissingPrerequisiteError(
            f"{left.name} and {right.name} share no task",
            details=(f"{left.name}: {', '.join(left.tasks)}", f"{right.name}: {', '.join(right.tasks)}"),
            do="Run both groups with the same tasks.",
        )
    return shared


def _only_in(side: ComparedGroup, of_both: set[str], levels: set[tuple[str, str, float]], several: bool) -> list[str]:
    """What a group has and the other one lacks: whole tasks, and levels of the tasks that both have."""
    lone = [f"task {name}" for name in side.tasks if name not in of_both]
    return lone + [
        task_level(name if several else "", f"{series} {budget:g}")
        for name, task in side.tasks.items()
        if name in of_both
        for series, budget in task.scores
        if (name if several else "", series, budget) not in levels
    ]


def read_group(conn: sqlite3.Connection) -> ComparedGroup:
    """The newest group of a database. Raises MissingPrerequisiteError before `score`, ConfigError for a bench."""
    with snapshot(conn) as facts:
        group, gen, contract = tables.newest_group(facts)
        if tables.benched(facts, group):
            raise ConfigError(
                f"{group} was benched: it has loads, and no answers to compare by budget",
                where="kvt compare",
                do="See its figures with `kvt bench report`.",
            )
        runs = [run for run in tables.runs(facts, group, gen) if run.repeat_idx == 0]
        counts = run_counts(facts, group, gen)
        if not runs or any(counts[run.run_id].scores < counts[run.run_id].finished for run in runs):
            raise MissingPrerequisiteError(
                f"{group} has requests without a score", do="Run `kvt all` on its folder first."
            )
        tasks = {
            task.name: _read_task(
                facts,
                [run for run in runs if run.dataset_id == task.dataset_id],
                json.loads(contract)
                | _own_contract(facts, group, gen, task.name)
                | {"decoding.samples": task.samples},  # is in no contract: answers can be added to a group
                (group, gen),
            )
            for task in group_tasks(facts, group, gen)
        }
        versions, status = tables.scorer_versions(facts), tables.evidence(facts)
        drifts = group_drifts(facts, group, gen)
        prompts = derived_rows.prompt_counts(facts, group, gen)
        safe = safe_budgets(facts, (group, gen), several=len(tasks) > 1)
        return ComparedGroup(group, tasks, versions, status, drifts, prompts, safe)


def _own_contract(facts: sqlite3.Connection, group: str, generation: int, task: str) -> dict[str, Any]:
    row = facts.execute(
        "SELECT contract_json FROM task_contracts WHERE exp_group_id = ? AND generation = ? AND task = ?",
        (group, generation, task),
    ).fetchone()
    own: dict[str, Any] = json.loads(row[0]) if row else {}
    return own


def _read_task(
    facts: sqlite3.Connection, runs: Sequence[tables.Run], contract: dict[str, Any], key: tuple[str, int]
) -> ComparedTask:
    keyed = {(run.series, run.kv_budget): run for run in runs}
    scores = {
        level: outcomes.outcomes(facts, [run]).group_by("example_id", maintain_order=True).agg(pl.col("score").mean())
        for level, run in keyed.items()
    }
    metric = tables.metric_of_scores(facts, runs[0].run_id)  # the task's own, or the one that was asked for since
    same = contract | ({"dataset.metric": metric} if metric else {})
    if (sha256 := derived_rows.scored_by(facts, *key, runs[0].run_id).sha256) is not None:
        same["dataset.metric_sha256"] = sha256  # of the plugin's file
    return ComparedTask(same, keyed, scores, examples.entries(facts, runs[0].dataset_id))


def _refuse_unequal(left: ComparedGroup, right: ComparedGroup, mine: str, theirs: str) -> None:
    one, other = left.tasks[mine].contract, right.tasks[theirs].contract
    wrong = [
        f"{key}: {one.get(key)!r} and {other.get(key)!r}"
        for key in sorted(key for key in {*one, *other} if key.startswith(_SAME))
        if one.get(key) != other.get(key)
    ]
    if left.scorer != right.scorer:
        wrong.append(f"scorer: {sorted(left.scorer)} and {sorted(right.scorer)}")
    contradicted = [side.name for side in (left, right) if EvidenceStatus.CONTRADICTED in side.evidence.values()]
    if contradicted:
        wrong.append(f"a server applied another budget than asked in {', '.join(contradicted)}")
    if wrong:
        task = f" in {mine}" if len(left.tasks) > 1 else ""
        raise ContractMismatchError(
            f"{left.name} and {right.name} can't be compared{task}: a score doesn't mean the same in both",
            details=tuple(wrong),
            do="Run both with one dataset, selection, template and scorer. Stored answers can be scored by one metric: "
            "`kvt all DIR --metric NAME`.",
        )


def _pair(level: tuple[str, float], left: ComparedTask, right: ComparedTask) -> ComparedLevel:
    paired = (
        left.scores[level]
        .join(right.scores[level], on="example_id", suffix="_b")
        .join(left.entries, on="example_id")
        .sort("entry")
    )
    a, b = paired["score"].to_numpy(), paired["score_b"].to_numpy()
    units = Units.of(a - b, paired["cluster"].to_numpy(), paired["bin_idx"].to_numpy())
    low, high = units.interval(ALPHA)
    means = paired.group_by("bin_idx", maintain_order=True).agg(pl.col("score", "score_b").mean()).mean()
    empty = not len(a)
    return ComparedLevel(
        series=level[0],
        kv_budget=level[1],
        n=len(a),
        acc_a=None if empty else float(means["score"][0]),
        acc_b=None if empty else float(means["score_b"][0]),
        diff=None if empty else units.mean,
        diff_ci_low=None if empty else low,
        diff_ci_high=None if empty else high,
        n_better=int(np.sum(a > b + 1e-12)),
        n_worse=int(np.sum(a < b - 1e-12)),
        p=min(1.0, 2 * min(units.p_drop_at_most(0.0), units.p_drop_at_least(0.0))),
    )
