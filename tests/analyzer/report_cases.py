"""What differs between two databases of the report's tests: series, budgets, bins, and the degenerate cases by name.

Numbers come from closed formulas (accuracy as a function of budget and kept tokens), not from a simulated pipeline.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

GROUP, DATASET, WHEN = "demo", "kvtext__retrieval", "2026-01-02T03:04:05.000Z"
BUDGETS = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
EDGES = ((128, 240), (241, 480), (481, 860), (861, 1400), (1401, 2048))
BYTES_PER_TOKEN = 4 * 2 * 2 * 32 * 4
Curve = Callable[[float, int], float]  # (budget, prompt tokens) -> accuracy


def cliff(kept_tokens: float) -> Curve:
    return lambda budget, tokens: 1 / (1 + math.exp(-(budget * tokens - kept_tokens) / (kept_tokens * 0.12)))


def line(budget: float, tokens: int) -> float:
    return budget


def steep(budget: float, tokens: int) -> float:
    return budget**4


@dataclass(frozen=True)
class Series:
    """One series; `acc` overrides the curve, `verdict` the verdict that the curve would give."""

    name: str
    curve: Curve
    policy: str = "snapkv"
    mode: str = "question_aware"
    evidence: str = "verified"
    verdict: str | None = None
    fail: Curve = lambda budget, tokens: 0.0


DEMO = (
    Series("snapkv/aware", cliff(48)),
    Series("snapkv/agnostic", lambda b, t: 0.9 * b**1.2 + 0.1 * (b == 1), mode="question_agnostic"),
    Series("streaming_llm", line, policy="streaming_llm"),
    Series("random", steep, policy="random"),
)


@dataclass
class Rows:
    """Everything that differs between two test databases."""

    series: Sequence[Series] = DEMO
    budgets: Sequence[float] = BUDGETS
    edges: Sequence[tuple[int, int]] = EDGES
    n: int = 80
    unit: str = "fraction"
    empty_bin: int | None = None
    baseline: bool = True
    control_flips: int | None = 0
    pending: int = 0
    cached: float | None = 0.98
    client: str = "client-clean"
    error_bound_ms: float = 0.42
    full_acc: float = 0.996
    margin: float = 0.05
    fail_full: float = 0.0
    canary: str = "alive"
    notes: tuple[str, ...] = ()
    level: float = 0.025
    runs: list[dict[str, Any]] = field(default_factory=list)


SNAPKV = Series("snapkv/aware", cliff(48))
SMALL: dict[str, Any] = {"series": (SNAPKV,), "budgets": (1.0, 0.5, 0.2), "edges": EDGES[:2], "n": 10}
DEGENERATE: dict[str, dict[str, Any]] = {
    "one_bin": {**SMALL, "edges": EDGES[:1]},
    "one_budget": {**SMALL, "budgets": (1.0, 0.5)},
    "full_cache_only": {**SMALL, "budgets": (1.0,), "series": ()},
    "one_example": {**SMALL, "n": 1, "series": (Series("snapkv/aware", cliff(48), verdict="cannot_tell"),)},
    "all_failed": {
        **SMALL,
        "fail_full": 1.0,
        "full_acc": 0.0,
        "series": (Series("snapkv/aware", cliff(48), fail=lambda b, t: 1.0, verdict="nothing_to_lose"),),
    },
    "partial": {**SMALL, "pending": 3},
    "unverified": {**SMALL, "series": (Series("snapkv/aware", cliff(48), evidence="unverified"),)},
    "dead_knob": {
        **SMALL,
        "canary": "dead",
        "series": (Series("snapkv/aware", lambda b, t: 1.0, evidence="unverified"),),
    },
    "second_look": {
        **SMALL,
        "level": 0.00625,
        "notes": (
            "look 2: examples may be added after an analysis, so this one's claims spend 1/4 of alpha; intervals are "
            "shown at their usual level",
            "ceiling: full cache is always right here, so a smaller cache can only lose",
        ),
    },
    "close_budgets": {
        **SMALL,
        "n": 80,
        "edges": EDGES,
        "series": DEMO,
        "budgets": (1.0, 0.95, 0.9, 0.85, 0.8, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01),
    },
    "no_baseline": {**SMALL, "baseline": False},
    "empty_bin": {**SMALL, "empty_bin": 1},
    "token_caps": {**SMALL, "unit": "tokens", "budgets": (512.0, 128.0, 32.0)},
    "many_series": {**SMALL, "series": tuple(Series(f"series {i}", cliff(30 + 4 * i)) for i in range(9))},
    "tiny_budgets": {**SMALL, "budgets": (1.0, 0.5, 0.1, 0.02, 0.01)},
}
