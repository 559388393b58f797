"""The part of `bench.workload` that is about conversations: how long they are, and how long a user thinks."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from kvt_async.contract.config_section import Section
from kvt_async.contract.lengths import check_values

MOST_TURNS = 10_000  # of a conversation
Pause = Annotated[float, Field(ge=0, le=86_400)]


class ThinkTimes(Section):
    """A distribution of seconds between the end of a turn and the start of the next. `low` and `high` bound every kind
    (draws outside are drawn again).

    Short forms: a number is fixed, a list is drawn from, {low, high} is uniform, {mean} exponential, {mean, std}
    lognormal.
    """

    kind: Literal["fixed", "uniform", "exponential", "lognormal", "list"] = "fixed"
    value: Pause = 0  # fixed: every one; exponential, lognormal: the mean
    std: Pause = 0  # lognormal: of the times themselves
    low: Pause = 0
    high: Pause = 86_400
    values: list[Pause] | None = None  # list: drawn from, with `weights`
    weights: list[Annotated[float, Field(ge=0)]] | None = None

    @staticmethod
    def long_form(value: Any, below: Any, default: Any) -> Any:
        """What `value` stands for, as keys of this section: see Lengths.long_form."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {**default, "kind": "fixed", "value": value}
        if isinstance(value, list):
            return {**default, "kind": "list", "values": value}
        if not isinstance(value, Mapping) or "kind" in value or ("mean" in value and "value" in value):
            return value
        given = {"value" if key == "mean" else key: part for key, part in value.items()}
        if "mean" in value:
            return {**default, "kind": "lognormal" if "std" in value else "exponential", **given}
        if "values" in value:
            return {**default, "kind": "list", **given}
        return {**default, "kind": "uniform", **given} if set(given) == {"low", "high"} else given

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        return value if isinstance(value, cls) else cls.long_form(value, None, {})

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "ThinkTimes":
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        check_values(self.kind, self.values, self.weights)
        if self.kind == "uniform" and "high" not in self.model_fields_set:
            raise ValueError("uniform needs low and high")
        if self.kind in ("exponential", "lognormal") and not self.value > 0:
            raise ValueError(f"{self.kind} needs a value, its mean, above 0")
        if self.kind not in ("uniform", "list") and not self.low <= self.value <= self.high:
            raise ValueError(f"value {self.value:g} lies outside of low {self.low:g} and high {self.high:g}")
        return self
