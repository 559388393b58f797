"""Several tasks, each already analysed -> the rows of suite_stats and suite_summary: the verdict over all of them.

The first series is confirmatory: its claims are the ones that were asked for in advance, at one-sided alpha/2. The
other series share alpha/2 equally (Bonferroni). A task that was added after an analysis makes this another look at the
data, whose claims spend alpha/2 times 1/2**look (stats/interim.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from analyzer.read.runs import Run
from analyzer.results import suite_sentence
from analyzer.stats import paired_tests
from analyzer.stats.margin import Margin
from analyzer.stats.suite import FULL, Pool, Suite, SuiteBudget, SuiteRule, TaskScores, suite
from analyzer.store.suite_tables import SuiteStat, SuiteVerdict
from analyzer.store.tables import json_text
from analyzer.summarise.bin_stats import ALL_BINS
from analyzer.summarise.budget_evidence import worst
from analyzer.summarise.decode_evidence import has_evidence
from analyzer.summarise.guessing_floor import Floors, Headroom, headroom
from analyzer.summarise.question import Question
from analyzer.summarise.suite_task import SuiteTask
from kvt_async.contract.settings import Analysis
from kvt_async.contract.vocabulary import EvidenceStatus, Role, SeriesVerdict

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SuiteRows:
    """The rows of the tables of several tasks, in their order."""

    stats: list[SuiteStat]
    verdicts: list[SuiteVerdict]

    @property
    def by_table(self) -> Mapping[str, Sequence[Any]]:
        return {SuiteStat.TABLE: self.stats, SuiteVerdict.TABLE: self.verdicts}


@dataclass(frozen=True)
class _Tasks:
    """The tasks of a verdict, their contexts numbered over all of them."""

    tasks: Sequence[SuiteTask]
    clusters: Sequence[Ints]
    analysis: Analysis
    share: float  # of alpha that this look's claims may spend

    @property
    def margin(self) -> Margin:
        return Margin(self.analysis.margin, self.analysis.margin_kind)

    @property
    def without_full(self) -> list[str]:
        """Names of the tasks that have no full-cache run."""
        return [task.task.name for task in self.tasks if task.group.full is None]

    def scores(self, runs_of: dict[str, dict[float, str]]) -> list[TaskScores]:
        """What suite() takes: the runs of each task, by name, at each budget."""
        return [
            TaskScores(
                task.task.name,
                replace(task.group.grid, cluster=cluster),
                task.group.full.run_id,
                runs_of.get(task.task.name, {}),
                task.p_headroom,
                task.at_budgets,
            )
            for task, cluster in zip(self.tasks, self.clusters, strict=True)
            if task.group.full is not None
        ]

    def headroom(self) -> Headroom | None:
        """What full cache has to lose on average over the tasks; None where it isn't known of one of them."""
        floors = [task.group.floors for task in self.tasks]
        if not all(floors):
            return None
        others, chance = (np.concatenate([getattr(f, name) for f in floors if f]) for name in ("others", "chance"))
        pooled = Floors(others, np.where(np.isnan(chance), others, chance))  # each over all tasks, as the mean is
        grid = Pool(self.scores({})).grid
        return headroom(grid, FULL, pooled, ALL_BINS, margin=self.margin, alpha=self.analysis.alpha)


def suite_rows(question: Question, tasks: Sequence[SuiteTask]) -> SuiteRows:
    """The rows of every series, and of full cache's repeats, over these tasks; one at least."""
    looks = max(task.task.look for task in tasks)
    share = min(task.group.look.share for task in tasks) * (0.5**looks if looks > 1 else 1.0)
    every = _Tasks(tasks, _numbered(tasks), question.analysis, share)
    room = None if every.without_full else every.headroom()
    series = _series(tasks)
    stats: list[SuiteStat] = []
    verdicts: list[SuiteVerdict] = []
    for i, name in enumerate(series):
        level = question.analysis.alpha / 2 * share / (1 if i == 0 else len(series) - 1)
        rule = _rule(every, level, room)
        runs_of = _runs_of(tasks, name)
        done = suite(every.scores(runs_of), rule) if not every.without_full and all(runs_of.values()) else None
        if done is not None:
            stats += [_stat(name, 0, row) for row in done.budgets]
        role = Role.CONFIRMATORY if i == 0 else Role.HOLM
        verdicts.append(_verdict(question, every, _Claimed(name, role, rule, room, done)))
    if not every.without_full:
        stats += _controls(every)
    return SuiteRows(stats, verdicts)


def _numbered(tasks: Sequence[SuiteTask]) -> list[Ints]:
    """A number for the context of every example of every task, equal where contexts are."""
    sizes = [len(task.group.grid.bin_idx) for task in tasks]
    contexts = pl.concat([task.contexts for task in tasks if task.contexts is not None])
    number = (contexts.rank("dense") - 1).cast(pl.Int64).to_numpy()
    return np.split(number, np.cumsum(sizes)[:-1])


