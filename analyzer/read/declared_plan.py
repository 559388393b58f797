"""The plan of an experiment: margin, alpha, metric and first series as its first session had them, before any data.

A margin that is chosen after the data is no margin: whoever may move it can prove any budget safe. Other values are
allowed at analysis, and named beside the verdict.
"""

import sqlite3
from dataclasses import dataclass
from typing import Any

import yaml

from kvt_async.contract.command_line.run_folder import MOST_YAML
from kvt_async.contract.settings import Analysis

_FIRST_TWO = (
    "SELECT config_yaml, started_at FROM sessions WHERE exp_group_id = ? AND generation = ? "
    "ORDER BY started_at, rowid LIMIT 2"
)


@dataclass(frozen=True)
class DeclaredPlan:
    """None: the first session's config doesn't say; without a `metric` it meant the task's own."""

    margin: float | None = None
    margin_kind: str | None = None
    alpha: float | None = None
    series: str | None = None
    metric: str | None = None

    def otherwise(self, analysis: Analysis, series: str | None, own_metric: str) -> dict[str, float | str]:
        """What the plan said where the analysis says something else, by name."""
        metric = self.metric or own_metric if self.margin is not None else None
        stated = {
            "margin": self.margin,
            "margin_kind": self.margin_kind,
            "alpha": self.alpha,
            "series": self.series,
            "metric": metric,
        }
        used = {
            "margin": analysis.margin,
            "margin_kind": analysis.margin_kind,
            "alpha": analysis.alpha,
            "series": series,
            "metric": analysis.metric or own_metric,
        }
        return {name: value for name, value in stated.items() if value is not None and value != used[name]}


NOTHING = DeclaredPlan()


def plan_of(facts: sqlite3.Connection, exp_group_id: str, generation: int) -> DeclaredPlan:
    """What the first session of a generation planned.

    The first series is the first of the runs that it created, the metric the task's own unless its config named one.
    """
    sessions = facts.execute(_FIRST_TWO, (exp_group_id, generation)).fetchall()
    if not sessions:
        return NOTHING
    before = sessions[1][1] if len(sessions) > 1 else "~"  # later than any time
    row = facts.execute(
        "SELECT series FROM runs WHERE exp_group_id = ? AND generation = ? AND NOT is_full AND created_at < ? "
        "ORDER BY repeat_idx, level_idx, series, kv_budget DESC LIMIT 1",
        (exp_group_id, generation, before),
    ).fetchone()
    analysis = _analysis(sessions[0][0])
    metric = analysis.get("metric")
    margin, kind = _number(analysis.get("margin")), analysis.get("margin_kind", "absolute")
    return DeclaredPlan(
        margin=margin,
        margin_kind=kind if margin is not None and isinstance(kind, str) else None,
        alpha=_number(analysis.get("alpha")),
        series=row[0] if row else None,
        metric=metric if isinstance(metric, str) else None,
    )


def sentences(asked: dict[str, Any], series: str) -> str:
    """What an analysis was asked for (`Verdict.asked`) and `DeclaredPlan.otherwise` in it, in words, each as a sentence
    of its own; empty where the plan was kept.
    """
    planned = asked.get("planned", {})
    used = {"series": series, "metric": asked.get("metric", "")}
    used["margin_kind"] = asked.get("margin_kind", "absolute")
    used |= {name: f"{asked[name]:g}" for name in ("margin", "alpha") if name in planned}
    what = {
        "margin": "The margin of",
        "margin_kind": "That the margin is",
        "alpha": "The alpha of",
        "series": "The first series",
        "metric": "The metric",
    }
    return " ".join(
        f"{what[name]} {used[name]} was chosen after the data; the plan said "
        f"{value if isinstance(value, str) else f'{value:g}'}."
        for name, value in planned.items()
    )


def _analysis(text: str) -> dict[str, Any]:
    """The config's section; {} where the stored text is no config."""
    try:
        loaded = yaml.safe_load(text) if len(text) <= MOST_YAML else None
    except yaml.YAMLError:
        return {}
    section = loaded.get("analysis") if isinstance(loaded, dict) else None
    return section if isinstance(section, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
