"""Figures of a bench as people read them: the terminal's table (100 columns) and the verdict in two sentences."""

import math
from collections.abc import Callable, Sequence

from analyzer.bench.as_tools import AsTool
from analyzer.bench.budget import UNPROVEN, of_all
from analyzer.bench.points import Point
from analyzer.bench.results import BOUND, CLEAN
from analyzer.bench.saturation import Zone, highest_within, knee, sustained
from analyzer.bench.slo import MET, MISSED, Finding
from analyzer.bench.spread import Estimate
from analyzer.evidence import FULL, VERIFIED

WIDTH = 100
WARNING = " (WARNING: these are not figures of prompts that the server has not seen)"


def table(points: Sequence[Point]) -> list[str]:
    """One line a load; times in ms, `-` where nothing was measured, inf where failures reach the percentile."""
    slo = any(point.findings for point in points)
    heads = ["load", "done/s", "out tok/s", "TTFT p50", "p99", "TPOT p50", "p99", "lat. p50", "p99", "failed"]
    rows = [heads + (["in SLO"] if slo else [])]
    titles: dict[int, str] = {}  # row before which a level begins -> its label
    for point in points:
        if point.level and point.level not in titles.values():
            titles[len(rows)] = point.level
        cells = [
            (" " if point.level else "") + name_of(point, level=False) + ("*" if point.partial else ""),
            plain(point.figures["requests_per_s"].value),
            plain(point.figures["output_tokens_per_s"].value),
            *(ms(point.censored.get(f"{metric}_{stat}_s")) for metric in ("ttft", "tpot", "latency")
              for stat in ("p50", "p99")),
            f"{point.n_failed}/{point.n_started}",
        ]  # fmt: skip
        rows.append(cells + ([share(point.attainment)] if slo else []))
    notes = ["times in ms" + (", from the intended start" if points[0].loop == "open" else "")]
    if any(point.partial for point in points):
        notes.append("* PARTIAL: requests are still to be sent; the same command goes on")
    if points[0].loop == "closed":
        notes.append("closed loop: a stall holds back new requests, so these latencies are blind to it")
    lines = []
    for n, line in enumerate(columns(rows)):
        if n in titles:
            lines.append(_cut(level_line([point for point in points if point.level == titles[n]]), WIDTH).rstrip())
        lines.append(line)
    return [*lines, *(f"({note})" for note in notes)]


def level_line(points: Sequence[Point]) -> str:
    """'snapkv/aware 0.5: budget verified, 40 replies show 0.5 fraction (echoed)'."""
    level, budget = points[0].level or "", of_all([point.budget for point in points])
    if budget is None or budget.status == FULL:
        return f"{level}:"
    if budget.status == VERIFIED:
        return f"{level}: budget verified, {budget.row['n']:,} replies show {budget.reading}"
    return f"{level}: budget {budget.status.upper()}, {budget.reason}"


def verdict(points: Sequence[Point]) -> list[str]:
    """Two sentences a level: what the server gave, and how far to believe it."""
    result = []
    for level in dict.fromkeys(point.level for point in points):
        mine = [point for point in points if point.level == level]
        result += [(f"{level_of(mine[0])}: " if level else "") + _what(mine), _trust(mine)]
    return result


def _what(points: Sequence[Point]) -> str:
    if len(points) == 1:
        point = points[0]
        told = (f"At {name_of(point, level=False)} the server completed {with_interval(point, 'requests_per_s')} "
                f"requests/s and {with_interval(point, 'output_tokens_per_s')} output tokens/s, "
                f"TTFT p50 {times(point, 'ttft_p50_s')}, p99 {times(point, 'ttft_p99_s')}")  # fmt: skip
        if point.loop == "open" and sustained(point)[2] < 0.95:
            told += f"; it did not keep up with {plain(point.figures['arrivals_per_s'].value)} arrivals/s"
        return told + "".join(f"; {objective(finding)}" for finding in point.findings) + "."
    found = knee(points)
    unit = "requests/s" if points[0].loop == "open" else "in flight"
    parts = [_knee_words(points, found, unit)] if found else []
    if (within := highest_within(points)) is not None:
        parts.append(_within_words(points, within, unit))
    return "; ".join(parts) + "."


def _knee_words(points: Sequence[Point], zone: Zone, unit: str) -> str:
    best = max(points, key=lambda point: point.figures["output_tokens_per_s"].value)
    top = f"at most {with_interval(best, 'output_tokens_per_s')} output tokens/s, at {name_of(best, level=False)}"
    if points[0].loop == "closed":
        at = f"the plateau is reached at {zone.seen:g} {unit}" if zone.seen is not None else "no plateau in range"
        proven = f" (below it up to {zone.low:g}, proven)" if zone.low is not None else ""
        return f"The server gave {top}; {at}{proven}"
    if zone.seen is None:
        kept = "the server kept up with none of these rates"
    elif zone.high is None and zone.seen == max(point.value for point in points):
        kept = f"the server kept up with every rate up to {zone.seen:g} {unit}: no knee in range"
    else:
        broken = f"proven not to at {zone.high:g}" if zone.high is not None else "nothing higher is proven"
        kept = f"the server kept up with {zone.seen:g} {unit} ({broken})"
    return f"{kept[0].upper()}{kept[1:]}; {top}"


