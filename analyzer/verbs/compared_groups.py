"""Any number of experiment groups (models, servers, dates) in one table: tasks x series x budgets down, groups across.

The first group is the one that every other is held against, paired where examples match. Differences are adjusted
(Holm) over all of them together, so that a mark in a large table means as much as one in a small one.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

import polars as pl

from analyzer.results.number_format import listed
from analyzer.results.text_table import Table, table
from analyzer.stage_answers import Json, StageAnswer
from analyzer.stats.holm import holm
from analyzer.verbs.compare import ALPHA, CompareAnswer, ComparedGroup, compared, read_group
from kvt_async.contract.errors import ConfigError, ContractMismatchError, MissingPrerequisiteError
from kvt_async.contract.vocabulary import FULL

MARK = "*"  # of a difference from the first group that is proven


@dataclass(frozen=True)
class ComparedRow:
    """One task at one level in every group: accuracies, in the order of the groups; None: it was not run there.

    diff: the group minus the first one, over the examples that both have; proven: it is no chance, adjusted (Holm).
    """

    task: str
    series: str
    kv_budget: float
    accuracy: list[float | None]
    diff: list[float | None]
    proven: list[bool]


@dataclass(frozen=True)
class MeanRow:
    """The mean over `mean_tasks` at one level, in the order of the groups; None: a task of them was not run there."""

    series: str
    kv_budget: float
    accuracy: list[float | None]


@dataclass(frozen=True)
class SafeRow:
    """What each group may do with a series: its safe budget over all tasks of its last analysis; None: none is
    proven safe, or it is not analysed."""

    series: str
    safe_budget: list[float | None]
    analysed: list[bool]


@dataclass(frozen=True)
class GroupsAnswer(StageAnswer):
    """Groups by name, the table of all, each held against the first (`pairs`), and why some could not be.

    mean_tasks: the tasks that every group has, `apart` left out; means: the mean over them, where they are several.
    """

    groups: list[str]
    rows: list[ComparedRow]
    pairs: list[CompareAnswer]
    apart: dict[str, str]
    mean_tasks: list[str]
    means: list[MeanRow]
    safe: list[SafeRow]

    @property
    def table(self) -> Table:
        """Groups across; a mark where a difference from the first one is proven."""
        several = len({row.task for row in self.rows}) > 1
        return table(
            [
                {
                    **({"Task": row.task} if several else {}),
                    "Series": row.series,
                    "Budget": f"{row.kv_budget:g}",
                    **{
                        name: "-" if value is None else f"{value:.3f}{MARK if proven else ''}"
                        for name, value, proven in zip(self.groups, row.accuracy, row.proven, strict=True)
                    },
                }
                for row in self.rows
            ],
            text_columns=2 if several else 1,
            note=self.note,
        )

    @property
    def note(self) -> str:
        return (
            f"Accuracy. {MARK}: differs from {self.groups[0]} beyond chance, over the examples that both have "
            f"(paired, 95%, adjusted by Holm over the whole table)."
        )

    @property
    def summary(self) -> Table:
        """Groups across, tasks together: the mean at each level, and what each group may do."""
        means = [
            (
                "Mean",
                row.series,
                f"{row.kv_budget:g}",
                ["-" if mean is None else f"{mean:.3f}" for mean in row.accuracy],
            )
            for row in self.means
        ]
        safe = [
            (
                "Safe budget",
                row.series,
                "",
                [
                    "-" if not analysed else "none proven" if budget is None else f"{budget:g}"
                    for budget, analysed in zip(row.safe_budget, row.analysed, strict=True)
                ],
            )
            for row in self.safe
        ]
        return table(
            [
                {"What": what, "Series": series, "Budget": budget, **dict(zip(self.groups, cells, strict=True))}
                for what, series, budget, cells in means + safe
            ],
            text_columns=2,
            note=self.summary_note,
        )

    @property
    def summary_note(self) -> str:
        mean = f"Mean: of the accuracies of {listed(self.mean_tasks)}; no difference is tested. " if self.means else ""
        return (
            f"{mean}Safe budget: of each group's last analysis, the smallest that is proven safe with all above it, "
            "over all tasks of that analysis. -: not analysed, or not run."
        )

    @property
    def remarks(self) -> list[str]:
        """What differs between the groups, and what speaks against one of them."""
        lines = []
        for pair in self.pairs:
            lines += [f"{pair.b}: READ SHORT: {what}" for what in pair.read_short]
            lines += [f"{pair.b}: DRIFT: {what}" for what in pair.drift]
            lines += [f"{pair.b}: {key}: {b!r}, in {pair.a} {a!r}" for key, (a, b) in pair.differs.items()]
            lines += [
                f"{pair.b}: series only in {name}: {', '.join(series)}"
                for name, series in zip((pair.a, pair.b), pair.series_only, strict=True)
                if series
            ]
        return lines + [f"{name} is not held against {self.groups[0]}: {why}" for name, why in self.apart.items()]

    @property
    def lines(self) -> list[str]:
        summary = ["", *columns_of_text(self.summary), self.summary_note, ""] if self.summary.rows else []
        return [*columns_of_text(self.table), self.note, *summary, *self.remarks]

    def json(self) -> Json:
        return asdict(self)


def columns_of_text(shown: Table) -> list[str]:
    """A table for a terminal: figures to the right, a rule beneath the head."""
    rows = [shown.head, *shown.rows]
    widths = [max(len(row[at]) for row in rows) for at in range(len(shown.head))]
    lines = [
        "  ".join(
            f"{cell:<{width}}" if at < shown.text_columns else f"{cell:>{width}}"
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]]


def compare_groups(
    places: Sequence[Path], conns: Sequence[sqlite3.Connection], *, allow_drift: bool = False
) -> CompareAnswer | GroupsAnswer:
    """Two groups as `compare` sets them side by side, or more in one table; `places` tell apart groups of one name.

    Raises ConfigError for fewer than two, and what `compared` raises where nothing can be compared at all.
    """
    if len(conns) < 2:
        raise ConfigError("one group is nothing to compare", where="kvt compare", do="Name two run folders, or more.")
    groups = [read_group(conn) for conn in conns]
    names = [group.name for group in groups]
    groups = [
        replace(group, name=f"{group.name} ({place})") if names.count(group.name) > 1 else group
        for group, place in zip(groups, places, strict=True)
    ]
    if len(groups) == 2:
        return compared(groups[0], groups[1], allow_drift=allow_drift)
    pairs: dict[str, CompareAnswer] = {}
    apart: dict[str, str] = {}
    for group in groups[1:]:
        try:
            pairs[group.name] = compared(groups[0], group, allow_drift=allow_drift)
        except (ContractMismatchError, MissingPrerequisiteError) as error:
            apart[group.name] = "; ".join([error.what, *error.details])
    if not pairs:
        raise MissingPrerequisiteError(
            f"nothing can be compared with {groups[0].name}", details=tuple(f"{n}: {why}" for n, why in apart.items())
        )
    rows = _rows(groups, pairs)
    held = [group.tasks for group in groups if group.name not in apart]
    mean_tasks = [task for task in held[0] if all(task in tasks for tasks in held)]
    return GroupsAnswer(
        [group.name for group in groups],
        rows,
        list(pairs.values()),
        apart,
        mean_tasks,
        _means(rows, mean_tasks) if len(mean_tasks) > 1 else [],
        [
            SafeRow(series, [group.safe.get(series) for group in groups], [series in group.safe for group in groups])
            for series in dict.fromkeys(series for group in groups for series in group.series if series != FULL)
        ],
    )


def _means(rows: Sequence[ComparedRow], tasks: Sequence[str]) -> list[MeanRow]:
    """Over tasks of equal weight; only of the same tasks in every group, or the means would differ by the choice."""
    levels: dict[tuple[str, float], list[list[float | None]]] = {}
    for row in rows:
        if row.task in tasks:
            levels.setdefault((row.series, row.kv_budget), []).append(row.accuracy)
    means = []
    for (series, budget), of_tasks in levels.items():
        of_groups = [[value for value in column if value is not None] for column in zip(*of_tasks, strict=True)]
        means.append(
            MeanRow(series, budget, [fmean(values) if len(values) == len(tasks) else None for values in of_groups])
        )
    return means


def _rows(groups: Sequence[ComparedGroup], pairs: dict[str, CompareAnswer]) -> list[ComparedRow]:
    found = {
        (name, level.task or next(iter(groups[0].tasks)), level.series, level.kv_budget): level
        for name, pair in pairs.items()
        for level in pair.levels
    }
    adjusted = dict(zip(found, holm([level.p for level in found.values()]), strict=True))
    places = dict.fromkeys(
        (task, *level) for group in groups for task, levels in group.tasks.items() for level in levels.scores
    )
    rows = []
    for task, series, budget in places:
        keys = [(group.name, task, series, budget) for group in groups]
        diffs = [found[key].diff if key in found else None for key in keys]
        rows.append(
            ComparedRow(
                task,
                series,
                budget,
                [_accuracy(group, task, series, budget) for group in groups],
                [None if diff is None else -diff for diff in diffs],
                [key in adjusted and adjusted[key] <= ALPHA for key in keys],
            )
        )
    return rows


def _accuracy(group: ComparedGroup, task: str, series: str, budget: float) -> float | None:
    """Equal-weight mean over the length bins of all that the group was asked."""
    levels = group.tasks.get(task)
    scores = levels.scores.get((series, budget)) if levels else None
    if levels is None or scores is None:
        return None
    of_bins = scores.join(levels.entries, on="example_id").group_by("bin_idx").agg(pl.col("score").mean())
    mean = of_bins["score"].mean()
    return float(mean) if isinstance(mean, int | float) else None
