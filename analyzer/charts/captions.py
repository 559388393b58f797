"""Chart titles that say the message, and one line each on how to read the marks. Pure."""

from analyzer.results.confidence import nothing_safe
from analyzer.results.costs import cache_sentence, client
from analyzer.results.number_format import cache_share, count, listed, loss_size, percent
from analyzer.results.results import ALL, Results
from analyzer.results.series_names import series_name
from analyzer.results.verdict_sentence import in_few_words
from analyzer.results.zones import bin_zones, common_tokens, constant
from analyzer.store.tables import BinStat
from kvt_async.contract.vocabulary import Unit


def verdict(results: Results) -> str:
    return "How far the cache can shrink"


def verdict_says(results: Results) -> str:
    v = results.verdict(results.series[0]) if results.series else None
    if v is None or not v.judges:
        return "" if v is None else "No verdict: the sentence above says why."
    m = loss_size(v.asked.get("margin", 0.0), v.asked.get("margin_kind", "absolute"))
    lengths = "; single lengths are exploratory" if len(results.bins) > 1 else ""
    return (
        f"Safe: accuracy is proven to fall by less than {m} there and with any larger cache tested. Broken: proven to "
        f"fall by more, there and with any smaller one. Between the two neither is proven. 95% confidence{lengths}."
    )


def by_budget(results: Results) -> str:
    v = results.verdict(results.series[0]) if results.series else None
    if v is None:
        return "Accuracy at full cache" if not results.series else "Accuracy by KV budget"
    return f"{series_name(v.series)}: {in_few_words(v, results.unit_of(v.series))}"


def by_budget_says(results: Results) -> str:
    head = _yellow(results, [ALL], "")
    full = results.stat(results.full)
    scale = " Right axis: relative to full cache." if full and full.acc_mean else ""
    return f"{head}Points: mean over all lengths, equal weight per length bin; bands and bars: 95% CI.{scale}"


def by_budget_bins(results: Results) -> str:
    if not results.series:
        return "Accuracy in each length bin"
    rows = [(b, results.verdict(results.series[0], b.bin_idx)) for b in results.bins]
    judged = [(b, v) for b, v in rows if v and v.n and v.judges]
    if len(judged) < 2:
        return "Accuracy by KV budget in each length bin"
    (short, first), (long, last) = judged[0], judged[-1]
    ends = [
        "none proven safe" if nothing_safe(v) else f"safe to {cache_share(v.safe_budget, results.unit)}"
        for v in (first, last)
    ]
    if ends[0] == ends[1]:
        return f"{series_name(results.series[0])}: {ends[0]} in the shortest and in the longest prompts"
    return f"{series_name(results.series[0])}: {ends[0]} at {short.label} tokens, {ends[1]} at {long.label}"


def bins_says(results: Results) -> str:
    zone = _yellow(results, [b.bin_idx for b in results.bins], " in that bin")
    return f"{zone}Bands and bars: 95% CI of one bin. Bins are exploratory beside the overall verdict."


def heatmap(results: Results) -> str:
    return "Which budgets hold at which prompt length"


def heatmap_says(results: Results) -> str:
    return "Cells: accuracy and its 95% CI. Framed: proven safe in that bin. No frame: broken, or not proven."


def kept(results: Results) -> str:
    for name in results.series:
        inside = common_tokens(bin_zones(results, name))
        if inside and constant(results, name) == Unit.TOKENS:
            between = f"{count(inside[0])} to {count(inside[1])}"
            return f"{series_name(name)}: the cliff lies at {between} kept tokens, whatever the length"
    return "Accuracy by number of kept tokens"


def kept_says(results: Results) -> str:
    return "Where the lines of all bins fall at the same place, an absolute number of kept tokens decides, not a ratio."


def drops(results: Results) -> str:
    proven = {v.series: v.loss for v in results.verdicts if v.bin_idx == ALL and v.loss is not None}
    whole = [d for d in results.drops if d.bin_idx == ALL and d.repeat_idx == 0 and d.drop_failures is not None]
    lost = [d for d in whole if d.series in proven and d.kv_budget <= proven[d.series]]
    if not lost:
        return "No loss is proven at any budget"
    parts = {
        "failed requests": [d.drop_failures for d in lost],
        "answers cut off at their length": [d.drop_cut_off for d in lost],
        "wrong answers": [d.drop_wrong for d in lost],
    }
    causes = [name for name, shares in parts.items() if any(abs(share or 0) >= 0.005 for share in shares)]
    if len(causes) > 1:
        return f"The losses are {listed([f'partly {cause}' for cause in causes])}"
    if causes == ["failed requests"]:
        return "The losses are failed requests, not wrong answers"
    return f"The losses are {causes[0] if causes else 'wrong answers'}; no request failures are in them"


def drops_says(results: Results) -> str:
    return "Bars: loss of mean score against full cache, split by cause (Shapley). Lines: 95% CI of the whole loss."


def pareto(results: Results) -> str:
    return "What quality costs in cache memory"


def pareto_says(results: Results) -> str:
    return "Upper left is better. Bars: 95% CI of accuracy. Area of a point: median latency. " + _stamp(results)


def latency(results: Results) -> str:
    return "Latency by KV budget"


def latency_says(results: Results) -> str:
    of_ttft = {round(s.ttft_p50_s, 6) for s in _whole(results) if s.ttft_p50_s is not None}
    of_tpot = {round(s.tpot_p50_s, 6) for s in _whole(results) if s.tpot_p50_s is not None}
    is_flat = len(of_tpot) == 1 and len(of_ttft) > 1
    flat = "TPOT is not drawn: it is the same at every level. " if is_flat else ""
    return f"Points: p50; bars reach to p95. {flat}{_stamp(results)}"


def by_bin(results: Results) -> str:
    return "Accuracy by prompt length"


def by_bin_says(results: Results) -> str:
    return "Bars: 95% CI. Within a bin, budgets stand side by side from full cache down."


def failures(results: Results) -> str:
    stats = [s for s in _whole(results) if s.fail_rate is not None]
    failed = sum(s.n_failures for s in stats)
    n = sum(s.n for s in stats)
    if not failed:
        return f"No request failed (0 of {n:,})"
    worst = max(s.fail_rate or 0 for s in stats)
    return f"{failed:,} of {n:,} requests failed; {percent(worst, 1)} at the worst level"


def failures_says(results: Results) -> str:
    return "Bars: 95% Wilson intervals. A failed request scores 0 and has no answer."


def latency_bins(results: Results) -> str:
    return "Latency by prompt length"


def latency_bins_says(results: Results) -> str:
    return "Points: p50; bars reach to p95. " + _stamp(results)


def _yellow(results: Results, bins: list[int], where: str) -> str:
    """What the yellow of the headline series means in these bins; empty where no zone is drawn."""
    zones = [
        v for b in bins if results.series and (v := results.verdict(results.series[0], b)) and v.broken is not None
    ]
    if not zones:
        return ""
    pale = " (pale: open above, because no budget is proven safe)" if any(nothing_safe(v) for v in zones) else ""
    return f"Yellow: the transition zone of {series_name(results.series[0])}{where}{pale}. "


def _stamp(results: Results) -> str:
    stats = [s for s in _whole(results) if s.latency_p50_s is not None]
    return f"{cache_sentence(stats)} Every latency: {client(results.clients)}." if stats else ""


def _whole(results: Results) -> list[BinStat]:
    return [s for run in results.runs if (s := results.stat(run)) is not None]
