"""Loads of a bench that change as a stage runs: `bench.ramp` and `bench.steps`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from kvt_async.contract.config_section import Seconds, Section
from kvt_async.contract.load_shape import Leg, LoadShape

Size = Annotated[float, Field(ge=0, le=1e9)]
MOST_STEPS = 1000


class Ramp(Section):
    """A load that grows (or falls) in a straight line, and then holds until bench.duration_s is over."""

    of: Literal["rate", "concurrency"] = "rate"  # requests a second (open loop) or requests in flight (closed loop)
    start: Size = 1  # `from` is the same key
    to: Size = 10
    over_s: Seconds | None = None  # null: bench.duration_s

    @staticmethod
    def long_form(value: Any, _below: Any, _default: Any) -> Any:
        """`from` is how people write `start`."""
        if isinstance(value, Mapping) and "from" in value and "start" not in value:
            return {"start" if key == "from" else key: part for key, part in value.items()}
        return value

    @model_validator(mode="before")
    @classmethod
    def _from_is_start(cls, value: Any) -> Any:
        return cls.long_form(value, None, None)

    @model_validator(mode="after")
    def _goes_somewhere(self) -> "Ramp":
        if self.start == self.to:
            raise ValueError(f"it goes from {self.start:g} to {self.to:g}: that is one {self.of}, not a ramp")
        if self.of == "concurrency" and not (_is_places(self.start) and _is_places(self.to)):
            raise ValueError(f"requests in flight are whole numbers from 1 on: {self.start:g} to {self.to:g} are none")
        return self

    def shape(self, duration_s: float | None) -> LoadShape:
        """Its legs. `duration_s`: of the whole stage, where one is asked. Raises ValueError."""
        over = self.over_s if self.over_s is not None else duration_s
        if over is None:
            raise ValueError("bench.ramp needs over_s (or --duration): how long it takes to get there")
        hold = 0.0 if duration_s is None else duration_s - over
        if hold < 0:
            raise ValueError(f"bench.ramp takes {over:g} s, and bench.duration_s ends it after {duration_s:g} s")
        legs = [Leg(self.start, self.to, over)] + ([Leg(self.to, self.to, hold)] if hold > 0 else [])
        return LoadShape("ramp", tuple(legs))


class LoadStep(Section):
    """One of several loads in a row, without a break between them."""

    rate: Annotated[float, Field(gt=0, le=1e9)] | None = None  # requests a second (open loop)
    concurrency: Annotated[int, Field(ge=1, le=1_000_000)] | None = None  # or requests in flight (closed loop)
    for_s: Seconds

    @model_validator(mode="after")
    def _one_size(self) -> "LoadStep":
        if (self.rate is None) == (self.concurrency is None):
            raise ValueError("a step has a rate or a concurrency, one of the two")
        return self

    @property
    def size(self) -> float:
        return self.rate if self.rate is not None else float(self.concurrency or 1)


def steps_shape(steps: list[LoadStep]) -> LoadShape:
    """The legs of steps. Raises ValueError where they are not of one kind."""
    if not 2 <= len(steps) <= MOST_STEPS:
        raise ValueError(f"bench.steps needs 2 to {MOST_STEPS:,} steps, and has {len(steps)}")
    if len({step.rate is None for step in steps}) > 1:
        raise ValueError("bench.steps are all of a rate or all of a concurrency")
    return LoadShape("steps", tuple(Leg(step.size, step.size, step.for_s) for step in steps))


def _is_places(size: float) -> bool:
    return size >= 1 and size == int(size) and size <= 1_000_000
