"""What answers lose under load: the verdict's paired tests, of each load against the same prompts unloaded."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from analyzer.bench.quality.scored_stages import Arm, ScoredLevel, arm_of
from analyzer.bench.read.stage_facts import run_of
from analyzer.read import examples
from analyzer.stats.load_losses import ArmShares, LoadTests, LoadVerdict, loss_by_failures, verdicts
from analyzer.stats.margin import Margin, MarginKind
from analyzer.stats.noise import Noise, noise
from analyzer.stats.paired_tests import METHOD, equal_shares
from analyzer.stats.transition import BudgetTest, Grid, against_full, more_pairs
from analyzer.summarise.guessing_floor import Floors, Headroom, floors, headroom

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

UNLOADED = "unloaded"  # label of the load that is none
CONTROL = "control"  # verdict of the prompts asked unloaded once more


@dataclass(frozen=True, slots=True)
class LoadLoss:
    """A row of bench_quality: one load at one level against the same prompts unloaded."""

    TABLE: ClassVar[str] = "bench_quality"
    KEY: ClassVar[tuple[str, ...]] = ("level", "load")

    level: str
    load: str
    value: float
    n: int
    n_clusters: int
    n_answers: int
    n_unasked: int
    n_pending: int
    acc_unloaded: float | None
    acc_loaded: float | None
    loss_mean: float | None
    loss_ci_low: float | None
    loss_ci_high: float | None
    loss_failures: float | None
    fail_unloaded: float | None
    fail_loaded: float | None
    cut_off_unloaded: float | None
    cut_off_loaded: float | None
    n_worse: int
    n_better: int
    p_safe: float | None
    p_loss: float | None
    p_beyond: float | None
    verdict: str
    within_noise: int | None
    n_needed: int | None
    floor_json: str
    method: str

    @property
    def is_control(self) -> bool:
        return self.verdict == CONTROL

    @property
    def asked(self) -> dict[str, Any]:
        """What the tests were made with: level, margin, margin_kind, planned."""
        loaded: dict[str, Any] = json.loads(self.method)
        return loaded

    @property
    def floor(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.floor_json)
        return loaded


@dataclass(frozen=True)
class LossRule:
    """How losses under load are judged: analysis.margin, .margin_kind, .alpha and .metric; `levels`: levels benched,
    which share alpha."""

    size: float = 0.05
    kind: MarginKind = "absolute"
    alpha: float = 0.05
    metric: str | None = None
    levels: int = 1

    @property
    def margin(self) -> Margin:
        return Margin(self.size, self.kind)

    @property
    def level(self) -> float:
        """One-sided chance of error of each kind of claim at one level."""
        return self.alpha / 2 / self.levels


@dataclass(frozen=True)
class PairedLoad:
    """A load beside the baseline, over the examples that both were asked."""

    load: str
    value: float
    baseline: Arm
    arm: Arm
    rows: Bools  # examples that both were asked
    grid: Grid
    test: BudgetTest


def load_losses(facts: sqlite3.Connection, levels: Sequence[ScoredLevel], rule: LossRule) -> list[LoadLoss]:
    """A row for each level and load, from the stored scores; of each level the control first, then loads from the
    lowest up."""
    if not levels:
        return []
    rule = replace(rule, levels=len(levels))
    entries = examples.entries(facts, run_of(facts, levels[0].baseline.run_id).dataset_id)
    return [row for level in levels for row in _of_level(facts, level, entries, rule)]


def _of_level(facts: sqlite3.Connection, level: ScoredLevel, entries: pl.DataFrame, rule: LossRule) -> list[LoadLoss]:
    baseline = arm_of(facts, [level.baseline], entries)
    base_of = floors(facts, run_of(facts, level.baseline.run_id), entries)
    pairs = [
        _pair(stages[0].load, stages[0].value, baseline, arm_of(facts, stages, entries), entries, rule)
        for stages in level.loads.values()
    ]
    controls = [_pair(UNLOADED, 0.0, baseline, arm_of(facts, [s], entries), entries, rule) for s in level.again]
    together = _pair(UNLOADED, 0.0, baseline, arm_of(facts, level.again, entries), entries, rule) if controls else None
    noises = noise([control.test for control in controls])
    room = _headroom(pairs, base_of, rule)
    tests = [LoadTests(pair.test.p_safe, pair.test.p_loss, pair.test.p_broken) for pair in pairs]
    said = verdicts(tests, rule.level, planned=level.planned, can_lose=room is not None and room.shown(rule.level))
    said = [_softened(verdict, room) for verdict in said]
    rows = [] if together is None else [_row(level, together, CONTROL, rule, None, None)]
    return rows + [_row(level, pair, verdict, rule, noises, room) for pair, verdict in zip(pairs, said, strict=True)]


def _softened(verdict: LoadVerdict, room: Headroom | None) -> LoadVerdict:
    """Where headroom is merely not shown the pairs may be too few: then nothing can be told."""
    if verdict == LoadVerdict.NOTHING_TO_LOSE and room is not None and not room.doubtful:
        return LoadVerdict.CANNOT_TELL
    return verdict


def _headroom(pairs: Sequence[PairedLoad], base: Floors, rule: LossRule) -> Headroom | None:
    """What the unloaded answers have to lose, over the examples of the load that was asked the most."""
    widest = max(pairs, key=lambda pair: pair.rows.sum(), default=None)
    if widest is None or not widest.rows.any():
        return None
    own = Floors(base.others[widest.rows], base.chance[widest.rows])
    return headroom(widest.grid, UNLOADED, own, -1, margin=rule.margin, alpha=2 * rule.level)


def _pair(load: str, value: float, baseline: Arm, arm: Arm, entries: pl.DataFrame, rule: LossRule) -> PairedLoad:
    rows = baseline.present & arm.present
    grid = Grid(
        {UNLOADED: baseline.score[rows], load + " ": arm.score[rows]},
        entries["bin_idx"].to_numpy()[rows],
        entries["cluster"].to_numpy()[rows],
        {UNLOADED: np.nan_to_num(baseline.failed[rows]) > 0},
    )
    test = against_full(grid, UNLOADED, load + " ", value, -1, margin=rule.margin, alpha=rule.alpha)
    return PairedLoad(load, value, baseline, arm, rows, grid, test)


def _row(
    level: ScoredLevel,
    pair: PairedLoad,
    verdict: str,
    rule: LossRule,
    noises: Noise | None,
    room: Headroom | None,
) -> LoadLoss:
    test, rows = pair.test, pair.rows
    both = rows & ~np.isnan(pair.baseline.score) & ~np.isnan(pair.arm.score)
    shares = [_shares(arm, pair.grid.bin_idx[both[rows]], both) for arm in (pair.baseline, pair.arm)]
    has = bool(both.any())
    margin = rule.margin
    unloaded = shares[0].accuracy if has else float("nan")
    size = margin.size
    tells = verdict in (LoadVerdict.CANNOT_TELL, LoadVerdict.LOSS)
    return LoadLoss(
        level=level.level or "",
        load=pair.load,
        value=pair.value,
        n=test.n,
        n_clusters=test.n_clusters,
        n_answers=int(pair.arm.asked[rows].sum()),
        n_unasked=int((pair.baseline.present & ~pair.arm.present).sum()),
        n_pending=pair.arm.n_pending,
        acc_unloaded=unloaded,
        acc_loaded=shares[1].accuracy if has else float("nan"),
        loss_mean=test.drop,
        loss_ci_low=test.drop_low,
        loss_ci_high=test.drop_high,
        loss_failures=loss_by_failures(*shares) if has else float("nan"),
        fail_unloaded=shares[0].failed,
        fail_loaded=shares[1].failed,
        cut_off_unloaded=shares[0].cut_off,
        cut_off_loaded=shares[1].cut_off,
        n_worse=test.n_worse,
        n_better=test.n_better,
        p_safe=test.p_safe,
        p_loss=test.p_loss,
        p_beyond=test.p_broken,
        verdict=str(verdict),
        within_noise=int(noises.explains(test, rule.alpha)) if noises is not None and noises.flips else None,
        n_needed=more_pairs(test, rule.level, margin=size) if tells else None,
        floor_json="{}" if room is None else json.dumps(room.as_json, sort_keys=True),
        method=json.dumps(
            {
                "tests": METHOD,
                "level": rule.level,
                "margin": margin.size,
                "margin_kind": margin.kind,
                "planned": level.planned,
            },
            sort_keys=True,
        ),
    )


def _shares(arm: Arm, bin_idx: npt.NDArray[np.int64], rows: Bools) -> ArmShares:
    if not rows.any():
        return ArmShares(float("nan"), float("nan"), float("nan"))
    weight = equal_shares(bin_idx)
    cut = arm.cut_off[rows]
    answered = ~np.isnan(cut)
    of_answered = float(np.average(cut[answered], weights=weight[answered])) if answered.any() else float("nan")
    return ArmShares(float(weight @ arm.score[rows]), float(weight @ arm.failed[rows]), of_answered)
