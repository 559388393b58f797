"""Figures of a bench as people read them: the terminal's table (100 columns) and the verdict in two sentences."""

import math
from collections.abc import Callable, Sequence

from analyzer.bench.figures.points import Point
from analyzer.bench.figures.saturation import LoadZone, highest_within, knee, sustained
from analyzer.bench.figures.slo import MET, MISSED, Finding
from analyzer.bench.figures.spread import Estimate
from analyzer.bench.read.applied_budget import UNPROVEN, of_all
from analyzer.bench.report import server_words
from analyzer.bench.report.as_tools import AsTool
from analyzer.bench.report.numbers import ms, plain, share
from analyzer.bench.report.part_words import parts_sentence
from analyzer.bench.report.trust import trust
from kvt_async.contract.vocabulary import EvidenceStatus

WIDTH = 100


def table(points: Sequence[Point]) -> list[str]:
    """The terminal's table: a line for each load, then what its figures leave out. Times are in ms, of all repeats'
    answered requests together; `-` where nothing was measured."""
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
            *(
                ms(point.figures[f"{metric}_{stat}_s"].value)
                for metric in ("ttft", "tpot", "latency")
                for stat in ("p50", "p99")
            ),
            f"{point.n_failed}/{point.n_started}",
        ]
        rows.append(cells + ([share(point.attainment)] if slo else []))
    clock = ", from the intended start" if points[0].loop == "open" else ""
    pooled = ", repeats together" if any(len(point.results) > 1 for point in points) else ""
    notes = [f"times in ms of answered requests{pooled}{clock}", *left_out(points)]
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


def server_table(points: Sequence[Point]) -> list[str]:
    """What the servers say of their own load, for the terminal; empty where they say nothing of it."""
    several = any(len(point.results) > 1 for point in points)
    named = [
        (name_of(point) + (f" #{result.stage.repeat_idx}" if several else ""), result)
        for point in points
        for result in point.results
    ]
    rows = server_words.screen_rows(named)
    remarks = [f"({remark})" for point in points for remark in server_words.remarks(point)]
    return [*columns(rows), *remarks] if rows else []


def level_line(points: Sequence[Point]) -> str:
    """'snapkv/aware 0.5: budget verified, 40 replies show 0.5 fraction (echoed)'."""
    level, budget = points[0].level or "", of_all([point.budget for point in points])
    if budget is None or budget.status == EvidenceStatus.FULL:
        return f"{level}:"
    if budget.status == EvidenceStatus.VERIFIED:
        return f"{level}: budget verified, {budget.row.n:,} replies show {budget.reading}"
    return f"{level}: budget {budget.status.upper()}, {budget.reason}"


def verdict(points: Sequence[Point]) -> list[str]:
    """Two sentences a level, what the server gave and how far to believe it, and one for each load where it ran out of
    KV cache or served others too."""
    result = []
    for level in dict.fromkeys(point.level for point in points):
        of_level = [point for point in points if point.level == level]
        head = f"{level_of(of_level[0])}: " if level else ""
        result += [head + _what(of_level), trust(of_level), *(head + line for line in server_words.warnings(of_level))]
    return result


def _what(points: Sequence[Point]) -> str:
    if len(points) == 1:
        point = points[0]
        if (told := parts_sentence(point)) is not None:
            return f"{'; '.join((told, *map(objective, point.findings)))}."
        text = (
            f"At {name_of(point, level=False)} the server completed {_done(point)}, "
            f"TTFT p50 {times(point, 'ttft_p50_s')}, p99 {times(point, 'ttft_p99_s')}"
            f"{with_failures(point)}"
        )
        if point.loop == "open" and sustained(point)[2] < 0.95:
            text += f"; it did not keep up with {plain(point.figures['arrivals_per_s'].value)} arrivals/s"
        return text + "".join(f"; {objective(finding)}" for finding in point.findings) + "."
    begins = knee(points)
    unit = "requests/s" if points[0].loop == "open" else "in flight"
    if points[0].turns:
        unit = "conversations/s" if points[0].loop == "open" else "users"
    parts = [_knee_words(points, begins, unit)] if begins else []
    if (within := highest_within(points)) is not None:
        parts.append(_within_words(points, within, unit))
    return "; ".join(parts) + "."


