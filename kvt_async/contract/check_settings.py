"""The `check` section of the config: what `kvt check` asserts of a sweep or of a bench."""

from collections.abc import Sequence
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from kvt_async.contract.config_section import Section

BENCH_KINDS: Final = ("max_latency", "min_rate", "max_failures")
_ABOUT_BUDGETS = ("budget", "series", "bins", "high", "model", "task")
_ABOUT_LOADS = ("metric", "stat", "value_ms", "what", "load", "level")
_OF_KIND: Final = {  # of a bench: what a kind takes beside load and level; all of it is needed
    "max_latency": ("metric", "stat", "value_ms"),
    "min_rate": ("what", "value"),
    "max_failures": ("value",),
}


class Assertion(Section):
    """One assertion of `kvt check`.

    With `task`, of that task of the group alone. `baseline`: full cache scores within [value, high]; with `model`, only
    where model.name is that one. The kinds of a bench hold for its loads, or for the one that `load` names.
    """

    name: str
    kind: Literal[
        "not_better_than_full",
        "no_failures",
        "min_accuracy",
        "max_fail_rate",
        "flag_gains",
        "baseline",
        "max_drop",
        "max_latency",
        "min_rate",
        "max_failures",
    ]
    budget: float | None = None
    series: str | None = None
    bins: list[int] | None = None
    value: Annotated[float, Field(allow_inf_nan=False)] | None = None
    high: float | None = None
    model: str | None = None
    task: str | None = None
    metric: Literal["ttft", "ttfb", "tpot", "itl", "latency"] | None = None
    stat: Literal["mean", "p50", "p90", "p95", "p99"] | None = None
    value_ms: Annotated[float, Field(gt=0, le=1e12)] | None = None
    what: Literal["requests", "output_tokens", "goodput"] | None = None
    load: str | None = None  # as the report calls it, `concurrency 16`; null: all loads, of min_rate the best of them
    level: str | None = None  # of a bench with levels; null: all

    @property
    def is_of_bench(self) -> bool:
        return self.kind in BENCH_KINDS

    @model_validator(mode="after")
    def _baseline_is_a_range(self) -> "Assertion":
        if self.kind == "baseline" and (
            self.value is None or self.high is None or not 0 <= self.value < self.high <= 1
        ):
            raise ValueError("baseline needs value (low) and high, 0 <= value < high <= 1")
        if self.kind == "baseline" and (self.budget is not None or self.series is not None):
            raise ValueError("baseline is about full cache: leave out budget and series")
        if self.kind != "baseline" and any(given is not None for given in (self.high, self.model)):
            raise ValueError(f"high and model belong to baseline, not to {self.kind}")
        return self

    @model_validator(mode="after")
    def _has_what_its_kind_takes(self) -> "Assertion":
        if self.kind == "max_drop" and (self.value is None or not 0 <= self.value < 1):
            raise ValueError("max_drop needs value, the drop that is allowed: 0 <= value < 1")
        if not self.is_of_bench:
            of_either = ("load", "level") if self.kind == "max_drop" else ()
            self._refuse([name for name in _ABOUT_LOADS if name not in of_either], "a bench")
            return self
        takes = _OF_KIND[self.kind]
        self._refuse(_ABOUT_BUDGETS, "a sweep")
        self._refuse([name for name in (*_ABOUT_LOADS[:4], "value") if name not in takes], "another kind")
        if lacks := [name for name in takes if getattr(self, name) is None]:
            raise ValueError(f"{self.kind} needs {' and '.join(lacks)}")
        if self.kind == "max_failures" and not 0 <= (self.value or 0) < 1:
            raise ValueError("max_failures takes a share of the requests: 0 <= value < 1")
        if self.kind == "min_rate" and not (self.value or 0) > 0:
            raise ValueError("min_rate needs a value above 0, per second")
        return self

    def _refuse(self, names: Sequence[str], owner: str) -> None:
        if given := [name for name in names if getattr(self, name) is not None]:
            raise ValueError(f"{' and '.join(given)} belong to {owner}, not to {self.kind}")
