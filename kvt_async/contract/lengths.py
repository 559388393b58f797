"""A distribution of lengths in tokens, in its long form and in the short ones that people write."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from kvt_async.contract.config_section import Section

MOST_TOKENS = 10_000_000  # of a prompt or a reply
Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
_FORMS = "128, [128, 256], {low: 1, high: 9}, {mean: 300, std: 50}, or {kind: ...}"


def check_values(kind: str, values: Sequence[float] | None, weights: Sequence[float] | None) -> None:
    """Raises ValueError where what a distribution draws from does not fit its kind, or its weights don't fit that."""
    if (kind == "list") != (values is not None):
        raise ValueError("values belongs to kind: list, and a list needs values")
    if values is not None and not values:
        raise ValueError("values is empty")
    if weights is not None and (values is None or len(weights) != len(values)):
        raise ValueError("weights needs values, one weight each")
    if weights is not None and sum(weights) <= 0:
        raise ValueError("weights are all 0")


class Lengths(Section):
    """A distribution of lengths in tokens. `low` and `high` bound every kind (draws outside are drawn again).

    Short forms: a number is fixed, a list is drawn from, {low, high} is uniform, {mean, std} normal (lognormal with
    kind: lognormal).
    """

    kind: Literal["fixed", "uniform", "normal", "lognormal", "list"] = "fixed"
    value: Tokens = 128  # fixed: every one; normal, lognormal: the mean
    std: Annotated[float, Field(ge=0, le=MOST_TOKENS)] = 0  # normal, lognormal: of the lengths themselves
    low: Tokens = 1
    high: Tokens = 1_000_000
    values: list[Tokens] | None = None  # list: drawn from, with `weights`
    weights: list[Annotated[float, Field(ge=0)]] | None = None

    @staticmethod
    def long_form(value: Any, below: Any, default: Any) -> Any:
        """What `value` stands for, as keys of this section. `below`: what it will be laid over; `default`: the
        section's own, from which a short form starts, so that it is what its long form would be in its place."""
        if isinstance(value, str) and value.strip().isdigit():  # a variable that was filled in
            value = int(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {**default, "kind": "fixed", "value": value}
        if isinstance(value, list):
            return {**default, "kind": "list", "values": value}
        if not isinstance(value, Mapping) or ("mean" in value and "value" in value):
            return value
        given = {"value" if key == "mean" else key: part for key, part in value.items()}
        if "kind" in given:
            return given if "mean" not in value else {**default, **given}
        if "mean" in value:
            return {**default, "kind": "normal" if "std" in value else "fixed", **given}
        if "values" in value:
            return {**default, "kind": "list", **given}
        over = below.get("kind") if isinstance(below, Mapping) else None
        if set(given) == {"low", "high"} and over in (None, "fixed"):
            return {**default, "kind": "uniform", **given}
        return given

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, cls):
            return value
        long = cls.long_form(value, None, {})
        if not isinstance(long, Mapping):
            raise ValueError(f"lengths are written as {_FORMS}")
        return long

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "Lengths":
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        check_values(self.kind, self.values, self.weights)
        if self.kind in ("fixed", "normal", "lognormal") and not self.low <= self.value <= self.high:
            raise ValueError(f"value {self.value} lies outside of low {self.low} and high {self.high}")
        if self.kind == "uniform" and self.high >= 1_000_000:
            raise ValueError("uniform needs low and high")
        return self