def _done(point: Point) -> str:
    """'23.3 [23.2, 23.4] requests/s and 2,980 [2,970, 3,000] output tokens/s', or why nobody can tell."""
    rate = point.figures["requests_per_s"]
    if rate.reason is not None:
        needs = f"; about {rate.n_needed:,} requests would tell" if rate.n_needed else ""
        return f"requests at a rate that cannot be told ({rate.reason}{needs})"
    return (
        f"{with_interval(point, 'requests_per_s')} requests/s and {with_interval(point, 'output_tokens_per_s')} "
        "output tokens/s"
    )


def _knee_words(points: Sequence[Point], zone: LoadZone, unit: str) -> str:
    measured = [point for point in points if point.figures["output_tokens_per_s"].reason is None]
    if not measured:
        return f"How much the server gave cannot be told: {points[0].figures['output_tokens_per_s'].reason}"
    best = max(measured, key=lambda point: point.figures["output_tokens_per_s"].value)
    top = f"at most {with_interval(best, 'output_tokens_per_s')} output tokens/s, at {name_of(best, level=False)}"
    if points[0].loop == "closed":
        loads = sorted(point.value for point in points)
        grew = zone.low is not None and zone.low == loads[-2]
        none = "no plateau in range: output still grew" if grew else "whether it levels off cannot be told"
        at = f"the plateau is reached at {zone.seen:g} {unit}" if zone.seen is not None else none
        proven = f" (below it up to {zone.low:g}, proven)" if zone.low is not None else ""
        return f"The server gave {top}; {at}{proven}"
    kept = kept_words([point.value for point in points], zone, unit)
    return f"{kept[0].upper()}{kept[1:]}; {top}"


def kept_words(rates: Sequence[float], zone: LoadZone, unit: str) -> str:
    """Which of these rates a server kept up with: what is proven, what was only seen, and what nobody can tell."""
    if zone.high == min(rates):
        return "the server kept up with none of these rates"
    if zone.low == max(rates):
        return f"the server kept up with every rate up to {zone.low:g} {unit}: no knee in range"
    broken = f"proven not to keep up with {zone.high:g}" if zone.high is not None else ""
    if zone.seen is None:
        return f"whether the server kept up with {min(rates):g} {unit} cannot be told" + (broken and f" ({broken})")
    proven = f"proven up to {zone.low:g}" if zone.low is not None else "proven for no rate"
    proof = f"({proven}{broken and ', '}{broken})"
    if zone.seen == max(rates):
        return f"the server seemed to keep up with every rate up to {zone.seen:g} {unit} {proof}: no knee seen in range"
    return f"the server seemed to keep up with {zone.seen:g} {unit} and with no higher rate {proof}"


def _within_words(points: Sequence[Point], zone: LoadZone, unit: str) -> str:
    """'TTFT p99 <= 500 ms: seen to hold up to 8 requests/s, proven up to 4 requests/s, proven missed from 16 on'."""
    limits = " and ".join(limit_words(finding) for finding in points[0].findings)
    missed = f"proven missed from {zone.high:g} {unit} on" if zone.high is not None else "proven missed at no load"
    if zone.seen is None and zone.low is None:
        return f"{limits}: seen to be missed at the lowest load, {min(p.value for p in points):g} {unit}, {missed}"
    seen = (
        f"seen to hold up to {zone.seen:g} {unit}" if zone.seen is not None else "seen to be missed at the lowest load"
    )
    if zone.low is not None:
        proven = f"proven up to {zone.low:g} {unit}"
    else:
        needs = [f.n_needed for p in points for f in p.findings if f.n_needed is not None]
        proven = "proven at no load" + (f" (that takes about {min(needs):,} requests a load)" if needs else "")
    return f"{limits}: {seen}, {proven}, {missed}"


