"""Latency and memory in words, never without the cache state and the client's own error. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analyzer.results.number_format import amount, cache_kept, change, count, number, percent, seconds
from analyzer.results.rows import ClientRow, Volume
from analyzer.results.series_names import series_name
from analyzer.store.tables import BinStat, OutcomeChange
from kvt_async.contract.cache_state import cache_state
from kvt_async.contract.vocabulary import CacheState, ClientVerdict, Measure

TOO_LARGE = 0.05  # the client's error over a figure, or over a difference that is claimed


@dataclass(frozen=True)
class Repeated:
    """Times of a level against full cache's, request by request, and the same of full cache's repeats: rows of
    outcome_changes by measure."""

    here: Mapping[str, OutcomeChange]
    again: Sequence[Mapping[str, OutcomeChange]] = ()


_ALONE = Repeated({})
_MEASURES = {"TTFT": Measure.TTFT, "TPOT": Measure.TPOT, "total": Measure.LATENCY}


def client(rows: Sequence[ClientRow]) -> str:
    """`±0.42 ms`: the client's own error, beside every latency figure."""
    return f"±{number(1000 * error_s(rows))} ms" if rows else "client's error not measured"


def error_s(rows: Sequence[ClientRow]) -> float:
    """A bound on the error of one stamp; 0 where none was measured."""
    return max((row.error_bound_ms for row in rows), default=0.0) / 1000


def client_bound(full: BinStat | None, stat: BinStat | None, clients: Sequence[ClientRow]) -> str:
    """Names the latencies of a level, or their differences from full cache, that the client's own error makes too
    coarse; empty where there are none."""
    if stat is None:
        return ""
    coarse = []
    for name, new, old, error in _compared(full, stat, clients):
        if new is None:
            continue
        claimed = (
            old is not None
            and abs(new - old) > 2 * error
            and cache_state(stat.cached_share) == cache_state(full.cached_share if full else None)
        )
        if error > TOO_LARGE * new:
            coarse.append(f"{name} {seconds(new)} ± {seconds(error)}")
        elif claimed and old is not None and 2 * error > TOO_LARGE * abs(new - old):
            coarse.append(f"the difference of {name}, {seconds(abs(new - old))} ± {seconds(2 * error)}")
    if not coarse:
        return ""
    return f"{ClientVerdict.BOUND}: the client's own error is more than {percent(TOO_LARGE)} of {'; '.join(coarse)}."


def _compared(
    full: BinStat | None, stat: BinStat, clients: Sequence[ClientRow]
) -> list[tuple[str, float | None, float | None, float]]:
    """(name, here, at full cache, error) of the latencies that are compared; TPOT's error is spread over its tokens."""
    error, tokens = error_s(clients), stat.completion_tokens_p50 or 0
    of_tpot = 2 * error / (tokens - 1) if tokens > 2 else error
    return [
        ("TTFT", stat.ttft_p50_s, full.ttft_p50_s if full else None, error),
        ("TPOT", stat.tpot_p50_s, full.tpot_p50_s if full else None, of_tpot),
        ("total", stat.latency_p50_s, full.latency_p50_s if full else None, error),
    ]


def cache_sentence(stats: Sequence[BinStat]) -> str:
    """Says in which cache state the latencies were measured."""
    states = {cache_state(s.cached_share) for s in stats}
    if states == {CacheState.UNKNOWN}:
        return "Cache state of the latencies: unknown, the server reports no cached tokens."
    if len(states) == 1:
        state = states.pop()
        meaning = {
            CacheState.COLD: "prompts were prefilled",
            CacheState.WARM: "prompts came from the prefix cache, so TTFT holds no prefill",
            CacheState.MIXED: "some prompts were prefilled and some came from the prefix cache",
        }[state]
        return f"Cache state of the latencies: {state} ({meaning})."
    return (
        f"Cache states of the latencies differ ({', '.join(sorted(states))}): levels in different states "
        "are not comparable."
    )


