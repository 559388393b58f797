"""Two experiment groups side by side, paired on the examples that both have.

What must be equal for a score to mean the same thing (dataset, selection, template, metric, scorer) is checked first;
every other difference of the two contracts is what is compared, and is listed. Overall means weigh A's bins equally.
"""

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from analyzer.read import outcomes
from analyzer.read import runs as tables
from analyzer.read.drift import group_drifts, refuse_drift
from analyzer.stats.holm import holm
from analyzer.stats.paired_tests import Units
from analyzer.store import derived_rows
from kvt_async.contract.errors import ContractMismatchError, MissingPrerequisiteError
from kvt_async.contract.formulas.prompt_counts import PromptCounts
from kvt_async.contract.formulas.server_identity import Drift
from kvt_async.contract.vocabulary import EvidenceStatus

Facts = dict[str, Any]

ALPHA = 0.05
_SAME = ("dataset.", "selection.", "prompt.")


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


def compare(a: sqlite3.Connection, b: sqlite3.Connection, *, allow_drift: bool = False) -> Facts:
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
    rows = [_row(level, left, right) for level in shared]
    for row, p_holm in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p_holm
    only = {
        side.name: [f"{series} {budget:g}" for series, budget in side.scores if (series, budget) not in shared]
        for side in (left, right)
    }
    drift = [f"{side.name}: {one.what}" for side in (left, right) for one in side.drifts]
    short = [f"{side.name}: {side.prompts.sentence}" for side in (left, right) if side.prompts.are_short]
    found: Facts = {
        "a": left.name, "b": right.name, "differs": differs, "levels": rows, "only_in": only, "drift": drift,
        "read_short": short,
    }  # fmt: skip
    return found | {"lines": _lines(found)}


def _read(conn: sqlite3.Connection) -> _Side:
    with tables.snapshot(conn) as facts:
        group, gen, contract = tables.newest_group(facts)
        runs = [run for run in tables.runs(facts, group, gen) if run.repeat_idx == 0]
        counts = tables.progress(facts, group, gen)
        if not runs or any(counts[run.run_id].scores < counts[run.run_id].finished for run in runs):
            raise MissingPrerequisiteError(
                f"{group} has requests without a score", do="Run `kvt all` on its folder first."
            )
        entries = tables.entries(facts, runs[0].dataset_id)
        keyed = {(run.series, run.kv_budget): run for run in runs}
        scores = {level: outcomes.outcomes(facts, run).select("example_id", "score") for level, run in keyed.items()}
        versions, status = tables.scorer_versions(facts), tables.evidence(facts)
        drifts = group_drifts(facts, group, gen)
        prompts = derived_rows.prompt_counts(facts, group, gen)
        return _Side(group, json.loads(contract), versions, keyed, scores, entries, status, drifts, prompts)


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
            do="Run both with one dataset, selection, template and scorer.",
        )


def _row(level: tuple[str, float], left: _Side, right: _Side) -> Facts:
    paired = (
        left.scores[level]
        .join(right.scores[level], on="example_id", suffix="_b")
        .join(left.entries, on="example_id")
        .sort("entry")
    )
    a, b = paired["score"].to_numpy(), paired["score_b"].to_numpy()
    units = Units.of(a - b, paired["cluster"].to_numpy(), paired["bin_idx"].to_numpy())
    low, high = units.interval(ALPHA)
    means = paired.group_by("bin_idx").agg(pl.col("score", "score_b").mean()).mean()
    empty = not len(a)
    return {
        "series": level[0],
        "kv_budget": level[1],
        "n": len(a),
        "acc_a": None if empty else float(means["score"][0]),
        "acc_b": None if empty else float(means["score_b"][0]),
        "diff": None if empty else units.mean,
        "diff_ci_low": None if empty else low,
        "diff_ci_high": None if empty else high,
        "n_better": int(np.sum(a > b + 1e-12)),
        "n_worse": int(np.sum(a < b - 1e-12)),
        "p": min(1.0, 2 * min(units.p_drop_at_most(0.0), units.p_drop_at_least(0.0))),
    }


def _lines(found: Facts) -> list[str]:
    lines = [f"A = {found['a']}, B = {found['b']}"]
    lines += [f"READ SHORT: {what}" for what in found["read_short"]]
    lines += [f"DRIFT: the server became another one while its group was sent: {what}" for what in found["drift"]]
    lines += [f"  compared: {key}: {a!r} in A, {b!r} in B" for key, (a, b) in found["differs"].items()]
    if not found["differs"]:
        lines.append("  the two contracts are equal: what differs is the server or the day")
    for row in found["levels"]:
        where = f"{row['series']} {row['kv_budget']:g}"
        if not row["n"]:
            lines.append(f"  {where}: no shared example")
            continue
        lines.append(
            f"  {where}: A {row['acc_a']:.3f}, B {row['acc_b']:.3f}, A - B {row['diff']:+.3f} "
            f"[{row['diff_ci_low']:+.3f}, {row['diff_ci_high']:+.3f}], n={row['n']}, p (Holm) {row['p_holm']:.3g}"
        )
    lines += [f"  only in {name}: {', '.join(levels)}" for name, levels in found["only_in"].items() if levels]
    return lines