def objective(finding: Finding) -> str:
    """'TTFT p99 <= 500 ms is met (312 ms seen)'; of a share of the replies it says of which."""
    metric = _metric(finding)
    if not finding.n:
        why = f"no reply shows its {metric}" if finding.n_unknown else "nothing was measured"
        needs = f", about {finding.n_needed:,} requests would tell" if finding.n_needed else ""
        return f"{limit_words(finding)}: cannot tell, {why}{needs}"
    seen = f"{_time(finding.value_s)} seen" + (" with failures = inf" if math.isinf(finding.value_s) else "")
    if finding.n_lost:
        seen += f"; {finding.n_lost:,} of {finding.n:,} failed or gave no token"
    if finding.n_unknown:
        seen += f" of {finding.n:,}; {finding.n_unknown:,} replies show no {metric}"
    if finding.verdict in (MET, MISSED):
        return f"{limit_words(finding)} is {finding.verdict} ({seen})"
    needs = f", about {finding.n_needed:,} requests would tell" if finding.n_needed else ""
    return f"{limit_words(finding)}: cannot tell from {finding.n:,} requests ({seen}{needs})"


def limit_words(finding: Finding) -> str:
    return f"{_metric(finding)} {finding.objective.stat} <= {ms(finding.objective.limit_s)} ms"


def _metric(finding: Finding) -> str:
    metric = finding.objective.metric
    return metric if metric == "latency" else metric.upper()


def name_of(point: Point, *, level: bool = True) -> str:
    return f"{level_of(point)}, {point.load}" if level and point.level else point.load


def level_of(point: Point) -> str:
    """The level's label, and beside it what isn't shown of its budget: 'snapkv/aware 0.5 (unverified)'."""
    budget = point.budget
    return (point.level or "") + (f" ({budget.status})" if budget is not None and budget.status in UNPROVEN else "")


def with_interval(point: Point, name: str, show: Callable[[float], str] | None = None) -> str:
    """'7.9 [7.6, 8.2]'."""
    estimate, show = point.figures[name], show or plain
    return show(estimate.value) + _interval(estimate, show)


def times(point: Point, name: str) -> str:
    """'210 ms [190, 230]', of the requests that were answered."""
    return f"{ms(point.figures[name].value)} ms{_interval(point.figures[name], ms)}"


def with_failures(point: Point) -> str:
    """' (with failures = inf: p50 210 ms, p99 inf)' of TTFT, where something failed."""
    if not point.n_failed and not point.n_empty:
        return ""
    return (
        " (with failures = inf: "
        + ", ".join(f"{stat} {_time(point.censored[f'ttft_{stat}_s'])}" for stat in ("p50", "p99"))
        + ")"
    )


def left_out(points: Sequence[Point]) -> list[str]:
    """A sentence for each load that has requests which no figure of the table holds."""
    lines = []
    for point in points:
        if point.n_failed or point.n_empty:
            names = {"TTFT": "ttft_p99_s", "latency": "latency_p99_s"}
            inf = ", ".join(f"{title} p99 {_time(point.censored[name])}" for title, name in names.items())
            empty = f" and {point.n_empty:,} without a token" if point.n_empty else ""
            lines.append(f"{name_of(point)}, with failures = inf ({point.n_failed:,} failed{empty}): {inf}")
    return lines


def _time(value: float) -> str:
    return ms(value) + ("" if math.isinf(value) or math.isnan(value) else " ms")


def _interval(estimate: Estimate, show: Callable[[float], str]) -> str:
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return ""
    return f" [{show(estimate.low)}, {show(estimate.high)}]"


def _cut(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"


def as_table(stages: Sequence[tuple[str, AsTool]]) -> list[str]:
    """Another tool's figures for each stage, under its own formulas."""
    tool = stages[0][1].tool
    heads = [f"as {tool}", "req/s", "out tok/s", "TTFT mean", "p50", "p99", "TPOT mean", "ITL mean", "p99", "latency"]
    rows = [heads]
    for load, figures in stages:
        rows.append(
            [
                load,
                plain(figures.requests_per_s),
                plain(figures.output_tokens_per_s),
                ms(figures.ttft.mean),
                ms(figures.ttft.quantiles["p50"]),
                ms(figures.ttft.quantiles["p99"]),
                ms(figures.tpot.mean),
                ms(figures.itl.mean),
                ms(figures.itl.quantiles["p99"]),
                ms(figures.latency.mean),
            ]
        )
    return [*columns(rows), f"({stages[0][1].notes})"]


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows with their cells aligned; the first column is cut where a line would pass 100 columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    room = WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1)
    widths[0] = min(widths[0], max(room, 8))
    return [
        "  ".join([_cut(row[0], widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
