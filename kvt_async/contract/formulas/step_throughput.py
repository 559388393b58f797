"""The rates of one step of a load that changes: the estimators of a steady load, over the step's own stretch.

Open loop: what the server's debt is measured against are requests at the stage's head, at its first rate; the step's
requests are those due in it, less a margin at its beginning in which the server takes up the new rate. Debt left by
an earlier step can only fall in a later one, which no server is blamed for (share kept up with at most 1).

Closed loop: Little's law over the requests that begin in the step, after a life in which every place of it has been
taken up. Both need what a load of its own would: requests, latencies or rounds; else nothing is told.
Simulations: scripts/bench/steps.py, docs/BENCH.md, "Steps and ramps".
"""

from dataclasses import replace

import numpy as np

from kvt_async.contract.formulas.open_loop_throughput import open_loop
from kvt_async.contract.formulas.request_lives import Bools, Lives
from kvt_async.contract.formulas.throughput import Throughput, closed_loop, nothing


def of_step(lives: Lives, begins_s: float, ends_s: float, concurrency: int | None) -> Throughput:
    """`lives`: all requests of the window; the step is looked at from `begins_s` (its margin left out) to `ends_s`, on
    the window's clock. `concurrency`: of the step; None: open loop."""
    known = _until(lives, lives.begin < ends_s)
    inside = (known.begin >= begins_s) & known.measured
    if inside.sum() < 2:
        return nothing("fewer than two requests fell into the step", None, n=int(inside.sum()))
    if concurrency is None:
        return open_loop(replace(known, measured=inside))
    return closed_loop(known, concurrency, begins_s, ends_s)


def _until(lives: Lives, keep: Bools) -> Lives:
    """The same without the requests that are not kept."""
    place = np.cumsum(keep) - 1
    arrivals = keep[lives.arrival_of]
    return replace(
        lives,
        begin=lives.begin[keep],
        end=lives.end[keep],
        finished=lives.finished[keep],
        first=lives.first[keep],
        ok=lives.ok[keep],
        measured=lives.measured[keep],
        input_tokens=lives.input_tokens[keep],
        output_tokens=lives.output_tokens[keep],
        arrival_s=lives.arrival_s[arrivals],
        arrival_of=place[lives.arrival_of[arrivals]],
    )
