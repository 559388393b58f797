"""Are the rates of a bench right? kvt's own functions on simulated runs of servers whose speed is known.

    python scripts/bench/throughput.py [--runs 2000] [--only closed open ladders] [--all] [--seed 1]

Servers (_servers.py): `free` never slows, whatever the load; `fifo` and `shared` work on so many at once, the others
wait or all share; noise, stalls of the whole server, failures. A cell fails when the exact one-sided 99.9% bound of
what was seen excludes its bar: within 3% in 99% of runs (free servers, from 12 rounds, against places / mean life of
what was sent), 95% intervals that hold the long-run rate in 93%, false plateaus and knees in at most 2.5% of ladders, a
known capacity found in 90%. --all runs every cell (2,000 runs: hours), else the defaults alone.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from _servers import LATENCY, TOKENS, Server, closed_runs, open_runs

from analyzer.bench.figures.distributions import binomial_cdf
from analyzer.bench.figures.saturation import LoadZone, keeping_up, plateau
from kvt_async.bench.ladder import Done, broken_rule
from kvt_async.bench.load_steps import Load
from kvt_async.bench.request_counts import wanted
from kvt_async.contract.bench_settings import Bench
from kvt_async.contract.formulas.open_loop_throughput import open_loop
from kvt_async.contract.formulas.throughput import Rate, Throughput, closed_loop

WITHIN, IN_TIME, COVERAGE, FALSE, FOUND = 0.03, 0.99, 0.93, 0.025, 0.90
ALPHA = 0.05
BLOCK = 100
SERVERS = {
    "free": Server(),
    "free, noise 0.2": Server(noise=0.2),
    "stalls": Server(stalls_per_latency=1, stall=0.2),
    "failures 20%": Server(fails=0.2),
    "fifo": Server("fifo", 24),
    "shared": Server("shared", 24),
}
LENGTHS = ("equal", "uniform", "heavy")


@dataclass
class Cell:
    """What came of the runs of one cell."""

    runs: int
    told: int = 0
    errors: list[float] = field(default_factory=list)  # of the value, against what was drawn
    long_run: list[float] = field(default_factory=list)  # and against the long run
    held: list[bool] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)  # upper bound / value - 1

    def add(self, rate: Rate, truth: float, drawn: float) -> None:
        low, high = rate.interval(ALPHA)
        self.told += 1
        self.errors.append(rate.value / drawn - 1)
        self.long_run.append(rate.value / truth - 1)
        self.held.append(low <= truth <= high)
        self.widths.append(high / rate.value - 1 if rate.value > 0 else math.inf)

    def row(self, *, exact: bool) -> tuple[list[str], bool]:
        """(cells of the table, whether its bars hold); `exact`: it has to be within 3% of what was drawn."""
        if not self.told:
            return ["0%", *["-"] * 7], True
        errors, widths = np.abs(self.errors), np.array(self.widths)
        near = int((errors <= WITHIN).sum())
        fine = may_be(sum(self.held), self.told, COVERAGE) and (not exact or may_be(near, self.told, IN_TIME))
        cells = [
            f"{self.told / self.runs:.0%}",
            f"{near / self.told:.1%}",
            f"{errors.max():.1%}",
            f"{np.mean(self.long_run):+.2%}",
            f"{np.std(self.long_run):.2%}",
            f"{np.mean(self.held):.1%}",
            f"{np.median(widths):.1%}",
            f"{np.quantile(widths, 0.99):.1%}",
        ]
        return [*cells, "" if fine else "FAILS"], fine


def may_be(hits: int, n: int, bar: float) -> bool:
    """Whether so many hits are possible, at 99.9%, where the bar holds."""
    return binomial_cdf(hits, n, bar) >= 0.001


def closed(runs: int, seed: int, *, every: bool) -> bool:
    print("\n## Closed loop: requests/s\n")
    print(HEAD.format("server, lengths, C, N, warm-up"))
    fine = True
    for name, server in SERVERS.items():
        for kind in LENGTHS:
            for places in (1, 8, 64, 256) if every else (8, 64):
                if server.places and places <= server.places:
                    continue
                default = max(100, 12 * places)
                sizes = {default}
                if every and places < 256:
                    sizes |= {places, 2 * places, 4 * places, 12 * places, 50 * places}
                for n in sorted(sizes):
                    for rounds in (0, 1) if every else (1,):
                        cell = _closed_cell(server, places, n, rounds, kind, runs, seed)
                        exact = server == SERVERS["free"] and kind != "heavy" and n >= 12 * places
                        row, ok = cell.row(exact=exact)
                        label = f"{name}, {kind}, {places}, {n}{' (default)' if n == default else ''}, {rounds}"
                        print(f"| {label} | {' | '.join(row)} |", flush=True)
                        fine &= ok
    return fine


HEAD = (
    "| {} | told | within 3% of the draw | worst | mean against the long run | deviation | coverage | upper bound "
    "above the value, p50 | p99 | |\n|---|---|---|---|---|---|---|---|---|---|"
)


def _closed_cell(server: Server, places: int, n: int, rounds: int, kind: str, runs: int, seed: int) -> Cell:
    cell, rng = Cell(runs), np.random.default_rng([seed, places, n, rounds])
    truth = server.capacity(places) * (1 - server.fails)
    for lives, begin, end in chain.from_iterable(
        closed_runs(server, places, n, rounds * places, kind, block, rng) for block in _blocks(runs)
    ):
        found = closed_loop(lives, places, begin, end)
        if found.reason is not None:
            continue
        drawn = truth
        if server == SERVERS["free"]:
            mine = (lives.begin >= max(begin, lives.begin[places])) & (lives.begin < end)
            drawn = places / float((lives.end - lives.begin)[mine].mean())
        cell.add(found.requests, truth, drawn)
    return cell


def opened(runs: int, seed: int, *, every: bool) -> bool:
    """Rates below and beyond a server's capacity; told against what arrived, or what the server can do."""
    print("\n## Open loop: requests/s\n")
    print(HEAD.format("server, lengths, rate x latency, N, warm-up"))
    fine = True
    cases: list[tuple[str, Server, float, float]] = [
        (name, server, rate, math.inf)
        for name, server in list(SERVERS.items())[:4]
        for rate in ((0.5, 5.0, 20.0) if every else (20.0,))
    ]
    for kind in ("fifo", "shared"):
        server = Server(kind, 20)  # 10 a second
        cases += [(f"{kind} at {load:.0%}", server, 10 * load, 10.0) for load in ((0.5, 0.8, 1.5) if every else (0.5,))]
    for name, server, rate, capacity in cases:
        for kind in LENGTHS:
            n = max(100, math.ceil(6 * rate * LATENCY) + 1)
            for size in (int(rate * LATENCY), 3 * n, n) if every else (n,):
                for filled in (True, False) if every else (True,):
                    warm = math.ceil(1.25 * rate * LATENCY) if filled else 0
                    cell, rng = Cell(runs), np.random.default_rng([seed, size, warm])
                    for lives in open_runs(server, rate, max(size, 1), warm, kind, runs, rng):
                        found = open_loop(lives)
                        if found.reason is None:
                            truth = min(found.arrivals.value, capacity) * (1 - server.fails)
                            cell.add(found.requests, truth, truth)
                    overloaded = rate > capacity
                    row, ok = cell.row(exact=name == "free")
                    ok |= overloaded and server.kind == "shared"  # what is finished is then no capacity
                    label = f"{name}, {kind}, {rate * LATENCY:g}, {size}, {warm}"
                    print(f"| {label} | {' | '.join(row[:-1])} | {'' if ok else 'FAILS'} |", flush=True)
                    fine &= ok
    return fine


