"""All runs of one generation -> the rows of the group's tables: tests, claims, summaries, rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.read.runs import Run
from analyzer.stats import paired_tests
from analyzer.stats.loss_bound import lost_share
from analyzer.stats.noise import Noise, noise
from analyzer.stats.transition import BudgetTest, Claims, against_full, claims, holm_claims, without_safe
from analyzer.store.tables import Comparison, Drop, OutcomeChange, Verdict, json_text
from analyzer.summarise.bin_stats import ALL_BINS
from analyzer.summarise.budget_evidence import worst
from analyzer.summarise.decode_evidence import has_evidence, with_evidence
from analyzer.summarise.decode_levels import decode_details
from analyzer.summarise.group import Group
from analyzer.summarise.group_drops import drop_rows
from analyzer.summarise.guessing_floor import Headroom, headroom
from analyzer.summarise.length_dependence import constant_at_break, length_by_budget
from analyzer.summarise.outcome_rows import outcome_rows, repeats_by_seed, seed_detail
from analyzer.summarise.series_bin import SeriesBin
from analyzer.summarise.series_comparisons import comparison_rows
from analyzer.summarise.series_notes import notes
from analyzer.summarise.series_summary import RowContext, verdict_row
from kvt_async.contract.vocabulary import EvidenceStatus, Role


@dataclass(frozen=True)
class GroupRows:
    """The rows of the group's tables, in their order."""

    drops: list[Drop]
    verdicts: list[Verdict]
    comparisons: list[Comparison]
    changes: list[OutcomeChange]

    @property
    def by_table(self) -> Mapping[str, Sequence[Any]]:
        return {
            Drop.TABLE: self.drops,
            Verdict.TABLE: self.verdicts,
            Comparison.TABLE: self.comparisons,
            OutcomeChange.TABLE: self.changes,
        }


@dataclass(frozen=True)
class GroupTests:
    """Paired tests of every run but full cache, by run and bin; and what the A/A control and the floor say of a bin."""

    of: Mapping[tuple[str, int], BudgetTest]
    noises: Mapping[int, Noise | None]
    headrooms: Mapping[int, Headroom | None]


def group_rows(group: Group, tests: GroupTests) -> GroupRows:
    """Everything said about the group. The first series (in the config's order) over all bins is confirmatory, the
    other series over all bins are Holm-adjusted among themselves, single bins are exploratory."""
    proven = series_claims(group, tests)
    summaries = [series_bin(group, tests, proven[name, b], name, b) for name in group.series for b in group.everywhere]
    verdicts = verdict_rows(group, summaries) if group.series else only_full(group)
    drops, changes = drop_rows(group, tests.of, tests.noises), outcome_rows(group)
    return GroupRows(drops, verdicts, comparison_rows(group), changes)


def group_tests(group: Group) -> GroupTests:
    """Every run against full cache in every bin; nothing where it was not run."""
    full, analysis = group.full, group.analysis
    if full is None:
        return GroupTests({}, dict.fromkeys(group.everywhere), dict.fromkeys(group.everywhere))
    tests = {
        (run.run_id, b): against_full(
            group.grid, full.run_id, run.run_id, run.kv_budget, b, margin=group.margin, alpha=analysis.alpha
        )
        for run in group.runs
        if run.run_id != full.run_id
        for b in group.everywhere
    }
    # Beside a drop stands how much answers differ for being drawn: a budget changes the draw, whatever the seed is.
    same, other = repeats_by_seed(group.runs)
    noises = {b: noise([tests[run.run_id, b] for run in other or same]) for b in group.everywhere}
    headrooms: dict[int, Headroom | None] = dict.fromkeys(group.everywhere)
    if group.floors is not None:
        for b in group.everywhere:
            headrooms[b] = headroom(group.grid, full.run_id, group.floors, b, margin=group.margin, alpha=analysis.alpha)
    return GroupTests(tests, noises, headrooms)


def series_claims(group: Group, tests: GroupTests) -> dict[tuple[str, int], Claims]:
    """What is proven of each series in each bin; nothing is safe where full cache has too little to lose."""

    def tests_of(name: str, bin_idx: int) -> list[BudgetTest]:
        runs = (run.run_id for run in group.series[name])
        return [tests.of[run_id, bin_idx] for run_id in runs if (run_id, bin_idx) in tests.of]

    proven = {(name, b): claims(tests_of(name, b), group.alpha) for name in group.series for b in group.everywhere}
    further = [] if group.in_suite else list(group.series)[1:]  # single tasks explore
    adjusted = holm_claims({name: tests_of(name, ALL_BINS) for name in further}, group.alpha)
    proven |= {(name, ALL_BINS): of_series for name, of_series in adjusted.items()}
    rooms, shown = tests.headrooms, {name: shown_levels(group, name) for name in group.series}
    return {
        (name, b): with_evidence(of_series, tests_of(name, b), shown[name])
        if (room := rooms[b]) is None or room.shown(group.alpha)
        else without_safe(of_series)
        for (name, b), of_series in proven.items()
    }


def _shown(group: Group, levels: Sequence[Run]) -> Sequence[Run]:
    """The levels that a verdict claims something of: those of which nothing is shown are named beside it; where that
    are all, there is none."""
    return [run for run in levels if has_evidence(group.compressions.get(run.run_id))] or levels


def shown_levels(group: Group, name: str) -> list[bool]:
    """Of a series' levels from the highest budget down, whether enough answers show what the budget does."""
    return [has_evidence(group.compressions.get(run.run_id)) for run in group.series[name]]


