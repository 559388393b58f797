"""All runs of one generation -> budget_stats, transition_summary and comparisons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from analyzer.read.declared_plan import NOTHING, Planned
from analyzer.read.runs import Run
from analyzer.stats import paired_tests
from analyzer.stats.compare_series import comparisons
from analyzer.stats.decompose import Outcomes, decompose
from analyzer.stats.interim import ONLY_LOOK, Look
from analyzer.stats.noise import Noise, noise
from analyzer.stats.transition import BudgetTest, Claims, Grid, against_full, claims, holm_claims, without_safe
from analyzer.summarise.bin_stats import ALL_BINS, bin_weights
from analyzer.summarise.budget_evidence import worst
from analyzer.summarise.guessing_floor import CHANCE, OTHERS, Floors, headroom
from analyzer.summarise.series_summary import FEWEST_CONTEXTS, SeriesBin, cliff, length_by_budget, summary_row
from kvt_async.contract.settings import Analysis
from kvt_async.contract.vocabulary import EvidenceStatus, Role

Floats = npt.NDArray[np.float64]
Stats = Mapping[tuple[str, int], Mapping[str, Any]]

_FLOORS = {OTHERS: "against the golds of other examples", CHANCE: "by chance"}


@dataclass(frozen=True)
class GroupRows:
    """Rows by column name, without exp_group_id, generation and fingerprint."""

    budget_stats: list[dict[str, Any]]
    transition_summary: list[dict[str, Any]]
    comparisons: list[dict[str, Any]]


def group_rows(
    runs: Sequence[Run],
    grid: Grid,
    outcomes: Mapping[str, Outcomes],
    replicates: Mapping[int, Floats],
    bin_stats: Sequence[Mapping[str, Any]],
    evidence: Mapping[str, str],
    analysis: Analysis,
    *,
    bins: Sequence[int],
    partial: bool,
    floors: Floors | None = None,
    planned: Planned = NOTHING,
    look: Look = ONLY_LOOK,
) -> GroupRows:
    """Everything said about the group. The first series (in the config's order) over all bins is confirmatory, the
    other series over all bins are Holm-adjusted among themselves, single bins are exploratory."""
    column = {run_id: i for i, run_id in enumerate(grid.score)}
    stats: Stats = {(row["run_id"], row["bin_idx"]): row for row in bin_stats}
    full = next((run for run in runs if run.is_baseline), None)
    series = series_levels(runs)
    everywhere = [ALL_BINS, *bins]
    tests = _all_tests(runs, series, grid, full, everywhere, analysis)
    controls = {
        b: [tests[run.run_id, b] for run in runs if run.is_full and run.repeat_idx > 0 and full] for b in everywhere
    }
    noises = {b: noise(found) for b, found in controls.items()}
    fewest = fewest_contexts(grid, full.run_id, bins) if full else 0
    summaries = [] if series or not full else [_only_full(full, b, stats, analysis, partial) for b in everywhere]
    level = analysis.alpha / 2 * look.share
    proven = _claims(series, tests, everywhere, level)
    rooms = {}
    if full and floors:
        margin, alpha = analysis.margin, analysis.alpha
        rooms = {b: headroom(grid, full.run_id, floors, b, margin=margin, alpha=alpha) for b in everywhere}
    for name, levels in series.items():
        by_bin: dict[int, SeriesBin] = {}
        for b in everywhere:
            chosen = [tests[run.run_id, b] for run in levels] if full else []
            room = rooms.get(b)
            by_bin[b] = SeriesBin(
                series=name,
                bin_idx=b,
                unit=levels[0].kv_unit,
                role=_role(b, is_first=name == next(iter(series))),
                tests=chosen,
                claims=proven[name, b] if room is None or room.shown(level) else without_safe(proven[name, b]),
                acc_full=stats[full.run_id, b]["acc_mean"] if full else None,
                acc=[_number(stats[run.run_id, b]["acc_mean"]) for run in levels],
                kept=[stats[run.run_id, b]["kept_tokens_p50"] for run in levels],
                kept_full=stats[full.run_id, b]["prompt_tokens_p50"] if full else None,
                replicates=replicates[b][:, [column[run.run_id] for run in ([full, *levels] if full else levels)]],
                noise=noises[b],
                contexts=fewest if b == ALL_BINS else None,
                headroom=room,
                headroom_level=level,
            )
            by_bin[b].notes += look.note + notes(by_bin[b], analysis.alpha)
            by_bin[b].notes += same_effective([(run.kv_budget, stats[run.run_id, b]) for run in levels])
        for b in everywhere:
            row = summary_row(
                by_bin[b],
                margin=analysis.margin,
                alpha=analysis.alpha,
                drop_threshold=analysis.drop_threshold,
                bin_means={k: v for k, v in by_bin.items() if k != ALL_BINS},
            )
            if b == ALL_BINS:
                row["zone_json"] |= {
                    "cliff": cliff(list(by_bin.values()), analysis.margin),
                    "length_by_budget": length_by_budget(list(by_bin.values())),
                }
            row["zone_json"]["gains"] = {
                "level": level,
                "p": {str(float(test.budget)): round(test.p_gain, 12) for test in by_bin[b].tests},
            }
            status = worst([evidence[run.run_id] for run in ([full, *levels] if full else levels)])
            about = _about(levels[0], status, analysis, partial, look)
            if other := planned.otherwise(analysis.margin, analysis.alpha, next(iter(series))):
                about["method"] |= {"planned": other}
            summaries.append(row | about)
    pairs = {name: {run.kv_budget: run.run_id for run in levels} for name, levels in series.items()}
    return GroupRows(
        _budget_rows(runs, full, tests, outcomes, grid, stats, noises, analysis, everywhere),
        summaries,
        comparisons(grid, pairs, everywhere, alpha=analysis.alpha, looks=1 / look.share),
    )


def _role(bin_idx: int, *, is_first: bool) -> Role:
    """The first series is the question that was asked in advance, all bins together; single bins explore."""
    if bin_idx != ALL_BINS:
        return Role.EXPLORATORY
    return Role.CONFIRMATORY if is_first else Role.HOLM


def _only_full(full: Run, bin_idx: int, stats: Stats, analysis: Analysis, partial: bool) -> dict[str, Any]:
    """The verdict row of an experiment without any compressed budget."""
    stat = stats[full.run_id, bin_idx]
    nothing = Claims(None, None, None, analysis.alpha / 2)
    role = _role(bin_idx, is_first=True)
    empty = np.empty((0, 1))
    this = SeriesBin("full", bin_idx, full.kv_unit, role, [], nothing, stat["acc_mean"], [], [], None, empty, None)
    row = summary_row(this, margin=analysis.margin, alpha=analysis.alpha, drop_threshold=1.0, bin_means={})
    return row | {"n": stat["n"]} | _about(full, EvidenceStatus.FULL, analysis, partial)


def _about(level: Run, status: str, analysis: Analysis, partial: bool, look: Look = ONLY_LOOK) -> dict[str, Any]:
    return {
        "kv_policy": level.kv_policy,
        "kv_mode": level.kv_mode,
        "partial": int(partial),
        "evidence": status,
        "method": _method(analysis) | ({"look": look.number, "alpha_share": look.share} if look.share < 1 else {}),
    }


def series_levels(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Compressed levels by series, in the config's order, each from the highest budget down."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        if not run.is_full and run.repeat_idx == 0:
            found.setdefault(run.series, []).append(run)
    return {name: sorted(levels, key=lambda run: -run.kv_budget) for name, levels in found.items()}


def fewest_contexts(grid: Grid, full: str, bins: Sequence[int]) -> int:
    """Contexts that full cache has scores of in the bin that has fewest, empty bins left out."""
    there = ~np.isnan(grid.score[full])
    found = [int(np.count_nonzero(np.bincount(grid.cluster[grid.rows(b) & there]))) for b in bins]
    return min((n for n in found if n), default=0)


def notes(this: SeriesBin, alpha: float) -> list[str]:
    """Floors and ceilings that limit what this row can show."""
    said = []
    if this.acc_full is not None and this.acc_full >= 1 - 1e-9:
        said.append("ceiling: full cache is always right here, so a smaller cache can only lose")
    base = this.headroom.floor if this.headroom else 0.0
    if this.acc and this.acc_full and min(this.acc) <= base + 0.02 < this.acc_full:
        said.append("floor: at the smallest budgets nothing is left to lose")
    if this.headroom and not this.has_something_to_lose:
        said.append(
            f"floor at full cache: its answers score {this.headroom.floor:.3f} {_FLOORS[this.headroom.kind]}, and that "
            "it scores more than the margin above that is not proven, so no budget is called safe"
        )
    if this.acc_full is not None and this.total_loss_proven and not this.resampled:
        said.append(
            f"resamples: a length bin holds {this.fewest} contexts, too few to say where half of the loss has "
            f"happened or how the zone could move (that takes {FEWEST_CONTEXTS} in each)"
        )
    if this.noise and this.tests and all(this.noise.explains(test, alpha) for test in this.tests):
        said.append("noise: every drop is within what repeated full-cache runs differ by")
    return said


def same_effective(levels: Sequence[tuple[float, Mapping[str, Any]]]) -> list[str]:
    """Neighbouring budgets that the server rounded to one: they are one level under two names."""
    return [
        f"{above:g} and {below:g} were applied as the same budget ({here['kept_tokens_p50']:g} tokens kept)"
        for (above, there), (below, here) in pairwise(levels)
        if there["kept_tokens_p50"] is not None
        and there["kept_tokens_p50"] == here["kept_tokens_p50"]
        and there["kept_fraction_p50"] == here["kept_fraction_p50"]
    ]


def _claims(
    series: Mapping[str, Sequence[Run]], tests: Mapping[tuple[str, int], BudgetTest], bins: Sequence[int], alpha: float
) -> dict[tuple[str, int], Claims]:
    def of(name: str, b: int) -> list[BudgetTest]:
        return [tests[run.run_id, b] for run in series[name] if (run.run_id, b) in tests]

    result = {(name, b): claims(of(name, b), alpha) for name in series for b in bins}
    further = list(series)[1:]
    adjusted = holm_claims({name: of(name, ALL_BINS) for name in further}, alpha)
    return result | {(name, ALL_BINS): found for name, found in adjusted.items()}


def _all_tests(
    runs: Sequence[Run],
    series: Mapping[str, Sequence[Run]],
    grid: Grid,
    full: Run | None,
    bins: Sequence[int],
    analysis: Analysis,
) -> dict[tuple[str, int], BudgetTest]:
    if full is None:
        return {}
    return {
        (run.run_id, b): against_full(
            grid, full.run_id, run.run_id, run.kv_budget, b, margin=analysis.margin, alpha=analysis.alpha
        )
        for run in runs
        if run.run_id != full.run_id
        for b in bins
    }


def _budget_rows(
    runs: Sequence[Run],
    full: Run | None,
    tests: Mapping[tuple[str, int], BudgetTest],
    outcomes: Mapping[str, Outcomes],
    grid: Grid,
    stats: Stats,
    noises: Mapping[int, Noise | None],
    analysis: Analysis,
    bins: Sequence[int],
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for run in runs:
        if run.is_baseline:
            continue
        for b in bins:
            stat = stats[run.run_id, b]
            row: dict[str, Any] = {
                "series": run.series,
                "kv_budget": run.kv_budget,
                "repeat_idx": run.repeat_idx,
                "bin_idx": b,
                "run_id": run.run_id,
                "n": 0,
                "n_clusters": 0,
                **{name: stat[name] for name in ("acc_mean", "acc_ci_low", "acc_ci_high")},
                **dict.fromkeys(_TEST_COLUMNS),
                "drop_json": {},
            }
            if full is not None:
                control = run.is_full and run.repeat_idx > 0
                found = noises[b] if not control else None
                row |= _tested(tests[run.run_id, b], found, analysis.alpha)
                row |= _decomposed(outcomes[full.run_id], outcomes[run.run_id], grid, b)
            rows.append(row)
    return rows


_TEST_COLUMNS = (
    "drop_mean",
    "drop_ci_low",
    "drop_ci_high",
    "n_worse",
    "n_better",
    "p_safe",
    "p_loss",
    "p_collapse",
    "test_method",
    "drop_failures",
    "drop_answers",
    "within_noise",
)


def _tested(test: BudgetTest, control: Noise | None, alpha: float) -> dict[str, Any]:
    seen, proven = test.n > 0, min(test.p_loss, test.p_gain) <= alpha / 2  # no noise, then, however large that is
    return {
        "n": test.n,
        "n_clusters": test.n_clusters,
        "drop_mean": test.drop,
        "drop_ci_low": test.drop_low,
        "drop_ci_high": test.drop_high,
        "n_worse": test.n_worse,
        "n_better": test.n_better,
        "p_safe": test.p_safe if seen else None,
        "p_loss": test.p_loss if seen else None,
        "p_collapse": test.p_broken if seen else None,
        "test_method": paired_tests.METHOD if seen else None,
        "within_noise": int(not proven and control.explains(test, alpha)) if control and seen else None,
    }


def _decomposed(full: Outcomes, here: Outcomes, grid: Grid, bin_idx: int) -> dict[str, Any]:
    rows = grid.rows(bin_idx) & ~np.isnan(full.score) & ~np.isnan(here.score)
    if not rows.any():
        return {}
    shares = decompose(full.of(rows), here.of(rows), bin_weights(grid.bin_idx[rows]))
    return {"drop_failures": shares.failures, "drop_answers": shares.answers, "drop_json": shares.by_label}


def _method(analysis: Analysis) -> dict[str, Any]:
    return {
        "tests": paired_tests.METHOD,
        "alpha": analysis.alpha,
        "margin": analysis.margin,
        "resamples": analysis.resamples,
        "seed": analysis.seed,
        "ci": analysis.ci,
    }


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
