"""Two experiment groups side by side, paired on the examples that both have.

What must be equal for a score to mean the same thing (dataset, selection, template, metric, scorer) is checked first;
every other difference of the two contracts is what is compared, and is listed. Overall means weigh A's bins equally.
"""

import json
import sqlite3
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from analyzer.read import examples, outcomes
from analyzer.read import runs as tables
from analyzer.read.drift import group_drifts, refuse_drift
from analyzer.read.run_counts import run_counts
from analyzer.read.snapshot import snapshot
from analyzer.stage_answers import Json, StageAnswer
from analyzer.stats.holm import holm
from analyzer.stats.paired_tests import Units
from analyzer.store import derived_rows
from kvt_async.contract.errors import ContractMismatchError, MissingPrerequisiteError
from kvt_async.contract.formulas.prompt_counts import PromptCounts
from kvt_async.contract.formulas.server_identity import Drift
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

    @property
    def line(self) -> str:
        where = f"{self.series} {self.kv_budget:g}"
        if not self.n:
            return f"{where}: no shared example"
        return (
            f"{where}: A {self.acc_a:.3f}, B {self.acc_b:.3f}, A - B {self.diff:+.3f} "
            f"[{self.diff_ci_low:+.3f}, {self.diff_ci_high:+.3f}], n={self.n}, p (Holm) {self.p_holm:.3g}"
        )


@dataclass(frozen=True)
class CompareAnswer(StageAnswer):
    """Groups A and B by name, what differs in their contracts, and their levels side by side.

    differs: key of the contract -> [in A, in B]. only_in: by group, the levels that the other one lacks. drift: where a
    server became another one. read_short: whose prompts were read shorter than sent.
    """

    a: str
    b: str
    differs: dict[str, list[Any]]
    levels: list[ComparedLevel]
    only_in: dict[str, list[str]]
    drift: list[str]
    read_short: list[str]

    @property
    def lines(self) -> list[str]:
        lines = [f"A = {self.a}, B = {self.b}"]
        lines += [f"READ SHORT: {what}" for what in self.read_short]
        lines += [f"DRIFT: the server became another one while its group was sent: {what}" for what in self.drift]
        lines += [f"  compared: {key}: {a!r} in A, {b!r} in B" for key, (a, b) in self.differs.items()]
        if not self.differs:
            lines.append("  the two contracts are equal: what differs is the server or the day")
        lines += [f"  {level.line}" for level in self.levels]
        lines += [f"  only in {name}: {', '.join(levels)}" for name, levels in self.only_in.items() if levels]
        return lines

    def json(self) -> Json:
        return asdict(self)


@dataclass(frozen=True)
class _Side:
    """One group: its newest generation's contract, scorer versions and levels with their scores by example."""

    name: str
    contract: dict[str, Any]
    scorer: set[str]
    runs: dict[tuple[str, float], tables.Run]
    scores: dict[tuple[str, float], pl.DataFrame]
    entries: pl.DataFrame
    evidence: dict[str, str]
    drifts: list[Drift]
    prompts: PromptCounts


def compare(a: sqlite3.Connection, b: sqlite3.Connection, *, allow_drift: bool = False) -> CompareAnswer:
    """Level by level: accuracy of A and B on shared examples, the paired difference A - B, its 95% interval and p.

    Raises ContractMismatchError naming each field that must be equal and isn't, MissingPrerequisiteError before
    `score` or where no level is shared, DriftError where a group's server became another one, unless `allow_drift`.
    """
    left, right = _read(a), _read(b)
    _refuse_unequal(left, right)
    if not allow_drift:
        for side in (left, right):
            refuse_drift(side.drifts, group=side.name, leave="--allow-drift")
    differs = {
        key: [left.contract.get(key), right.contract.get(key)]
        for key in sorted({*left.contract, *right.contract})
        if left.contract.get(key) != right.contract.get(key)
    }
    shared = [level for level in left.scores if level in right.scores]
    if not shared:
        raise MissingPrerequisiteError(
            f"{left.name} and {right.name} share no level", do="Run both groups with the same series and budgets."
        )
    levels = [_pair(level, left, right) for level in shared]
    adjusted = holm([level.p for level in levels])
    only = {
        side.name: [f"{series} {budget:g}" for series, budget in side.scores if (series, budget) not in shared]
        for side in (left, right)
    }
    drift = [f"{side.name}: {drift.what}" for side in (left, right) for drift in side.drifts]
    short = [f"{side.name}: {side.prompts.sentence}" for side in (left, right) if side.prompts.are_short]
    return CompareAnswer(
        a=left.name,
        b=right.name,
        differs=differs,
        levels=[replace(level, p_holm=p) for level, p in zip(levels, adjusted, strict=True)],
        only_in=only,
        drift=drift,
        read_short=short,
    )


def _read(conn: sqlite3.Connection) -> _Side:
    with snapshot(conn) as facts:
        group, gen, contract = tables.newest_group(facts)
        runs = [run for run in tables.runs(facts, group, gen) if run.repeat_idx == 0]
        counts = run_counts(facts, group, gen)
        if not runs or any(counts[run.run_id].scores < counts[run.run_id].finished for run in runs):
            raise MissingPrerequisiteError(
                f"{group} has requests without a score", do="Run `kvt all` on its folder first."
            )
        entries = examples.entries(facts, runs[0].dataset_id)
        keyed = {(run.series, run.kv_budget): run for run in runs}
        scores = {level: outcomes.outcomes(facts, run).select("example_id", "score") for level, run in keyed.items()}
        versions, status = tables.scorer_versions(facts), tables.evidence(facts)
        drifts = group_drifts(facts, group, gen)
        prompts = derived_rows.prompt_counts(facts, group, gen)
        metric = tables.metric_of_scores(facts, runs[0].run_id)  # the task's own, or the one that was asked for since
        same = json.loads(contract) | ({"dataset.metric": metric} if metric else {})
        return _Side(group, same, versions, keyed, scores, entries, status, drifts, prompts)


def _refuse_unequal(left: _Side, right: _Side) -> None:
    keys = sorted(key for key in {*left.contract, *right.contract} if key.startswith(_SAME))
    wrong = [
        f"{key}: {left.contract.get(key)!r} and {right.contract.get(key)!r}"
        for key in keys
        if left.contract.get(key) != right.contract.get(key)
    ]
    if left.scorer != right.scorer:
        wrong.append(f"scorer: {sorted(left.scorer)} and {sorted(right.scorer)}")
    contradicted = [side.name for side in (left, right) if EvidenceStatus.CONTRADICTED in side.evidence.values()]
    if contradicted:
        wrong.append(f"a server applied another budget than asked in {', '.join(contradicted)}")
    if wrong:
        raise ContractMismatchError(
            f"{left.name} and {right.name} can't be compared: a score doesn't mean the same in both",
            details=tuple(wrong),
            do="Run both with one dataset, selection, template and scorer. Stored answers can be scored by one metric: "
            "`kvt all DIR --metric NAME`.",
        )


def _pair(level: tuple[str, float], left: _Side, right: _Side) -> ComparedLevel:
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