def series_bin(group: Group, tests: GroupTests, proven: Claims, name: str, bin_idx: int) -> SeriesBin:
    """One series in one bin: its tests, what they prove, and the figures beside them."""
    levels, full = group.series[name], group.full
    stats = [group.stats[run.run_id, bin_idx] for run in levels]
    at_full = group.stats[full.run_id, bin_idx] if full else None
    runs = group.with_full(levels)
    return SeriesBin(
        level=levels[0],
        bin_idx=bin_idx,
        role=role(bin_idx, is_first=name == next(iter(group.series)), in_suite=group.in_suite),
        tests=[tests.of[run.run_id, bin_idx] for run in levels] if full else [],
        claims=proven,
        acc_full=at_full.acc_mean if at_full else None,
        acc=[float("nan") if stat.acc_mean is None else stat.acc_mean for stat in stats],
        kept=[stat.kept_tokens_p50 for stat in stats],
        kept_full=at_full.prompt_tokens_p50 if at_full else None,
        replicates=group.replicates_of(runs, bin_idx),
        noise=tests.noises[bin_idx],
        evidence=worst([group.evidence[run.run_id] for run in [*group.with_full([]), *_shown(group, levels)]]),
        contexts=group.fewest_contexts if bin_idx == ALL_BINS else None,
        headroom=tests.headrooms[bin_idx],
        headroom_alpha=group.alpha,
    )


def role(bin_idx: int, *, is_first: bool, in_suite: bool) -> Role:
    """The first series is the question that was asked in advance, all bins together, and all tasks where there are
    several; single bins and single tasks explore."""
    if bin_idx != ALL_BINS or in_suite:
        return Role.EXPLORATORY
    return Role.CONFIRMATORY if is_first else Role.HOLM


def verdict_rows(group: Group, summaries: Sequence[SeriesBin]) -> list[Verdict]:
    """A row of each series in each bin; over all bins it also says what the bins say together."""
    method = method_of(group)
    rows = []
    for summary in summaries:
        same_series = [other for other in summaries if other.level.series == summary.level.series]
        p_gains = {str(float(test.budget)): round(test.p_gain, 12) for test in summary.tests}
        details: dict[str, Any] = {"notes": notes(summary, group), "gains": {"level": group.alpha, "p": p_gains}}
        if summary.bin_idx == ALL_BINS:
            details["cliff"] = constant_at_break(same_series, group.margin)
            details["length_by_budget"] = length_by_budget(same_series)
            details |= seed_detail(group)
            details |= decode_details(group, group.series[summary.level.series])
        if behind := group.left_out(summary.level.series):
            details["left_out"] = [
                {"budget": run.kv_budget, "answers": counts.scores, "planned": counts.total} for run, counts in behind
            ]
        if group.margin.is_relative:
            details["lost_share"] = lost_shares(group, summary)
        bins = {other.bin_idx: other for other in same_series if other.bin_idx != ALL_BINS}
        context = RowContext(group.analysis, method, group.partial, bin_means=bins, details=details)
        rows.append(verdict_row(summary, context))
    return rows


def lost_shares(group: Group, summary: SeriesBin) -> dict[str, list[float | None]]:
    """What a relative margin judges: [share of full cache's score that is lost, low, high] by budget; low None: no
    bound."""
    shares: dict[str, list[float | None]] = {}
    for test in summary.tests:
        if group.full is not None and (
            lost := lost_share(group.grid, group.full.run_id, test.run_id, summary.bin_idx, group.analysis.alpha)
        ):
            low = round(lost.low, 9) if np.isfinite(lost.low) else None
            shares[str(float(test.budget))] = [round(lost.share, 9), low, round(lost.high, 9)]
    return shares


def only_full(group: Group) -> list[Verdict]:
    """The verdict rows of an experiment without any compressed budget: there is nothing to compare."""
    full = group.full
    if full is None:
        return []
    rows = []
    nothing = Claims(None, None, None, group.analysis.alpha / 2)
    for b in group.everywhere:
        stat = group.stats[full.run_id, b]
        summary = SeriesBin(
            level=full,
            bin_idx=b,
            role=role(b, is_first=True, in_suite=group.in_suite),
            tests=[],
            claims=nothing,
            acc_full=stat.acc_mean,
            acc=[],
            kept=[],
            kept_full=None,
            replicates=np.empty((0, 1)),
            noise=None,
            evidence=EvidenceStatus.FULL,
        )
        context = RowContext(group.analysis, method_of(group), group.partial, n=stat.n, details={"notes": []})
        rows.append(verdict_row(summary, context))
    return rows


def method_of(group: Group) -> str:
    """How the analysis was made, as JSON text: with claims, also which look it is and what the plan had said."""
    analysis = group.analysis
    method: dict[str, Any] = {
        "tests": paired_tests.METHOD,
        "alpha": analysis.alpha,
        "margin": analysis.margin,
        "resamples": analysis.resamples,
        "seed": analysis.seed,
        "ci": analysis.ci,
    }
    if group.margin.is_relative:
        method |= {"margin_kind": group.margin.kind}
    if group.series and group.look.share < 1:
        method |= {"look": group.look.number, "alpha_share": group.look.share}
    first = next(iter(group.series), None)
    other = {}
    if first is not None:
        counted = {group.dataset.dataset_id: group.samples}
        other = group.planned.otherwise(analysis, first, group.dataset.own_metric, counted)
    if group.dataset.other_metric or "metric" in other:
        method |= {"metric": group.dataset.metric, "own_metric": group.dataset.own_metric}
    if max(group.samples, group.n_samples) > 1:
        method |= {"aggregate": analysis.aggregate, "samples": group.samples, "n_samples": group.n_samples}
    if other:
        method |= {"planned": other}
    return json_text(method)
