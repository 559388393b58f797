"""What this machine's client can do at most, and whether a plan asks for more.

Measured with the bench itself (client, store and all) against the null server, kept per host, Python, transport and
loop. {requests_per_s, output_events_per_s, streams (kept up with), streams_clean (and the verdict was clean),
streams_is_least, ttft_floor_ms: {p50, p99}, measured_at, ...}.
"""

import hashlib
import math
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson

from kvt_async.bench.load_steps import Load
from kvt_async.contract.errors import GuardError
from kvt_async.contract.paths import user_cache
from kvt_async.contract.settings import Settings
from kvt_async.engine.transport.local_lacks import check_files
from kvt_async.records import Json
from kvt_async.senders.shares import usable_cores

WARN, REFUSE = 0.5, 1.0


def cache_file(settings: Settings) -> Path:
    """The file that keeps the ceilings: in the user's cache folder, one per way of sending."""
    engine = settings.engine
    key = (
        platform.node(),
        platform.machine(),
        os.cpu_count(),
        platform.python_version(),
        engine.transport,
        engine.loop,
    )
    digest = hashlib.sha256(orjson.dumps(key)).hexdigest()[:12]
    return user_cache() / f"calibration-{digest}.json"


def cached(settings: Settings) -> Json | None:
    """The ceilings as last measured on this host; None: never, or unreadable."""
    try:
        ceilings = orjson.loads(cache_file(settings).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return ceilings if isinstance(ceilings, dict) and "requests_per_s" in ceilings else None


def of_processes(ceilings: Json | None, n: int) -> Json | None:
    """What `n` processes can do at best: each as much as the one that was measured, where it has a core of its own."""
    if ceilings is None or n == 1:
        return ceilings
    most = min(n, usable_cores())
    rates = ("requests_per_s", "output_events_per_s", "streams", "streams_clean")
    return {**ceilings, **{name: ceilings[name] * most for name in rates}, "processes": n}


def keep(settings: Settings, ceilings: Json) -> Path:
    """Write the ceilings; return where."""
    path = cache_file(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(ceilings, option=orjson.OPT_INDENT_2))
    return path


def share(settings: Settings, load: Load, output_tokens: float, ceilings: Json | None) -> Json | None:
    """How much of the client's ceiling a load takes: {share, of, needs, ceiling, sentence}; None: no ceiling is known.

    Events a second are reckoned as one an output token; how long a closed loop's requests take nobody knows before.
    """
    if ceilings is None:
        return None
    asks: list[tuple[str, str, float, float]] = []
    if load.requests_per_s is not None:
        asks.append(("requests_per_s", "requests/s", load.requests_per_s, ceilings["requests_per_s"]))
        if settings.engine.stream:
            events = load.requests_per_s * output_tokens
            asks.append(("output_events_per_s", "events/s", events, ceilings["output_events_per_s"]))
    else:
        asks.append(("streams", "streams", float(load.concurrency or 1), float(ceilings["streams"])))
    name, unit, needs, ceiling = max(asks, key=lambda ask: ask[2] / ask[3])
    n = ceilings.get("processes", 1)
    at_best = "" if n == 1 else f" with {n} processes at best"
    sentence = f"it asks {needs:.4g} {unit} of this client, whose ceiling here is {ceiling:.4g}{at_best}"
    return {"share": needs / ceiling, "of": name, "needs": needs, "ceiling": ceiling, "sentence": sentence}


def guard(
    settings: Settings,
    output_tokens: float,
    loads: Sequence[Load],
    ceilings: Json | None,
    force: bool,
    say: Callable[[str], None],
    processes: int = 1,
) -> None:
    """Warn above half of the ceiling; raise GuardError above it, unless `force`, and for more connections at once than
    a process may open, with which the client's own refusals would count as the server's."""
    most = max((load.concurrency or 0 for load in loads), default=0)
    check_files(math.ceil(most / processes), "bench", "Ask for at most {most} in flight")
    if ceilings is None:
        say("note: what this machine's client can do is not known; `kvt bench calibrate` measures it")
        return
    for load in loads:
        needs = share(settings, load, output_tokens, ceilings)
        if needs is None or needs["share"] <= WARN:
            continue
        if needs["share"] <= REFUSE or force:
            say(f"warning: {load.label}: {needs['sentence']}: look at the client's verdict before you believe a figure")
            continue
        raise GuardError(
            f"{load.label} would measure this client, not the server: {needs['sentence']}",
            where="bench",
            do="Ask for less, send from a bigger machine, or pass --force. `kvt bench calibrate --fresh` measures the "
            "ceiling again; engine.transport: lean and engine.loop: volume raise it.",
        )
