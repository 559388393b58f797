"""Rates of steps under known servers: how often what is said of a step is so.

    python scripts/bench/steps.py --runs 500

A server with 20 places for requests of 2 s in the mean (10 requests/s), first come first served. Open steps of 60 s,
Poisson; closed steps of 60 s. Lengths equal, or uniform from a quarter to seven quarters of the mean.
"""

import argparse
import heapq
import math

import numpy as np

from kvt_async.bench.arrivals import shaped_offsets_ns
from kvt_async.bench.load_steps import Load
from kvt_async.contract.formulas.request_lives import Floats, Lives
from kvt_async.contract.formulas.step_throughput import of_step
from kvt_async.contract.load_shape import Leg, LoadShape

PLACES, MEAN_S, STEP_S, WARM_UP = 20, 2.0, 60.0, 20
CAPACITY = PLACES / MEAN_S


def lengths(rng: np.random.Generator, n: int, kind: str) -> Floats:
    """Seconds of service."""
    return np.full(n, MEAN_S) if kind == "equal" else rng.uniform(0.25, 1.75, n) * MEAN_S


def lives_of(due: Floats, service: Floats) -> Lives:
    """First come first served at PLACES places."""
    free: list[float] = [0.0] * PLACES
    end = np.empty(len(due))
    for n, (at, length) in enumerate(zip(due, service, strict=True)):
        end[n] = max(at, heapq.heappop(free)) + length
        heapq.heappush(free, end[n])
    tokens = 100 * service / MEAN_S
    return Lives(
        begin=due,
        end=end,
        finished=end,
        first=end - 0.8 * service,
        ok=np.ones(len(due), dtype=bool),
        measured=np.arange(len(due)) >= WARM_UP,
        input_tokens=np.full(len(due), 100.0),
        output_tokens=tokens,
        arrival_s=end,
        arrival_of=np.arange(len(due)),
        spread=False,
    )


def open_steps(rates: tuple[float, ...], kind: str, runs: int) -> list[dict[str, float]]:
    """By step, shares of runs: rate covered by its interval, called behind (kept up below 95%, proven), not told."""
    shape = LoadShape("steps", tuple(Leg(rate, rate, STEP_S) for rate in rates))
    counts = [{"covered": 0, "behind": 0, "untold": 0} for _ in rates]
    for run in range(runs):
        rng = np.random.default_rng([run, len(rates)])
        n = int(shape.area * 1.3)
        load = Load(rate_per_s=shape.highest, shape=shape)
        due = shaped_offsets_ns(load, WARM_UP, range(n), (run,)) / 1e9
        zero = due[WARM_UP - 1]
        due = due[due <= zero + shape.seconds]
        lives = lives_of(due, lengths(rng, len(due), kind))
        for step, rate in enumerate(rates):
            low, high = zero + step * STEP_S + MEAN_S, zero + (step + 1) * STEP_S
            seen = of_step(lives, low, high, None)
            if seen.reason is not None:
                counts[step]["untold"] += 1
                continue
            inside = (due >= low) & (due < high)
            true = CAPACITY if rate > CAPACITY else (inside.sum() - 1) / (due[inside][-1] - due[inside][0])
            below, above = seen.requests.interval(0.05)
            counts[step]["covered"] += below <= true <= above
            counts[step]["behind"] += seen.kept_up.bound(0.975) < 0.95
    return [{name: value / runs for name, value in one.items()} for one in counts]


def closed_steps(users: tuple[int, ...], kind: str, runs: int) -> list[dict[str, float]]:
    """By step, of a server that never slows: rate covered by its interval (users / mean life), not told."""
    counts = [{"covered": 0, "behind": 0, "untold": 0} for _ in users]
    for run in range(runs):
        rng = np.random.default_rng([run, 77])
        begins, ends = [], []
        for place in range(max(users)):
            at = 0.0
            while at < STEP_S * len(users):
                step = int(at // STEP_S)
                if users[step] <= place:
                    at = (step + 1) * STEP_S
                    continue
                begins.append(at)
                at += float(lengths(rng, 1, kind)[0])
                ends.append(at)
        order = np.argsort(begins, kind="stable")
        begin, end = np.array(begins)[order], np.array(ends)[order]
        n = np.arange(len(begin))
        flat = np.full(len(begin), 100.0)
        ok = np.ones(len(begin), dtype=bool)
        lives = Lives(begin, end, end, end, ok, ok, flat, 100 * (end - begin) / MEAN_S, end, n, False)
        for step, places in enumerate(users):
            seen = of_step(lives, step * STEP_S + MEAN_S, (step + 1) * STEP_S, places)
            counts[step]["untold"] += seen.reason is not None
            if seen.reason is None:
                below, above = seen.requests.interval(0.05)
                counts[step]["covered"] += below <= places / MEAN_S <= above
    return [{name: value / runs for name, value in one.items()} for one in counts]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=500)
    runs = parser.parse_args().runs
    print("| loop, lengths | steps | covered | behind, proven | cannot tell |\n|---|---|---|---|---|")
    for kind in ("equal", "uniform"):
        for rates in ((4.0, 8.0, 4.0), (4.0, 20.0, 4.0)):
            show(f"open, {kind}", "/s", rates, open_steps(rates, kind, runs))
        show(f"closed, {kind}", " in flight", (4.0, 16.0, 4.0), closed_steps((4, 16, 4), kind, runs))


def show(title: str, unit: str, sizes: tuple[float, ...], cells: list[dict[str, float]]) -> None:
    for size, cell in zip(sizes, cells, strict=True):
        told = 1 - cell["untold"]
        covered = cell["covered"] / told if told else math.nan
        print(f"| {title} | {size:g}{unit} | {covered:.1%} | {cell['behind']:.1%} | {cell['untold']:.1%} |")


if __name__ == "__main__":
    main()
