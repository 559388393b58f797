"""Figures as JSON: what derived rows hold and --json prints."""

import json
import math
from typing import Any

from analyzer.bench.figures.slo import Finding
from analyzer.bench.figures.spread import Estimate

Json = dict[str, Any]


def objective_json(finding: Finding) -> Json:
    """An objective as it was judged."""
    return {
        "name": finding.objective.name,
        "limit_s": finding.objective.limit_s,
        "seen_s": finite(finding.value_s),
        "verdict": finding.verdict,
        "n": finding.n,
        "n_beyond": finding.n_beyond,
        "n_needed": finding.n_needed,
        "n_unknown": finding.n_unknown,
    }


def estimate_json(estimate: Estimate) -> Json:
    """A figure with its interval; of a rate that can't be told, why."""
    names = ("value", "low", "high")
    figure: Json = {**{name: finite(getattr(estimate, name)) for name in names}, "method": estimate.method}
    if estimate.reason is not None:
        figure |= {"reason": estimate.reason, "n_needed": estimate.n_needed}
    return figure


def finite(value: float | None) -> float | None:
    """The value, or None where JSON has no number for it."""
    return value if value is not None and math.isfinite(value) else None


def dumps(value: object) -> str:
    return json.dumps(value, sort_keys=True)
