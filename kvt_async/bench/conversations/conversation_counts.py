"""How many conversations a stage holds, and how long one lasts: what loads, warm-up and `requests: auto` go by."""

import math
from dataclasses import dataclass

from kvt_async.bench.arrivals import n_within
from kvt_async.bench.conversations.conversation_plan import ConversationPlan
from kvt_async.bench.load_steps import Load
from kvt_async.contract.bench_settings import Bench
from kvt_async.contract.formulas.throughput import WANTED_LATENCIES, WANTED_REQUESTS, WANTED_ROUNDS


@dataclass(frozen=True, slots=True)
class ConversationCounts:
    """Of the conversations of one repeat; counts are of turns, those of whole conversations."""

    plan: ConversationPlan
    mean_turns: float
    mean_think_s: float
    repeat: int

    def span_s(self, latency_s: float) -> float:
        """Seconds of a mean conversation whose turns take `latency_s` each."""
        return self.mean_turns * latency_s + (self.mean_turns - 1) * self.mean_think_s

    def sizes(self, bench: Bench, load: Load, span_s: float | None) -> tuple[int, int | None]:
        """(turns that warm up, measured turns) of a stage; None: as many as go in bench.duration_s."""
        n_warm_up = self._warm_up(bench, load, span_s)
        n_measured = self._measured(bench, load, n_warm_up, span_s)
        start = n_measured or 0
        turns = self.plan.first(self.plan.turn_of(start).conversation + n_warm_up) - start
        return turns, n_measured

    def _measured(self, bench: Bench, load: Load, n_warm_up: int, span_s: float | None) -> int | None:
        if bench.duration_s is not None:
            if not load.is_open:
                return None
            return self.plan.first(n_within(load, n_warm_up, bench.duration_s, (bench.seed, self.repeat)))
        if bench.requests != "auto":
            return self.plan.whole(bench.requests)
        n = self.needed(load, span_s)
        return self.plan.first(n if load.rate_per_s is None else max(1, min(n, int(load.rate_per_s * bench.max_s))))

    def needed(self, load: Load, span_s: float | None) -> int:
        """Conversations that the rates need: 12 rounds of a closed loop, 6 spans of an open one, and as many as have
        100 turns."""
        least = math.ceil(WANTED_REQUESTS / self.mean_turns)
        if load.rate_per_s is None:
            return max(least, WANTED_ROUNDS * (load.concurrency or 1))
        return max(least, math.ceil(WANTED_LATENCIES * load.rate_per_s * (span_s or 0.0)) + 1)

    def _warm_up(self, bench: Bench, load: Load, span_s: float | None) -> int:
        """Conversations that warm up: in open loop until as many are under way as the rate keeps under way, in closed
        loop bench.warm_up.rounds for every user; at least as many as have bench.warm_up.requests turns."""
        least = math.ceil(bench.warm_up.requests / self.mean_turns)
        if load.rate_per_s is None:
            return max(least, bench.warm_up.rounds * (load.concurrency or 0))
        if least == 0 or span_s is None:
            return least
        return max(least, math.ceil(bench.warm_up.latencies * load.rate_per_s * span_s))
