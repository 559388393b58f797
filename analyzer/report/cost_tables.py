"""Tables of tokens, latency, throughput and cost. Pure."""

from analyzer.report.report_tables import level_name
from analyzer.results import costs, memory, sentences
from analyzer.results.number_format import NOTHING, amount, count, gib, interval, number, percent, seconds
from analyzer.results.results import Results
from analyzer.results.text_table import Table, table
from analyzer.store.tables import BinStat, columns
from kvt_async.contract.cache_state import cache_state
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import EvidenceStatus


def tokens(results: Results) -> Table:
    """Prompt, completion and template tokens by length bin, at full cache (else at the first level)."""
    run = results.full or (results.runs[0] if results.runs else None)
    rows = []
    for b in results.bins:
        s = results.stat(run, b.bin_idx)
        if s is None or s.n == 0:
            rows.append((b.label, "0", *([NOTHING] * 6)))
            continue
        overhead = (
            None if s.token_len_p50 is None or s.context_tokens_p50 is None else s.token_len_p50 - s.context_tokens_p50
        )
        rows.append(
            (
                b.label,
                count(s.n),
                count(s.prompt_tokens_p50),
                count(s.prompt_tokens_p95),
                count(s.token_len_p50),
                count(overhead),
                count(s.completion_tokens_p50),
                count(s.completion_tokens_p95),
            )
        )
    head = (
        "Prompt tokens",
        "Examples",
        "Prompt p50",
        "Prompt p95",
        "Own count p50",
        "Question and template p50",
        "Completion p50",
        "Completion p95",
    )
    note = (
        f"At {level_name(run)}; prompt and completion as the server counts, own count by our tokenizer." if run else ""
    )
    return Table(head, tuple(rows), note=note)


def pareto(results: Results, settings: Settings) -> Table:
    """Quality, memory and latency of every level side by side; marked where no other level is better in both."""
    load = memory.load_of(results, settings)
    full = results.stat(results.full)
    measured = [(run, s) for run in results.runs if not run.repeat_idx and (s := results.stat(run)) and s.n]
    rows = []
    for run, s in measured:
        saved = {} if load is None else {f"Saved at {load.label}": gib(memory.saved_gib(results, run, load))}
        best = "" if s.kv_bytes_p50 is None else "yes" if _undominated(s, [o for _, o in measured]) else "no"
        rows.append(
            {
                "Level": level_name(run),
                "Accuracy [95% CI]": interval(s.acc_mean, s.acc_ci_low, s.acc_ci_high),
                "Of full cache": percent(sentences.ratio(s.acc_mean, full.acc_mean if full else None)),
                "Cache kept p50": percent(s.kept_fraction_p50),
                "KV bytes per request p50": amount(s.kv_bytes_p50),
                **saved,
                "Latency p50": seconds(s.latency_p50_s),
                "On the front": best or NOTHING,
            }
        )
    note = "On the front: no level has a higher mean accuracy in a smaller cache (means, whatever their uncertainty)."
    if load is None:
        note = f"{note} {memory.HOW}"
    elif any(e.status == EvidenceStatus.UNVERIFIED for e in results.evidence.values()):
        note = f"{note} GiB of unverified levels are arithmetic: nothing shows that the server applied the budget."
    return table(rows, note=note)


def _undominated(level: BinStat, others: list[BinStat]) -> bool:
    acc, size = level.acc_mean or 0.0, level.kv_bytes_p50 or 0.0
    return not any(
        o.kv_bytes_p50 is not None
        and o.acc_mean is not None
        and o.acc_mean >= acc
        and o.kv_bytes_p50 <= size
        and (o.acc_mean > acc or o.kv_bytes_p50 < size)
        for o in others
    )


def latencies(results: Results) -> Table:
    """Median and 95th percentile of every time that bin_stats has both of, the whole request last."""
    tailed = [name.removesuffix("_p95_s") for name in columns(BinStat) if name.endswith("_p95_s")]
    names = sorted(tailed, key=lambda name: name == "latency")
    rows = []
    for run in results.runs:
        s = results.stat(run)
        if s is None or s.latency_p50_s is None:
            continue
        figures = [seconds(getattr(s, f"{name}_{stat}_s")) for name in names for stat in ("p50", "p95")]
        rows.append((level_name(run), *figures, cache_state(s.cached_share), percent(s.cached_share)))
    titles = {name: "Latency" if name == "latency" else name.upper() for name in names}
    shown = [f"{titles[name]} {stat}" for name in names for stat in ("p50", "p95")]
    head = ("Level", *shown, "Cache state", "Cached prompt tokens")
    note = f"Every latency: {costs.client(results.clients)}. Compare levels within one cache state only."
    return Table(head, tuple(rows), note=note)


def volumes(results: Results, settings: Settings) -> Table:
    """Effective throughput and cost of each invocation that got responses."""
    prices = settings.analysis.prices
    rows = []
    for v in results.volumes:
        cost = NOTHING
        if prices is not None and v.prompt_tokens is not None:
            value = v.prompt_tokens * prices.prompt_per_mtok + (v.completion_tokens or 0) * prices.completion_per_mtok
            cost = f"{number(value / 1e6, 4)} {prices.currency}"
        rows.append(
            {
                "Invocation": v.session_id,
                "Responses": count(v.n),
                "Prompt tokens": count(v.prompt_tokens),
                "Completion tokens": count(v.completion_tokens),
                "First start to last end": seconds(v.wall_s),
                "Effective throughput": costs.throughput(v),
                "Cost": cost,
            }
        )
    note = "" if prices else "Cost: set analysis.prices to see it."
    return table(rows, note=note)
