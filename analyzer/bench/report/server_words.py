"""What the servers say of their load, caches and drafts, as people read it: cells, the terminal's lines, warnings."""

import math
from collections.abc import Sequence

from analyzer.bench.figures.points import Point
from analyzer.bench.figures.stage_results import StageResult
from analyzer.bench.read.server_side import ServerSide
from analyzer.bench.report.numbers import ms, plain

UNTOLD = "-"
NOTE = (
    "By the server's own metrics page, over a whole stage, warm-up included; '-': it doesn't say. Queue in ms; running "
    "and waiting requests at the readings of the page; a draft's tokens hold the model's own next one."
)


def cells(result: StageResult) -> dict[str, str]:
    """One stage, title by title; UNTOLD where the servers say nothing. Empty: they say nothing at all."""
    side = result.server
    if side is None:
        return {}
    queue, drafting = side.histograms.get("queue"), side.drafting
    return {
        "Queue mean": ms(queue.mean) if queue else UNTOLD,
        "Queue p99": ms(queue.p99) if queue else UNTOLD,
        "Running mean": _gauge(side, "running", "mean"),
        "Running max": _gauge(side, "running", "maximum"),
        "Waiting max": _gauge(side, "waiting", "maximum"),
        "Preempted": _count(side.counters.get("preemptions")),
        "Paused max": _gauge(side, "paused", "maximum"),
        "KV cache used, max": _share(side.gauges["kv_usage"].maximum) if "kv_usage" in side.gauges else UNTOLD,
        "Prompt cached": _share(side.cached_share),
        "Drafted tokens accepted": _share(drafting.acceptance) if drafting else UNTOLD,
        "Tokens a draft": _number(drafting.accepted_length) if drafting else UNTOLD,
        "Draft length": _number(drafting.draft_length) if drafting else UNTOLD,
        "Accepted by place": _places(drafting.by_position) if drafting else UNTOLD,
        "Not ours": _count(side.of_others),
    }


_ON_SCREEN = {  # title of a cell -> head on a terminal
    "Queue mean": "queue ms",
    "Queue p99": "p99",
    "Running max": "running",
    "Waiting max": "waiting",
    "Preempted": "preempted",
    "KV cache used, max": "KV max",
    "Prompt cached": "cached",
    "Drafted tokens accepted": "accepted",
    "Tokens a draft": "tok/draft",
}


def screen_rows(named: Sequence[tuple[str, StageResult]]) -> list[list[str]]:
    """The terminal's table, heads first; empty where no server says anything of it."""
    told = [(name, row) for name, result in named if (row := cells(result))]
    titles = [title for title in _ON_SCREEN if any(row[title] != UNTOLD for _, row in told)]
    if not titles:
        return []
    heads = ["the server says", *(_ON_SCREEN[title] for title in titles)]
    return [heads, *([name, *(row[title] for title in titles)] for name, row in told)]


def warnings(points: Sequence[Point]) -> list[str]:
    """A sentence each about the loads where a server ran out of KV cache, began anew, or served others too."""
    took_back, full, others, begun_anew = [], [], [], []
    for point in points:
        sides = [result.server for result in point.results if result.server is not None]
        if n := sum(side.took_back for side in sides):
            took_back.append(f"{point.load} ({n:,.0f} requests)")
        elif any(side.kv_is_full for side in sides):
            full.append(point.load)
        if any(side.n_restarts for side in sides):
            begun_anew.append(point.load)
        if n := sum(side.of_others or 0 for side in sides):
            others.append(f"{point.load} ({n:,} requests)")
        elif n := sum(side.tokens_of_others or 0 for side in sides if side.of_others is None):
            others.append(f"{point.load} ({n:,} tokens)")
    sentences = {
        "the server took the KV cache of running requests back at {}: latencies there are those of a cache that is too "
        "small for the load.": took_back,
        "the server's KV cache was full at {}: requests there waited for room in it.": full,
        "a server was started again during {}: it was empty and cold then.": begun_anew,
        "the server was not alone with this bench: it answered others at {}.": others,
    }
    return ["WARNING: " + text.format(", ".join(loads)) for text, loads in sentences.items() if loads]


def remarks(point: Point) -> list[str]:
    """What is to be known of one load's figures."""
    n = sum(result.server.n_restarts for result in point.results if result.server is not None)
    again = "" if n == 1 else f" {n} times"
    return [f"At {point.load} a server's counters began anew{again}: it was started again meanwhile."] if n else []


def _gauge(side: ServerSide, name: str, stat: str) -> str:
    return plain(getattr(side.gauges[name], stat)) if name in side.gauges else UNTOLD


def _count(value: float | None) -> str:
    return UNTOLD if value is None else f"{value:,.0f}"


def _share(value: float) -> str:
    return UNTOLD if math.isnan(value) else f"{value:.0%}"


def _number(value: float) -> str:
    return UNTOLD if math.isnan(value) else f"{value:.2f}"


def _places(shares: Sequence[float]) -> str:
    return ", ".join(f"{share:.0%}" for share in shares) or UNTOLD
