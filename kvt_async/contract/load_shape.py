"""A load that changes as a stage runs: legs, each of which goes from one size to another in a straight line.

A ramp is a leg that rises or falls (and one that holds its end), steps are legs of one size each. Sizes are requests a
second in an open loop, requests in flight in a closed one; seconds count from the first measured instant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Leg:
    """From size `start` to size `end`, over `for_s` seconds."""

    start: float
    end: float
    for_s: float

    @property
    def area(self) -> float:
        """Of an open loop: how many requests fall due in it, in the mean."""
        return (self.start + self.end) / 2 * self.for_s


@dataclass(frozen=True)
class LoadShape:
    """The legs of a stage, in their order."""

    kind: Literal["ramp", "steps"]
    legs: tuple[Leg, ...]

    @property
    def seconds(self) -> float:
        return sum(leg.for_s for leg in self.legs)

    @property
    def first(self) -> float:
        return self.legs[0].start

    @property
    def highest(self) -> float:
        return max(max(leg.start, leg.end) for leg in self.legs)

    @property
    def area(self) -> float:
        return sum(leg.area for leg in self.legs)

    @property
    def rises(self) -> bool:
        """Whether the size never falls."""
        return all(leg.end >= leg.start for leg in self.legs) and all(
            after.start >= before.end for before, after in zip(self.legs, self.legs[1:], strict=False)
        )

    def size_at(self, seconds: float) -> float:
        """The size at an instant; before the first leg and after the last it is held."""
        begins = 0.0
        for leg in self.legs:
            if seconds < begins + leg.for_s:
                return leg.start + (leg.end - leg.start) * max(seconds - begins, 0.0) / leg.for_s
            begins += leg.for_s
        return self.legs[-1].end

    def as_json(self) -> dict[str, Any]:
        """What `bench_stages.plan_json` keeps of it."""
        return {"kind": self.kind, "legs": [[leg.start, leg.end, leg.for_s] for leg in self.legs]}

    @classmethod
    def of_json(cls, kept: Mapping[str, Any]) -> "LoadShape":
        """The inverse of `as_json`."""
        return cls(kept["kind"], tuple(Leg(*map(float, leg)) for leg in kept["legs"]))


def words(shape: LoadShape, *, is_open: bool) -> str:
    """'ramp 1 to 20/s over 60 s, then 30 s', 'steps 2, 8, 2/s of 30 s', 'ramp 1 to 64 in flight over 60 s'."""
    unit = "/s" if is_open else " in flight"
    if shape.kind == "ramp":
        rise, hold = shape.legs[0], shape.legs[1:]
        then = f", then {_s(sum(leg.for_s for leg in hold))}" if hold else ""
        return f"ramp {rise.start:g} to {rise.end:g}{unit} over {_s(rise.for_s)}{then}"
    return f"steps {step_words(shape.legs, unit)}"


def step_words(legs: Sequence[Leg], unit: str) -> str:
    """Sizes alone where all steps are equally long."""
    if len({leg.for_s for leg in legs}) == 1:
        return f"{', '.join(f'{leg.start:g}' for leg in legs)}{unit} of {_s(legs[0].for_s)}"
    return ", ".join(f"{leg.start:g}{unit} {_s(leg.for_s)}" for leg in legs)


def _s(seconds: float) -> str:
    return f"{seconds:g} s"
