"""The tables of a bench's report: rows of text, a load or a figure each."""

from collections.abc import Sequence

from analyzer.bench.figures.points import Point
from analyzer.bench.figures.stage_results import StageResult
from analyzer.bench.read.length_check import share as share_of
from analyzer.bench.read.request_metrics import TITLES
from analyzer.bench.report import bench_verdict, server_words
from analyzer.bench.report.numbers import ms, plain, share
from analyzer.bench.report.trust import bound_titles
from analyzer.results.text_table import Table, table
from kvt_async.contract.vocabulary import ClientVerdict


def loads(points: Sequence[Point]) -> Table:
    with_levels = any(p.budget is not None for p in points)
    rows = []
    for p in points:
        budget = {"Budget": p.budget.status if p.budget else "-", "Evidence": p.budget.reading if p.budget else "-"}
        rows.append(
            {
                "Load": bench_verdict.name_of(p) + (" (partial)" if p.partial else ""),
                **(budget if with_levels else {}),
                "Repeats": str(len(p.results)),
                "Answered": f"{p.n_started - p.n_failed:,} of {p.n_started:,}",
                "Arrivals/s": bench_verdict.with_interval(p, "arrivals_per_s"),
                "Done/s": bench_verdict.with_interval(p, "requests_per_s"),
                "Output tok/s": bench_verdict.with_interval(p, "output_tokens_per_s"),
                "Input tok/s": plain(p.figures["input_tokens_per_s"].value),
                "Total tok/s": plain(p.figures["total_tokens_per_s"].value),
                "Goodput/s": plain(p.figures["goodput_per_s"].value),
                "In SLO": share(p.attainment),
            }
        )
    methods = sorted({p.figures["requests_per_s"].method for p in points})
    note = "In brackets: 95% confidence interval, " + ", ".join(methods)
    for p in points:
        if reason := p.figures["requests_per_s"].reason:
            note += f". {bench_verdict.name_of(p)}: rates cannot be told, {reason}"
    return table(rows, text_columns=3 if with_levels else 1, note=note + ".")


def latencies(points: Sequence[Point]) -> Table:
    repeated = any(len(p.results) > 1 for p in points)
    failed = any(p.n_failed or p.n_empty for p in points)
    rows = []
    for p in points:
        for metric, title in TITLES.items():
            name = f"{metric}_p99_s"
            if f"{metric}_p50_s" not in p.figures:
                continue
            rows.append(
                {
                    "Load": bench_verdict.name_of(p),
                    "Metric": title,
                    "Mean": ms(p.figures[f"{metric}_mean_s"].value),
                    **{stat: ms(p.figures[f"{metric}_{stat}_s"].value) for stat in ("p50", "p90", "p95")},
                    "p99": bench_verdict.with_interval(p, name, ms),
                    **({"p99 of each repeat": _each(p.repeats.get(name, ()))} if repeated else {}),
                    "Max": ms(p.figures[f"{metric}_max_s"].value),
                    **({"p99, failures = inf": ms(p.censored[name])} if failed else {}),
                    "Client's error": f"±{ms(p.client_error_s(name))}",
                }
            )
    clock = "from the intended start" if points[0].loop == "open" else "from the first byte sent"
    together = ", the repeats of a load together" if repeated else ""
    note = (
        f"Milliseconds of answered requests{together}; TTFT and latency {clock}. In brackets: 95% confidence interval."
    )
    if points[0].loop == "closed":
        note += " A closed loop is blind to stalls: while the server stalls, nothing new is sent."
    return table(rows, text_columns=2, note=note)


def _each(values: Sequence[float]) -> str:
    return ", ".join(ms(value) for value in values) if values else "-"


def objectives(points: Sequence[Point]) -> Table:
    unknown = any(f.n_unknown for p in points for f in p.findings)
    rows = [
        {
            "Load": bench_verdict.name_of(p),
            "Objective": bench_verdict.limit_words(f),
            "Verdict": f.verdict,
            "Seen, ms, failures = inf": ms(f.value_s),
            "Beyond it": f"{f.n_beyond:,} of {f.n:,}",
            **({"Replies that do not show it": f"{f.n_unknown:,}"} if unknown else {}),
            "Requests to tell": f"{f.n_needed:,}" if f.n_needed and f.verdict == "cannot tell" else "",
        }
        for p in points
        for f in p.findings
    ]
    return table(rows, text_columns=3)