def memory(
    series: str, level: float, full: BinStat | None, stat: BinStat | None, unit: str, *, verified: bool = True
) -> str:
    """What the budget buys in cache bytes or, where no bytes are known, in kept tokens."""
    at = cache_kept(level, unit)
    of = f"Memory of {series_name(series)} with {at}"
    if not verified:
        return f"{of}: not known, because what the server kept is unverified."
    if stat is not None and full is None:
        return f"{of}: not compared, because there is no full-cache run."
    if stat is None or full is None:
        return f"{of}: not known, because nothing was measured there."
    if stat.kv_bytes_p50 is not None and full.kv_bytes_p50 is not None:
        kept = f", {count(stat.kept_tokens_p50)} tokens kept" if stat.kept_tokens_p50 is not None else ""
        return (
            f"Memory with {at}: {amount(stat.kv_bytes_p50)} of KV cache per request (median{kept}) instead of "
            f"{amount(full.kv_bytes_p50)}, {change(stat.kv_bytes_p50, full.kv_bytes_p50)}."
        )
    if stat.kept_tokens_p50 is not None and full.prompt_tokens_p50 is not None:
        return (
            f"Memory with {at}: {count(stat.kept_tokens_p50)} of {count(full.prompt_tokens_p50)} prompt tokens kept "
            f"(median), {percent(stat.kept_fraction_p50)}; bytes are not reported."
        )
    if stat.kept_fraction_p50 is not None:
        return (
            f"{of}: {percent(stat.kept_fraction_p50)} of the prompt's tokens kept (median), "
            "as the server says; it reports neither bytes nor how many tokens that are."
        )
    return f"{of}: not known, because the server doesn't say what it kept."


def latency(
    level: float,
    full: BinStat | None,
    stat: BinStat | None,
    clients: Sequence[ClientRow],
    unit: str,
    paired: Repeated = _ALONE,
) -> str:
    """p50 latencies at one budget against full cache, with the change request by request and its interval, and that of
    full cache run again; none across cache states or within the client's error."""
    at = cache_kept(level, unit)
    if stat is None or stat.latency_p50_s is None:
        return f"Latency with {at}: none was measured."
    own = f"TTFT {seconds(stat.ttft_p50_s)}, TPOT {seconds(stat.tpot_p50_s)}, total {seconds(stat.latency_p50_s)}"
    stamp = client(clients)
    if full is None or full.latency_p50_s is None:
        return f"Latency with {at} (p50; {stamp}): {own}; there is no full cache to compare with."
    a, b = cache_state(full.cached_share), cache_state(stat.cached_share)
    if a != b:
        return (
            f"Latency with {at} (p50, {b}; {stamp}): {own}. Not compared: full cache was measured {a}, this level {b}."
        )
    state = f"{a} cache" if a != CacheState.UNKNOWN else "cache state unknown"
    parts, told = [], []
    for name, new, old, error in _compared(full, stat, clients):
        if new is None:
            continue
        measure = _MEASURES[name]
        row = paired.here.get(measure)
        parts.append(f"{name} {_against(new, old, error, row)}")
        if row is not None and old is not None and abs(new - old) > 2 * error:
            told += [f"{name} {_ratio(of[measure])}" for of in paired.again if measure in of]
    again = f" Full cache run again, by the same measure: {', '.join(told)}." if told else ""
    return f"Latency with {at} against full cache (p50; {state}; {stamp}): {'; '.join(parts)}.{again}"


def _against(new: float, old: float | None, error: float, row: OutcomeChange | None) -> str:
    if old is None:
        return seconds(new)
    both = f"{seconds(new)} vs {seconds(old)}"
    if abs(new - old) <= 2 * error:
        return f"{both} (no difference beyond the client's error)"
    if row is None or row.change is None:
        return f"{both} ({change(new, old)})"
    if row.change_ci_low is None or row.change_ci_high is None:
        return f"{both} (request by request {_ratio(row)}: too few requests for an interval)"
    unsure = ": no difference is shown" if row.change_ci_low <= 1 <= row.change_ci_high else ""
    return f"{both} (request by request {_ratio(row)}{unsure})"


def _ratio(row: OutcomeChange) -> str:
    """`−22% [−25%, −19%]`: the median of here over full cache, request by request, as a change."""
    value = change(row.change, 1)
    if row.change_ci_low is None or row.change_ci_high is None:
        return value
    return f"{value} [{change(row.change_ci_low, 1)}, {change(row.change_ci_high, 1)}]"


def throughput(v: Volume) -> str:
    """Effective throughput of one session, waits and pauses included."""
    if not v.wall_s:
        return "not known"
    tokens = [
        f"{name} {count((value or 0) / v.wall_s)}/s"
        for name, value in (("prompt tokens", v.prompt_tokens), ("completion tokens", v.completion_tokens))
        if value is not None
    ]
    return f"{number(v.n / v.wall_s, 1)} requests/s" + (f" ({', '.join(tokens)})" if tokens else "")
