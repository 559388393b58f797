"""How far the figures of a bench can be believed: the second sentence of its verdict."""

import math
from collections.abc import Sequence

from analyzer.bench.figures.points import BOUND_SHARE, HEADLINES, Point
from analyzer.bench.figures.spread import FEWEST_REPEATS
from analyzer.bench.read import length_check
from analyzer.bench.read.applied_budget import UNPROVEN, of_all
from analyzer.bench.read.request_metrics import TITLES
from analyzer.bench.report.numbers import ms
from kvt_async.contract.vocabulary import CacheState, ClientVerdict

WARNING = " (WARNING: these are not figures of prompts that the server has not seen)"


def trust(points: Sequence[Point]) -> str:
    """How far the figures of one level's loads hold: what was other than asked, the client's own part, the cache, what
    failed."""
    parts = [*_lengths(points), *_answers(points), client_part(points), _cache(points)]
    budget = of_all([point.budget for point in points])
    if budget is not None and budget.status in UNPROVEN:
        parts.append(f"NOT shown to be at this budget: {budget.reason}")
    sent = [r.audit.sent_share for p in points for r in p.results if r.audit and not math.isnan(r.audit.sent_share)]
    if sent and min(sent) < 0.99:
        parts.append(f"the schedule was not achieved: {min(sent):.1%} of the planned rate was sent")
    failed, started = sum(p.n_failed for p in points), sum(p.n_started for p in points)
    parts.append(f"{failed:,} of {started:,} requests failed")
    if any(len(p.results) < FEWEST_REPEATS for p in points):
        parts.append("intervals are within one run; three repeats would show how runs differ")
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "."


def figure_title(name: str) -> str:
    """'ttft_p99_s' -> 'TTFT p99'."""
    metric, stat, _ = name.rsplit("_", 2)
    return f"{TITLES.get(metric, metric)} {stat}"


def bound_titles(names: Sequence[str]) -> list[str]:
    """The titles of figures that are CLIENT-BOUND; one title where all of them are."""
    return ["all times"] if len(names) == len(HEADLINES) else [figure_title(name) for name in names]


def _lengths(points: Sequence[Point]) -> list[str]:
    """What is off about the lengths; loads of which the same is true share a sentence."""
    loads_of: dict[str, list[str]] = {}
    for point in points:
        if (sentence := length_check.sentence(point.lengths)) is not None:
            loads_of.setdefault(sentence, []).append(point.load)
    if not loads_of:
        return []
    if len(loads_of) == 1 and len(next(iter(loads_of.values()))) == len(points):
        return list(loads_of)
    return [f"at {_and(loads)} {sentence}" for sentence, loads in loads_of.items()]


def _answers(points: Sequence[Point]) -> list[str]:
    """Sentences about replies that say less than they seem to."""
    answered, parts = sum(point.n_answered for point in points), []
    if empty := sum(point.n_empty for point in points):
        parts.append(f"{empty:,} of {answered:,} replies had no token: they are in no latency, and beyond every limit")
    if together := sum(point.n_one_arrival for point in points):
        parts.append(f"{together:,} of {answered:,} replies came in one piece: they have no TPOT and no ITL")
    if coalesced := sum(point.n_coalesced for point in points):
        parts.append(f"{coalesced:,} of {answered:,} first tokens came with others in one read: their TTFT may be less")
    if alone := sum(point.n_done_alone for point in points):
        parts.append(f"{alone:,} of {answered:,} replies ended with [DONE] and no finish_reason")
    return parts


def client_part(points: Sequence[Point]) -> str:
    """Which figures are CLIENT-BOUND; where none is, the bound on the client's own error."""
    judged = [point for point in points if point.client.verdict != ClientVerdict.UNKNOWN]
    if not judged:
        return "the client could not say whether it kept up"
    short = [point for point in judged if point.client.sent_share is not None]
    if short:
        worst = min(short, key=lambda point: point.client.sent_share or 0.0)
        return f"CLIENT-BOUND at {_and([point.load for point in short])}: {worst.client.signal}"
    hit = [point for point in judged if point.client_bound]
    if not hit:
        errors = [point.client_error_s(name) for point in judged for name in HEADLINES if name in point.figures]
        bound = max(errors, default=math.nan)
        return f"this client's own error is at most ±{ms(bound)} ms, under {BOUND_SHARE:.0%} of every time above"
    names = bound_titles(list(dict.fromkeys(name for point in hit for name in point.client_bound)))
    at = "" if len(hit) == len(points) else f" at {_and([point.load for point in hit])}"
    error = max(point.client_error_s(name) for point in hit for name in point.client_bound)
    return f"CLIENT-BOUND: {_and(names)}{at}, for this client's own error is up to ±{ms(error)} ms there"


def _cache(points: Sequence[Point]) -> str:
    caches = sorted({point.cache for point in points})
    text = "prefix cache " + "/".join(caches)
    if said := _by_trace(points):
        return f"{text}: {said}"
    if {CacheState.WARM, CacheState.MIXED} & set(caches):
        if all(point.turns for point in points):  # a turn's prompt begins with the one before: that is what was asked
            shares = [result.cache.share for point in points for result in point.results]
            return text + f" ({max(share or 0.0 for share in shares):.0%} of the prompts at most), as turns have it"
        return text + WARNING
    if CacheState.UNKNOWN not in caches:
        return text
    salted = all(result.stage.salted for point in points for result in point.results)
    why = "every prompt began with text of its own" if salted else "some prompts may have come from it"
    return f"{text} (WARNING: the server does not count it; {why})"


def _by_trace(points: Sequence[Point]) -> str:
    """What the server found of the share that a trace says is shared, by load; empty: no trace says it."""
    parts = []
    for point in points:
        caches = [result.cache for result in point.results]
        said = [cache.by_trace for cache in caches if cache.by_trace is not None]
        found = [cache.share for cache in caches if cache.share is not None]
        if said:
            seen = f"{sum(found) / len(found):.1%} of prompt tokens" if found else "how much the server does not say"
            parts.append(f"{seen} at {point.load}, {sum(said) / len(said):.1%} by the trace")
    return "; ".join(parts)


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