def ladders(runs: int, seed: int, *, every: bool) -> bool:
    fine = True
    print("\n## Ladders, closed loop: 8, 16, 32, 64, 128 in flight at the default number of requests\n")
    print(
        "| server, lengths | plateau claimed | false | at the first load that gives it | capacity found (output "
        "there within 5%) | stopped by the rule too early | |\n|---|---|---|---|---|---|---|"
    )
    loads = (8, 16, 32, 64, 128)
    servers = {"free": Server(), "free, noise 0.2": Server(noise=0.2), "free, stalls": SERVERS["stalls"]}
    servers |= {f"{kind} {places}": Server(kind, places) for kind in ("fifo", "shared") for places in (24, 50)}
    for name, server in servers.items():
        for kind in LENGTHS if every else ("equal", "uniform"):
            rungs = [_rung(server, places, kind, runs, seed) for places in loads]
            found = [
                plateau([(float(c), t.output_tokens) for c, t in zip(loads, ladder, strict=True)])
                for ladder in zip(*rungs, strict=True)
            ]
            early = [_stops_early(loads, ladder, server) for ladder in zip(*rungs, strict=True)]
            fine &= _closed_ladder_row(f"{name}, {kind}", server, loads, rungs, found, early)
    print(
        "\n## Ladders, open loop: 2.5 to 20 requests/s in front of 10, numbers of requests as the defaults have them\n"
    )
    print(
        "| server, lengths | false knee (at 90% or less) | found: behind proven at the first rate beyond, and not "
        "before | |\n|---|---|---|---|"
    )
    for name, server in {"free": Server(), "fifo 20": Server("fifo", 20), "shared 20": Server("shared", 20)}.items():
        for kind in LENGTHS if every else ("equal",):
            fine &= _open_ladder_row(name, server, kind, runs, seed)
    return fine


