"""The plan of an experiment: margin, guard, alpha, metric, tasks, answers to each example and first series as its first
session had them, before any data.

A margin that is chosen after the data is no margin: whoever may move it can prove any budget safe. Other values are
allowed at analysis, and named beside the verdict.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from kvt_async.contract.command_line.run_folder import MOST_YAML
from kvt_async.contract.settings import Analysis

_SESSIONS = (
    "SELECT session_id, started_at, config_sha256, shard_i, shard_n FROM sessions "
    "WHERE exp_group_id = ? AND generation = ? ORDER BY started_at, rowid"
)

_SAMPLES = (
    "SELECT dataset_id, max(samples) FROM sample_plans WHERE exp_group_id = ? AND generation = ? AND created_at < ? "
    "GROUP BY 1"
)


@dataclass(frozen=True)
class DeclaredPlan:
    """None: the first session's config doesn't say; without a `metric` it meant the task's own.

    samples: answers to each example, by dataset_id of the tasks that it had.
    """

    margin: float | None = None
    margin_kind: str | None = None
    alpha: float | None = None
    series: str | None = None
    metric: str | None = None
    aggregate: str | None = None
    guard: float | None = None
    tasks: tuple[str, ...] = ()  # empty: not known
    samples: Mapping[str, int] = field(default_factory=dict)

    def otherwise(
        self, analysis: Analysis, series: str | None, own_metric: str, samples: Mapping[str, int]
    ) -> dict[str, float | str]:
        """What the plan said where the analysis says something else, by name. samples: answers to each example that
        count, by dataset_id."""
        metric = self.metric or own_metric if self.margin is not None else None
        stated = {
            "margin": self.margin,
            "margin_kind": self.margin_kind,
            "alpha": self.alpha,
            "series": self.series,
            "metric": metric,
            "aggregate": self.aggregate,
        }
        used = {
            "margin": analysis.margin,
            "margin_kind": analysis.margin_kind,
            "alpha": analysis.alpha,
            "series": series,
            "metric": analysis.metric or own_metric,
            "aggregate": analysis.aggregate,
        }
        other = {name: value for name, value in stated.items() if value is not None and value != used[name]}
        if numbers := {n for key, n in self.samples.items() if samples.get(key, n) != n}:
            other["samples"] = answers(numbers)
        return other

    def suite_otherwise(
        self, analysis: Analysis, series: str, tasks: Sequence[str], samples: Mapping[str, int]
    ) -> dict[str, float | str]:
        """The same of a verdict over these tasks."""
        other = self.otherwise(analysis, series, "the tasks' own", samples)
        if self.guard is not None and self.guard != analysis.guard:
            other["guard"] = self.guard
        left = [name for name in self.tasks if name not in tasks]
        added = [name for name in tasks if name not in self.tasks]
        if self.tasks and (left or added):
            parts = (("without", left), ("and in addition", added))
            other["tasks"] = ", ".join(f"{word} {', '.join(names)}" for word, names in parts if names)
        return other


NOTHING = DeclaredPlan()


def plan_of(facts: sqlite3.Connection, exp_group_id: str, generation: int) -> DeclaredPlan:
    """What the first session of a generation planned.

    The first series is the first of the runs that it created, the metric the task's own unless its config named one.
    """
    sessions = facts.execute(_SESSIONS, (exp_group_id, generation)).fetchall()
    if not sessions:
        return NOTHING
    config = facts.execute("SELECT config_yaml FROM sessions WHERE session_id = ?", (sessions[0][0],)).fetchone()[0]
    before = _second_start(sessions)
    row = facts.execute(
        "SELECT series FROM runs WHERE exp_group_id = ? AND generation = ? AND NOT is_full "
        "AND kv_policy <> 'full' AND created_at < ? "
        "ORDER BY repeat_idx, level_idx, series, kv_budget DESC LIMIT 1",
        (exp_group_id, generation, before),
    ).fetchone()
    analysis = _analysis(config)
    metric = analysis.get("metric")
    margin, kind = _number(analysis.get("margin")), analysis.get("margin_kind", "absolute")
    aggregate = analysis.get("aggregate", "mean")
    tasks = facts.execute(
        "SELECT task, dataset_id FROM task_contracts WHERE exp_group_id = ? AND generation = ? AND created_at < ? "
        "ORDER BY created_at, task",
        (exp_group_id, generation, before),
    ).fetchall()
    samples = dict(facts.execute(_SAMPLES, (exp_group_id, generation, before)).fetchall())
    chosen = analysis.get("tasks")
    named = [name for name, _ in tasks if not isinstance(chosen, list) or name in chosen]
    return DeclaredPlan(
        margin=margin,
        margin_kind=kind if margin is not None and isinstance(kind, str) else None,
        alpha=_number(analysis.get("alpha")),
        series=row[0] if row else None,
        metric=metric if isinstance(metric, str) else None,
        aggregate=aggregate if margin is not None and isinstance(aggregate, str) else None,
        guard=_number(analysis.get("guard")),
        tasks=tuple(named),
        samples={dataset_id: samples.get(dataset_id, 1) for _, dataset_id in tasks},
    )


def _second_start(sessions: Sequence[tuple[str, str, str, int | None, int | None]]) -> str:
    """When the first session began that was not planned together with the very first: its own, and of the same config
    the first of each other shard. Later than any time where there is none."""
    _, _, config, _, n = sessions[0]
    begun: set[int | None] = set()
    for _, started_at, config_sha256, shard_i, shard_n in sessions:
        if shard_i in begun or (config_sha256, shard_n) != (config, n):
            return started_at
        begun.add(shard_i)
    return "~"


def answers(numbers: Iterable[int]) -> str:
    """Numbers of answers, e.g. '2 answers', or '1, 4 answers' where tasks differ."""
    told = sorted(set(numbers))
    return f"{', '.join(str(n) for n in told)} {'answer' if told == [1] else 'answers'}"


def sentences(asked: dict[str, Any], series: str) -> str:
    """What an analysis was asked for (`Verdict.asked`) and `DeclaredPlan.otherwise` in it, in words, each as a sentence
    of its own; empty where the plan was kept.
    """
    planned = {name: value for name, value in asked.get("planned", {}).items() if name != "tasks"}
    used = {"series": series, "metric": asked.get("metric", "")}
    used["margin_kind"] = asked.get("margin_kind", "absolute")
    used["aggregate"] = asked.get("aggregate", "mean")
    used |= {name: f"{asked[name]:g}" for name in ("margin", "guard", "alpha") if name in planned}
    counted = asked.get("samples", 1)
    used["samples"] = answers([counted] if isinstance(counted, int) else counted)
    what = {
        "margin": "The margin of",
        "margin_kind": "That the margin is",
        "alpha": "The alpha of",
        "series": "The first series",
        "metric": "The metric",
        "aggregate": "The aggregate",
        "guard": "The guard of",
        "samples": "Scoring each example by",
    }
    of_tasks = asked.get("planned", {}).get("tasks")
    chosen = [f"The tasks were chosen after the data: those of the plan {of_tasks}."] if of_tasks else []
    return " ".join(
        chosen
        + [
            f"{what[name]} {used[name]} was chosen after the data; the plan said "
            f"{value if isinstance(value, str) else f'{value:g}'}."
            for name, value in planned.items()
        ]
    )


def _analysis(text: str) -> dict[str, Any]:
    """The config's section; {} where the stored text is no config."""
    try:
        loaded = yaml.safe_load(text) if len(text) <= MOST_YAML else None
    except (yaml.YAMLError, RecursionError, ValueError):  # the database may be anybody's
        return {}
    section = loaded.get("analysis") if isinstance(loaded, dict) else None
    return section if isinstance(section, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