def lengths(points: Sequence[Point]) -> Table:
    rows = []
    for p in points:
        check, n_full = p.lengths, p.n_answered - p.n_empty
        rows.append(
            (
                bench_verdict.name_of(p),
                _mean(check.input_asked, check.n_input),
                _mean(check.input_got, check.n_input),
                share_of(check.input_share),
                _mean(check.output_asked, check.n_output),
                _mean(check.output_got, check.n_output),
                share_of(check.output_share),
                f"{p.n_empty:,} of {p.n_answered:,}",
                f"{p.n_one_arrival:,} of {n_full:,}",
            )
        )
    head = (
        "Load",
        "Prompt asked",
        "Prompt got",
        "Got / asked",
        "Reply asked",
        "Reply got",
        "Got / asked",
        "Without a token",
        "In one piece",
    )
    note = "Mean tokens of answered requests. Got: by the server's usage; '-': it does not count."
    if any(p.lengths.estimated for p in points):
        note += " Prompts were asked by an estimate of their tokens, not by the model's tokenizer."
    return Table(head, tuple(rows), note=note)


def _mean(total: int, n: int) -> str:
    return f"{total / n:,.4g}" if n else "-"


def _dispersion(point: Point) -> str:
    """Of the starts; where a trace is replayed, its own beside it: a trace is no Poisson process."""
    audits = [(r.stage.arrival, r.audit) for r in point.results if r.audit]
    if not audits:
        return plain(float("nan"))
    sent, planned = (
        sum(getattr(audit, f"{name}_dispersion") for _, audit in audits) / len(audits) for name in ("sent", "planned")
    )
    return plain(sent) + (f" (the trace: {plain(planned)})" if audits[0][0] == "trace" else "")


def trust(points: Sequence[Point]) -> Table:
    rows = []
    for p in points:
        audits = [r.audit for r in p.results if r.audit]
        client = p.client
        of = ": " + ", ".join(bound_titles(p.client_bound))
        verdict = client.verdict + (of if client.verdict == ClientVerdict.BOUND and p.client_bound else "")
        caches = [r.cache for r in p.results]
        rows.append(
            {
                "Load": bench_verdict.name_of(p),
                "Client": verdict,
                "Client's error, ms": f"±{plain(client.error_bound_ms)}",
                "Signal": client.signal,
                "Rate sent of planned": share(min((a.sent_share for a in audits), default=float("nan"))),
                "Dispersion": _dispersion(p),
                "Send lag p99, ms": ms(max((a.send_lag_s.quantiles["p99"] for a in audits), default=None)),
                "Prefix cache": p.cache
                + (f" ({caches[0].share:.1%}, {caches[0].source})" if caches[0].share is not None else "")
                + (f"; {caches[0].by_trace:.1%} by the trace" if caches[0].by_trace is not None else ""),
                "Tokens by": "/".join(sorted({r.token_source for r in p.results})),
                "Resumed": "yes" if any(r.resumed for r in p.results) else "no",
            }
        )
    return table(rows, text_columns=4)


def server(points: Sequence[Point]) -> Table:
    rows = [
        {
            "Load": bench_verdict.name_of(p),
            "TTFT here": ms(parts.client),
            "TTFT at the server": ms(parts.server),
            "Queue": ms(parts.queue),
            "Prefill": ms(parts.prefill),
            "Other server time": ms(parts.other),
            "Network and client": ms(parts.beyond),
        }
        for p in points
        for r in p.results
        if (parts := r.breakdown) is not None
    ]
    return table(rows, note="Means in ms of all requests of a stage, warm-up included.")


def server_load(points: Sequence[Point]) -> Table:
    """The servers' own load, caches and drafts, a stage each; a column that no server says anything of is left out."""
    rows = [
        {"Load": bench_verdict.name_of(p) + _repeat(r), **server_words.cells(r)}
        for p in points
        for r in p.results
        if r.server is not None
    ]
    told = [name for name in rows[0] if any(row[name] != server_words.UNTOLD for row in rows)] if rows else []
    notes = [server_words.NOTE, *(note for p in points for note in server_words.remarks(p))]
    return table([{name: row[name] for name in told} for row in rows], note=" ".join(notes))


def _repeat(result: StageResult) -> str:
    return f" (repeat {result.stage.repeat_idx})" if result.stage.repeat_idx else ""


def errors(points: Sequence[Point]) -> Table:
    rows = []
    for p in points:
        counts: dict[str, int] = {}
        for r in p.results:
            for name, n in r.errors.items():
                counts[name] = counts.get(name, 0) + n
        rows += [(bench_verdict.name_of(p), name, f"{n:,}") for name, n in counts.items()]
    return Table(("Load", "Error", "Requests"), tuple(rows), text_columns=2)