def _rung(server: Server, places: int, kind: str, runs: int, seed: int) -> list[Throughput]:
    rng = np.random.default_rng([seed, places])
    n = wanted(Bench(), Load(concurrency=places), None)
    return [
        closed_loop(lives, places, begin, end)
        for block in _blocks(runs)
        for lives, begin, end in closed_runs(server, places, n, places, kind, block, rng)
    ]


def _blocks(runs: int) -> list[int]:
    """So many at once that they fit into memory."""
    return [min(BLOCK, runs - at) for at in range(0, runs, BLOCK)]


def _stops_early(loads: Sequence[int], ladder: Sequence[Throughput], server: Server) -> bool:
    """The stop rule held at a load up to which the server still gave more: nothing above would have been sent."""
    bench, done = Bench.model_validate({"sweep_concurrency": list(loads)}), list[Done]()
    for places, rates in zip(loads, ladder, strict=True):
        one = Done(Load(concurrency=places), 0, NO_FIGURES, rates)
        if broken_rule(bench, one, done) is not None:
            return server.kind == "free" or places <= server.places
        done.append(one)
    return False


def _closed_ladder_row(
    label: str,
    server: Server,
    loads: Sequence[int],
    rungs: Sequence[Sequence[Throughput]],
    found: Sequence[LoadZone],
    early: Sequence[bool],
) -> bool:
    n, claimed = len(found), sum(zone.seen is not None for zone in found)
    if server.kind == "free":
        false, right, near = claimed, 0, 0
    else:
        # a load gives 95% of the capacity from 0.95 x places on: there a plateau may begin, and not before
        first = next(i for i, load in enumerate(loads) if load >= 0.95 * server.places)
        false = sum(zone.seen is not None and zone.seen < loads[first] for zone in found)
        right = sum(zone.seen == loads[first] for zone in found)
        capacity, at = server.places / LATENCY * TOKENS, dict(zip(loads, rungs, strict=True))
        near = sum(
            zone.seen is not None
            and zone.seen >= loads[first]
            and abs(at[int(zone.seen)][r].output_tokens.value / capacity - 1) <= 0.05
            for r, zone in enumerate(found)
        )
    ok = (
        not exceeds(false, n, FALSE)
        and (server.kind == "free" or may_be(near, n, FOUND))
        and not exceeds(sum(early), n, FALSE)
    )
    cells = [claimed / n, false / n, right / n, near / n, sum(early) / n]
    print(f"| {label} | {' | '.join(f'{cell:.1%}' for cell in cells)} | {'' if ok else 'FAILS'} |", flush=True)
    return ok


def exceeds(hits: int, n: int, bar: float) -> bool:
    """Whether so many are impossible, at 99.9%, where they are as rare as the bar."""
    return not may_be(n - hits, n, 1 - bar)


def _open_ladder_row(name: str, server: Server, kind: str, runs: int, seed: int) -> bool:
    rates, latency = (2.5, 5.0, 9.0, 15.0, 20.0), LATENCY
    rungs: list[list[Throughput]] = []
    for rate in rates:
        n = wanted(Bench(), Load(rate_per_s=rate), latency)
        warm, rng = max(10, math.ceil(1.25 * rate * latency)), np.random.default_rng([seed, int(rate * 10)])
        rungs.append([open_loop(lives) for lives in open_runs(server, rate, n, warm, kind, runs, rng)])
        latency = max(LATENCY, float(np.nanmedian([t.latency for t in rungs[-1]])))
    found = [
        keeping_up([(rate, t.kept_up) for rate, t in zip(rates, ladder, strict=True)])
        for ladder in zip(*rungs, strict=True)
    ]
    n = len(found)
    if server.kind == "free":
        false, right = sum(zone.high is not None for zone in found), n
    else:
        false = sum(zone.high is not None and zone.high <= 9.0 for zone in found)
        right = sum(zone.high == 15.0 for zone in found)
    ok = not exceeds(false, n, FALSE) and may_be(right, n, FOUND)
    right_text = "-" if server.kind == "free" else f"{right / n:.1%}"
    print(f"| {name}, {kind} | {false / n:.1%} | {right_text} | {'' if ok else 'FAILS'} |", flush=True)
    return ok


class _NoFigures:
    """Of stages in which nothing failed and no objective is asked for."""

    error_share = 0.0


NO_FIGURES: Any = _NoFigures()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument(
        "--only", nargs="+", choices=["closed", "open", "ladders"], default=["closed", "open", "ladders"]
    )
    parser.add_argument("--all", action="store_true", help="every cell")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    parts = {"closed": closed, "open": opened, "ladders": ladders}
    results = [parts[name](given.runs, given.seed, every=given.all) for name in given.only]
    print(f"\n{given.runs} runs a cell, seed {given.seed}: {'every bar holds' if all(results) else 'some cells FAIL'}")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
