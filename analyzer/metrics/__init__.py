"""Metrics by name. A metric is a pure function (prediction, golds, example) -> score in [0, 1], or a column rule.

`em` and `f1` are computed for every outcome over whole columns (fast/overlap.py) and need no function call per row; the
others here score one answer against its golds, best over golds where the task's official script does so.
`format_ok` of a metric says whether an answer has the form the task asks for (a number, a class name, ...); metrics
without a form have none, and then no answer is a FORMAT_ERROR.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvt_async.contract.errors import ConfigError

Meta = Mapping[str, Any]
Score = Callable[[str, Sequence[str], Meta], float]
FormatOk = Callable[[str, Meta], bool]

COLUMN_METRICS = ("em", "f1")  # computed in Polars for every outcome


@dataclass(frozen=True)
class Metric:
    """A registered metric; `score` maps (answer, golds, example's meta) to [0, 1]."""

    name: str
    score: Score
    format_ok: FormatOk | None = None
    first_line: bool = False
    needs_classes: bool = False


_REGISTRY: dict[str, Metric] = {}


def metric(
    name: str, *, format_ok: FormatOk | None = None, first_line: bool = False, needs_classes: bool = False
) -> Callable[[Score], Score]:
    """Register the decorated function under `name`; a duplicate is an error.

    first_line: only the answer's first line is scored. needs_classes: meta holds the example's all_classes, else {}.
    """

    def register(function: Score) -> Score:
        if name in _REGISTRY or name in COLUMN_METRICS:
            raise ValueError(f"metric {name!r} is registered twice")
        _REGISTRY[name] = Metric(name, function, format_ok, first_line, needs_classes)
        return function

    return register


def find(name: str) -> Metric | None:
    """The metric of that name; None for `em` and `f1`, which are column rules. ConfigError for an unknown name."""
    from analyzer.metrics import choice, code, letter, qa, rouge, squad  # noqa: F401  (importing registers)

    if name in COLUMN_METRICS:
        return None
    if name not in _REGISTRY:
        raise ConfigError(
            f"no metric is called {name!r}",
            do=f"Known metrics: {', '.join(sorted([*_REGISTRY, *COLUMN_METRICS]))}.",
        )
    return _REGISTRY[name]


def best_of(score: Callable[[str, str, Meta], float]) -> Score:
    """Lift a score against one gold to the best over golds; 0.0 without golds."""

    def best(prediction: str, golds: Sequence[str], meta: Meta) -> float:
        return max((score(prediction, gold, meta) for gold in golds), default=0.0)

    return best