def _series(tasks: Sequence[SuiteTask]) -> list[str]:
    """Series of any of the tasks in the order of the config."""
    first: dict[str, int] = {}
    for task in tasks:
        for name, levels in task.group.series.items():
            at = min(run.level_idx for run in levels)
            first[name] = min(at, first.get(name, at))
    return sorted(first, key=lambda name: first[name])


def _runs_of(tasks: Sequence[SuiteTask], series: str) -> dict[str, dict[float, str]]:
    """The runs of a series by task and budget, without budgets that hardly any answer of some task reached: nothing is
    claimed of them. Of a task in which that are all of them, all."""
    runs_of: dict[str, dict[float, str]] = {}
    unshown: set[float] = set()
    for task in tasks:
        levels = task.group.series.get(series, [])
        hidden = {run.kv_budget for run in levels if not has_evidence(task.group.compressions.get(run.run_id))}
        unshown |= hidden if len(hidden) < len(levels) else set()
        runs_of[task.task.name] = {run.kv_budget: run.run_id for run in levels}
    return {
        name: {budget: run_id for budget, run_id in of_task.items() if budget not in unshown}
        for name, of_task in runs_of.items()
    }


def _rule(every: _Tasks, level: float, room: Headroom | None) -> SuiteRule:
    analysis = every.analysis
    return SuiteRule(every.margin, analysis.guard, analysis.alpha, level, room.p if room else 0.0)


def _controls(every: _Tasks) -> list[SuiteStat]:
    """Full cache's repeats against full cache, those that all tasks have."""
    repeats: list[dict[int, Run]] = [
        {run.repeat_idx: run for run in task.group.runs if run.is_full and run.repeat_idx} for task in every.tasks
    ]
    rule = _rule(every, every.analysis.alpha / 2, None)
    rows = []
    for repeat in sorted(set.intersection(*(set(of_task) for of_task in repeats))):
        runs_of = {
            task.task.name: {of_task[repeat].kv_budget: of_task[repeat].run_id}
            for task, of_task in zip(every.tasks, repeats, strict=True)
        }
        budgets = suite(every.scores(runs_of), rule).budgets
        rows += [_stat("full", repeat, row) for row in budgets]
    return rows


def _stat(series: str, repeat_idx: int, row: SuiteBudget) -> SuiteStat:
    test = row.test
    return SuiteStat(
        series=series,
        kv_budget=row.budget,
        repeat_idx=repeat_idx,
        n_tasks=sum(task.test.n > 0 for task in row.tasks),
        n=test.n,
        n_clusters=test.n_clusters,
        mean_full=row.mean_full,
        mean_here=row.mean_here,
        drop_mean=test.drop,
        drop_ci_low=test.drop_low,
        drop_ci_high=test.drop_high,
        p_safe=test.p_safe,
        p_guard=max(task.p_guard for task in row.tasks),
        p_everywhere=row.p_everywhere,
        p_loss=test.p_loss,
        p_collapse=test.p_broken,
        worst_task=row.worst.task,
        worst_task_bound=row.worst_task_bound,
        n_safe_tasks=row.n_safe_tasks,
        broken_tasks=json_text(list(row.broken_tasks)),
    )


@dataclass(frozen=True)
class _Claimed:
    """One series over all tasks; done None: a task has no full cache, or nothing of the series."""

    series: str
    role: Role
    rule: SuiteRule
    room: Headroom | None
    done: Suite | None


def _verdict(question: Question, every: _Tasks, claimed: _Claimed) -> SuiteVerdict:
    done, own = claimed.done, [task.verdict(claimed.series) for task in every.tasks]
    words = [v.verdict if v else SeriesVerdict.CANNOT_TELL for v in own]
    told = done.told if done else None
    word = _word(every, claimed, words)
    is_judged = word != SeriesVerdict.UNVERIFIED
    needs = [need.n_needed for need in done.needs] if done else []
    needed = max(n for n in needs if n) if needs and all(needs) and any(needs) else None
    row = SuiteVerdict(
        series=claimed.series,
        n_tasks=len(every.tasks),
        n_nothing_to_lose=words.count(SeriesVerdict.NOTHING_TO_LOSE),
        n_cannot_tell=words.count(SeriesVerdict.CANNOT_TELL),
        suite_safe=done.suite_safe if done and is_judged else None,
        guard=question.analysis.guard,
        worst_task=told.worst.task if told and is_judged else None,
        worst_task_bound=told.worst_task_bound if told and is_judged else None,
        n_safe_tasks=told.n_safe_tasks if told and is_judged else None,
        safe_everywhere=done.safe_everywhere if done and is_judged else None,
        broken_somewhere=done.broken_somewhere if done and is_judged else None,
        broken_tasks=json_text(list(done.broken_tasks) if done and is_judged else []),
        mean_full=done.budgets[0].mean_full if done and done.budgets else None,
        mean_safe_budget=done.mean_safe if done and is_judged else None,
        mean_broken_budget=done.mean_broken if done and is_judged else None,
        n_needed=needed if word in (SeriesVerdict.CANNOT_TELL, SeriesVerdict.TRANSITION) else None,
        verdict=word,
        verdict_text="",
        tasks_json=json_text([_of_task(every, task, claimed) for task in every.tasks]),
        evidence=worst([v.evidence if v else EvidenceStatus.UNVERIFIED for v in own]),
        partial=int(question.is_partial),
        method=json_text(_method(question, every, claimed)),
    )
    unit = next((task.group.unit for task in every.tasks if claimed.series in task.group.series), "fraction")
    return replace(row, verdict_text=suite_sentence.verdict(row, unit))


