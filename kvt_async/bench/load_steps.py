"""What load a stage puts on the server, and how it is called everywhere."""

from dataclasses import dataclass
from typing import Literal

from kvt_async.contract.bench_settings import Bench

Begun = Literal["requests", "conversations"]


@dataclass(frozen=True, slots=True)
class Load:
    """Open loop at a rate, or closed loop with so many in flight; exactly one of the two is set."""

    rate_per_s: float | None = None
    concurrency: int | None = None
    arrival: Literal["constant", "poisson", "gamma"] = "poisson"  # open loop
    burstiness: float = 1.0  # gamma: shape of the gaps
    of: Begun = "requests"  # what begins at the rate, or keeps a place

    @property
    def is_open(self) -> bool:
        return self.rate_per_s is not None

    @property
    def size(self) -> float:
        """Rate or concurrency: what a ladder climbs."""
        return self.rate_per_s if self.rate_per_s is not None else float(self.concurrency or 0)

    @property
    def label(self) -> str:
        """'rate 4/s', 'rate 4/s constant', 'rate 4/s gamma 0.5', 'concurrency 16'; of conversations 'rate 0.5
        conversations/s', '16 users'."""
        talks = self.of == "conversations"
        if self.rate_per_s is None:
            users = "1 user" if self.concurrency == 1 else f"{self.concurrency} users"
            return users if talks else f"concurrency {self.concurrency}"
        kind = {"poisson": "", "constant": " constant", "gamma": f" gamma {self.burstiness:g}"}[self.arrival]
        return f"rate {self.rate_per_s:g}{' conversations' if talks else ''}/s{kind}"


def load_of(bench: Bench, size: float, *, is_open: bool) -> Load:
    """A load of the config's kind; rates are rounded to four figures, so that labels say what was sent."""
    of: Begun = "requests"
    if bench.workload.kind == "conversations":
        of = "conversations"
    if not is_open:
        return Load(concurrency=max(1, round(size)), of=of)
    return Load(rate_per_s=float(f"{size:.4g}"), arrival=bench.arrival, burstiness=bench.burstiness, of=of)