def _within_words(points: Sequence[Point], zone: Zone, unit: str) -> str:
    limits = " and ".join(limit_words(finding) for finding in points[0].findings)
    if zone.low is not None:
        proven = f"proven up to {zone.low:g} {unit}"
    else:
        needs = [f.n_needed for p in points for f in p.findings if f.n_needed is not None]
        proven = "proven at no load" + (f" (that takes about {min(needs):,} requests)" if needs else "")
    missed = f"proven missed from {zone.high:g}" if zone.high is not None else "missed nowhere for certain"
    seen = f"{zone.seen:g} {unit}" if zone.seen is not None else "no load that was tried"
    return f"highest with {limits}: {seen}; {proven}, {missed}"


def _trust(points: Sequence[Point]) -> str:
    parts = []
    worst = max((p.client for p in points), key=lambda c: (c.verdict == BOUND, c.verdict != CLEAN, c.error_bound_ms))
    if worst.verdict == BOUND:
        parts.append(f"CLIENT-BOUND: figures are ours, not the server's, by up to {worst.error_bound_ms:.1f} ms "
                     f"({worst.signal})")  # fmt: skip
    elif worst.verdict == CLEAN:
        parts.append(f"client-clean (its loop was late by at most {worst.error_bound_ms:.1f} ms in 99% of instants)")
    else:
        parts.append("the client could not say whether it kept up")
    caches = sorted({point.cache for point in points})
    parts.append("prefix cache " + "/".join(caches) + (WARNING if {"warm", "mixed"} & set(caches) else ""))
    budget = of_all([point.budget for point in points])
    if budget is not None and budget.status in UNPROVEN:
        parts.append(f"NOT shown to be at this budget: {budget.reason}")
    sent = [r.audit.sent_share for p in points for r in p.results if r.audit and not math.isnan(r.audit.sent_share)]
    if sent and min(sent) < 0.99:
        parts.append(f"the schedule was not achieved: {min(sent):.1%} of the planned rate was sent")
    failed, started = sum(p.n_failed for p in points), sum(p.n_started for p in points)
    parts.append(f"{failed:,} of {started:,} requests failed")
    methods = {p.figures["requests_per_s"].method for p in points}
    if "within run" in methods:
        parts.append("intervals are within one run; three repeats would show how runs differ")
    text = ", ".join(parts)
    return text[0].upper() + text[1:] + "."


def objective(finding: Finding) -> str:
    """'TTFT p99 <= 500 ms met (312 ms)'."""
    seen = f"{ms(finding.value_s)} ms seen"
    if finding.verdict in (MET, MISSED):
        return f"{limit_words(finding)} is {finding.verdict} ({seen})"
    needs = f", about {finding.n_needed:,} requests would tell" if finding.n_needed else ""
    return f"{limit_words(finding)}: cannot tell from {finding.n:,} requests ({seen}{needs})"


def limit_words(finding: Finding) -> str:
    o = finding.objective
    metric = o.metric if o.metric == "latency" else o.metric.upper()
    return f"{metric} {o.stat} <= {ms(o.limit_s)} ms"


def name_of(point: Point, *, level: bool = True) -> str:
    return f"{level_of(point)}, {point.load}" if level and point.level else point.load


def level_of(point: Point) -> str:
    """The level's label, and beside it what isn't shown of its budget: 'snapkv/aware 0.5 (unverified)'."""
    budget = point.budget
    return (point.level or "") + (f" ({budget.status})" if budget is not None and budget.status in UNPROVEN else "")


def with_interval(point: Point, name: str, show: Callable[[float], str] | None = None) -> str:
    """'7.9 [7.6, 8.2]'."""
    found, show = point.figures[name], show or plain
    return show(found.value) + _interval(found, show)


def times(point: Point, name: str) -> str:
    """'210 ms [190, 230]'; failures count as +inf, and where there are any the survivors' interval is left out."""
    return f"{ms(point.censored[name])} ms" + ("" if point.n_failed else _interval(point.figures[name], ms))


def plain(value: float) -> str:
    """Three digits that matter."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "inf"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ms(value: float | None) -> str:
    return "-" if value is None else plain(value * 1000)


def share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"


def _interval(found: Estimate, show: Callable[[float], str]) -> str:
    if math.isnan(found.low) or math.isnan(found.high):
        return ""
    return f" [{show(found.low)}, {show(found.high)}]"


def _cut(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"


def as_table(told: Sequence[tuple[str, AsTool]]) -> list[str]:
    """Another tool's figures for each stage, under its own formulas."""
    tool = told[0][1].tool
    heads = [f"as {tool}", "req/s", "out tok/s", "TTFT mean", "p50", "p99", "TPOT mean", "ITL mean", "p99", "latency"]
    rows = [heads]
    for load, one in told:
        rows.append([
            load, plain(one.requests_per_s), plain(one.output_tokens_per_s), ms(one.ttft.mean),
            ms(one.ttft.quantiles["p50"]), ms(one.ttft.quantiles["p99"]), ms(one.tpot.mean), ms(one.itl.mean),
            ms(one.itl.quantiles["p99"]), ms(one.latency.mean),
        ])  # fmt: skip
    return [*columns(rows), f"({told[0][1].notes})"]


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned, the first column to the left and cut where the line would pass 100 columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    room = WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1)
    widths[0] = min(widths[0], max(room, 8))
    return [
        "  ".join([_cut(row[0], widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
