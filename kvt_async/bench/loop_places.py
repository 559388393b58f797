"""The places of a closed loop whose number changes, or whose warm-up ends once every one of them has been used."""

import asyncio
import math
from collections import Counter
from dataclasses import dataclass, field

from kvt_async.contract.load_shape import LoadShape

HALF = 0.5  # a ramp from 1 to 3 in flight has its second place where it passes 1.5


@dataclass(slots=True)
class LoopPlaces:
    """Numbered from 0: place n belongs to the load while its size is at least n + 1/2. Seconds are those since the
    first measured request."""

    n: int  # at most
    shape: LoadShape | None = None  # None: all of them, all the time
    passed_s: float = 0.0  # of the shape, in earlier windows of the stage
    warm_up_times: int | None = None  # so often each is used in the warm-up; None: the warm-up is a number of requests
    begun: asyncio.Event = field(default_factory=asyncio.Event)  # the first measured request
    _used: Counter[int] = field(default_factory=Counter)

    def wait_s(self, place: int, since_begun_s: float | None) -> float:
        """Seconds until a place is one of the load's: 0 now, inf never again, NaN not before the first measured request
        (None: it has not begun)."""
        if self.shape is None:
            return 0.0
        if since_begun_s is None:
            return 0.0 if place < self.at_first else math.nan
        now = self.passed_s + since_begun_s
        return 0.0 if now >= self.shape.seconds else next_time(self.shape, place, now) - now

    @property
    def at_first(self) -> int:
        """How many send while it warms up."""
        return self.n if self.shape is None else n_places(self.shape, self.passed_s)

    def gave_back(self, place: int) -> None:
        """A request of this place has ended."""
        self._used[place] += 1

    @property
    def is_warm(self) -> bool:
        """Whether each has been used, and given back, as often as the warm-up asks."""
        times = self.warm_up_times
        return times is None or all(self._used[place] >= times for place in range(self.at_first))


def n_places(shape: LoadShape, seconds: float) -> int:
    """How many places a shape has at an instant."""
    return int(shape.size_at(seconds) + HALF)


def next_time(shape: LoadShape, place: int, now: float) -> float:
    """The first instant from `now` on at which a place belongs to the load; inf: none."""
    least, begins = place + HALF, 0.0
    for leg in shape.legs:
        ends = begins + leg.for_s
        if ends > now:
            at = max(begins, now)
            slope = (leg.end - leg.start) / leg.for_s
            if leg.start + slope * (at - begins) >= least:
                return at
            if leg.end >= least:
                return begins + (least - leg.start) / slope
        begins = ends
    return math.inf