def _word(every: _Tasks, claimed: _Claimed, words: Sequence[str]) -> SeriesVerdict:
    """The verdict's word; as one task's is made in verdicts.py."""
    done, room = claimed.done, claimed.room
    if every.without_full:
        return SeriesVerdict.NO_BASELINE
    if SeriesVerdict.UNVERIFIED in words:  # the pairs of a task compare something else than their name says
        return SeriesVerdict.UNVERIFIED
    if done is None or not done.budgets:
        return SeriesVerdict.CANNOT_TELL
    full, is_broken = done.budgets[0].mean_full, done.mean_broken is not None or done.broken_somewhere is not None
    is_shown = room is None or room.shown(claimed.rule.one_sided)
    if full <= every.margin.at(full) or (room is not None and not is_shown and room.doubtful and not is_broken):
        return SeriesVerdict.NOTHING_TO_LOSE
    if done.suite_safe == done.budgets[-1].budget:
        return SeriesVerdict.NO_TRANSITION
    is_lost = done.mean_loss is not None or done.broken_somewhere is not None
    return SeriesVerdict.TRANSITION if is_lost else SeriesVerdict.CANNOT_TELL


def _of_task(every: _Tasks, task: SuiteTask, claimed: _Claimed) -> dict[str, Any]:
    """What tasks_json holds of one task: its own verdict, and where the worst task's bound is told its own bound."""
    own, done = task.verdict(claimed.series), claimed.done
    need = next((need for need in done.needs if need.task == task.task.name), None) if done else None
    told = next((at for at in done.told.tasks if at.task == task.task.name), None) if done and done.told else None
    room = (own.detail.get("floor") if own else None) or {}
    return {
        "task": task.task.name,
        "dataset_id": task.task.dataset_id,
        "look": task.task.look,
        "verdict": own.verdict if own else SeriesVerdict.CANNOT_TELL,
        "no_evidence": bool(own and own.has_no_evidence),
        "safe": own.safe_budget if own else None,
        "broken": own.broken if own else None,
        "acc_full": own.acc_full if own else None,
        "n": own.n if own else 0,
        "n_contexts": told.test.n_clusters if told else None,
        "drop": round(told.test.drop, 9) if told and told.test.n else None,
        "bound": round(told.upper, 9) if told else None,
        "is_open": need.is_open if need else None,
        "n_needed": need.n_needed if need else None,
        "headroom": room.get("headroom"),
        "lengths": task.at_lengths(claimed.series),
    }


def _method(question: Question, every: _Tasks, claimed: _Claimed) -> dict[str, Any]:
    analysis = question.analysis
    names = [task.task.name for task in every.tasks]
    method: dict[str, Any] = {
        "tests": paired_tests.METHOD,
        "alpha": analysis.alpha,
        "margin": analysis.margin,
        "margin_kind": analysis.margin_kind,
        "guard": analysis.guard,
        "level": claimed.rule.one_sided,
        "role": claimed.role,
        "weights": "tasks, their bins and the examples of a bin weigh equally",
        "stored_tasks": len(question.tasks) + len(question.unrun),
        "told": claimed.done.told.budget if claimed.done and claimed.done.told else None,
        "first_open": claimed.done.first_open.budget if claimed.done and claimed.done.first_open else None,
        "n": min((row.test.n for row in claimed.done.budgets), default=0) if claimed.done else 0,
        "shares_contexts": claimed.done.shares_contexts if claimed.done else None,
        "without_full": every.without_full,
        "without_series": [t.task.name for t in every.tasks if claimed.series not in t.group.series],
    }
    if every.share < 1:
        method |= {"look": max(task.task.look for task in every.tasks), "alpha_share": every.share}
    if claimed.room is not None:
        method["floor"] = claimed.room.as_json | {"shown": claimed.room.shown(claimed.rule.one_sided)}
    counted = {task.task.dataset_id: task.group.samples for task in every.tasks}
    if other := question.planned.suite_otherwise(analysis, _series(every.tasks)[0], names, counted):
        method["samples"] = sorted(set(counted.values()))
        method |= {"planned": other, "aggregate": analysis.aggregate, "metric": analysis.metric or "the tasks' own"}
    return method
