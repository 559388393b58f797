"""Latency and memory in words, never without the cache state and the client's own error. Pure."""

from collections.abc import Sequence

from analyzer.report.rows import BinStat, Client, Volume
from analyzer.report.wording import amount, budget, change, count, number, percent, seconds

COLD, WARM = 0.05, 0.95


def cache_state(cached_share: float | None) -> str:
    """cold | warm | mixed | unknown: how much of the prompts came out of a prefix cache."""
    if cached_share is None:
        return "unknown"
    return "cold" if cached_share <= COLD else "warm" if cached_share >= WARM else "mixed"


def client(rows: Sequence[Client]) -> str:
    """`client-clean, ±0.42 ms`: what every latency figure carries."""
    if not rows:
        return "client not checked"
    worst = max(r.error_bound_ms for r in rows)
    name = "CLIENT-BOUND" if any(r.verdict != "client-clean" for r in rows) else "client-clean"
    return f"{name}, ±{number(worst)} ms"


def cache_sentence(stats: Sequence[BinStat]) -> str:
    """The cache state of the latencies shown."""
    states = {cache_state(s.cached_share) for s in stats}
    if states == {"unknown"}:
        return "Cache state of the latencies: unknown, the server reports no cached tokens."
    if len(states) == 1:
        state = states.pop()
        meaning = {
            "cold": "prompts were prefilled",
            "warm": "prompts came from the prefix cache, so TTFT holds no prefill",
            "mixed": "some prompts were prefilled and some came from the prefix cache",
        }[state]
        return f"Cache state of the latencies: {state} ({meaning})."
    return (
        f"Cache states of the latencies differ ({', '.join(sorted(states))}): levels in different states "
        "are not comparable."
    )


def memory(
    series: str, level: float, full: BinStat | None, here: BinStat | None, unit: str, *, verified: bool = True
) -> str:
    """What the budget buys in cache bytes or, where no bytes are known, in kept tokens."""
    at = budget(level, unit)
    if here is None or full is None or not verified:
        return f"Memory of {series} at {at}: not known, the server gives no evidence of what it kept."
    if here.kv_bytes_p50 is not None and full.kv_bytes_p50 is not None:
        kept = f", {count(here.kept_tokens_p50)} tokens kept" if here.kept_tokens_p50 is not None else ""
        return (
            f"Memory at {at}: {amount(here.kv_bytes_p50)} of KV cache per request (median{kept}) instead of "
            f"{amount(full.kv_bytes_p50)}, {change(here.kv_bytes_p50, full.kv_bytes_p50)}."
        )
    if here.kept_tokens_p50 is not None and full.prompt_tokens_p50 is not None:
        return (
            f"Memory at {at}: {count(here.kept_tokens_p50)} of {count(full.prompt_tokens_p50)} prompt tokens kept "
            f"(median), {percent(here.kept_fraction_p50)}; bytes are not reported."
        )
    return f"Memory of {series} at {at}: not known, the server gives no evidence of what it kept."


def latency(level: float, full: BinStat | None, here: BinStat | None, clients: Sequence[Client], unit: str) -> str:
    """p50 latencies at one budget against full cache; none across cache states or within the client's error."""
    at = budget(level, unit)
    if here is None or here.latency_p50_s is None:
        return f"Latency at {at}: none was measured."
    own = f"TTFT {seconds(here.ttft_p50_s)}, TPOT {seconds(here.tpot_p50_s)}, total {seconds(here.latency_p50_s)}"
    stamp = client(clients)
    if full is None or full.latency_p50_s is None:
        return f"Latency at {at} (p50; {stamp}): {own}; there is no full cache to compare with."
    a, b = cache_state(full.cached_share), cache_state(here.cached_share)
    if a != b:
        return f"Latency at {at} (p50, {b}; {stamp}): {own}. Not compared: full cache was measured {a}, this level {b}."
    state = f"{a} cache" if a != "unknown" else "cache state unknown"
    parts = [
        f"{name} {_against(new, old, clients)}"
        for name, new, old in (
            ("TTFT", here.ttft_p50_s, full.ttft_p50_s),
            ("TPOT", here.tpot_p50_s, full.tpot_p50_s),
            ("total", here.latency_p50_s, full.latency_p50_s),
        )
        if new is not None
    ]
    return f"Latency at {at} against full cache (p50; {state}; {stamp}): {'; '.join(parts)}."


def _against(new: float, old: float | None, clients: Sequence[Client]) -> str:
    if old is None:
        return seconds(new)
    bound = max((c.error_bound_ms for c in clients), default=0.0) / 1000
    if abs(new - old) <= 2 * bound:
        return f"{seconds(new)} vs {seconds(old)} (no difference beyond the client's error)"
    return f"{seconds(new)} vs {seconds(old)} ({change(new, old)})"


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
