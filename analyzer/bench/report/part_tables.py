"""Steps, slices of a ramp and models of a load as people read them. Points in, text out."""

import math
from collections.abc import Sequence

from analyzer.bench.figures.load_parts import LoadPart
from analyzer.bench.figures.part_facts import MODEL
from analyzer.bench.figures.points import Point
from analyzer.bench.figures.spread import Estimate
from analyzer.bench.report.bench_verdict import columns, limit_words, name_of
from analyzer.bench.report.numbers import ms, plain, share
from analyzer.bench.report.part_words import break_words
from analyzer.results.text_table import Table, table


def lines(points: Sequence[Point]) -> list[str]:
    """The terminal's tables of parts, 100 columns wide; empty where no load has any."""
    text: list[str] = []
    for point in points:
        for spans in (True, False):
            parts = [part for part in point.parts if (part.kind != MODEL) is spans]
            if not parts:
                continue
            heads = ["requests", "done/s", "in flight"] if spans else ["requests", "share", "asked"]
            rows = [[name_of(point), *heads, "TTFT p50", "p99", "TPOT p50", "lat. p50", "p99", "failed"]]
            for part in parts:
                busy = f"{part.in_flight_mean:.3g} ({part.in_flight_peak})"
                of_part = [_rate(part, "requests_per_s"), busy] if spans else _shares(part, parts)
                names = ("ttft_p50_s", "ttft_p99_s", "tpot_p50_s", "latency_p50_s", "latency_p99_s")
                times = [ms(part.figures[name].value) for name in names]
                rows.append([f"  {_name(part)}", f"{part.n:,}", *of_part, *times, f"{part.n_failed:,}"])
            text += [*columns(rows), *(f"({note})" for note in _notes(point, parts))]
    return text


def parts_table(points: Sequence[Point], *, models: bool) -> Table | None:
    """The report's table of steps and slices, or of models; None without any."""
    rows, notes = [], []
    for point in points:
        parts = [part for part in point.parts if (part.kind == MODEL) is models]
        for part in parts:
            row = {**({"Load": name_of(point)} if len(points) > 1 else {}), "Model" if models else "Part": _name(part)}
            if models:
                sent, asked = _shares(part, parts)
                row |= {"Share sent": sent, "Share asked": asked}
            else:
                row |= {
                    "Seconds": f"{part.begins_s:g} to {part.ends_s:g}",
                    "Left out at its head": f"{part.n_margin:,} in {plain(part.margin_s)} s" if part.margin_s else "-",
                    "Done/s": _with_interval(part.figures.get("requests_per_s")),
                    "Output tok/s": _with_interval(part.figures.get("output_tokens_per_s")),
                    "In flight (most)": f"{plain(part.in_flight_mean)} ({part.in_flight_peak:,})",
                }
            row |= {"Answered": f"{part.n - part.n_failed:,} of {part.n:,}"}
            for metric, title in (("ttft", "TTFT"), ("tpot", "TPOT"), ("latency", "Latency")):
                row |= {f"{title} {stat}": ms(part.figures[f"{metric}_{stat}_s"].value) for stat in ("p50", "p99")}
            if part.findings:
                row |= {"Objectives": "; ".join(f"{limit_words(f)}: {f.verdict}" for f in part.findings)}
            rows.append(row)
        notes += _notes(point, parts)
    if not rows:
        return None
    return table(
        rows,
        text_columns=2 if len(points) > 1 else 1,
        note=" ".join(["Times in milliseconds.", *(f"{note}." for note in notes)]),
    )


def _notes(point: Point, parts: Sequence[LoadPart]) -> list[str]:
    if not parts or parts[0].kind == MODEL:
        return []
    notes = [break_words(point, one) for one in point.breaks]
    for part in parts:
        if part.settled_s is not None:
            came = f"was after {part.settled_s:.3g} s" if not math.isnan(part.settled_s) else "did not come back to be"
            notes.append(f"{_name(part)}: TTFT {came} what it was at this load before the peak")
    untold = {figure.reason for part in parts if (figure := part.figures.get("requests_per_s")) and figure.reason}
    notes += [f"rates of a step that cannot be told: {reason}" for reason in sorted(untold)]
    margins = {round(part.margin_s, 3) for part in parts if part.margin_s}
    if margins:
        notes.append("The first latency of each step is left out of its figures")
    return notes


def _name(part: LoadPart) -> str:
    return part.name if part.kind != "step" else f"step {part.idx + 1}: {part.name}"


def _shares(part: LoadPart, parts: Sequence[LoadPart]) -> list[str]:
    """Share of the requests that were sent to a model, and the one that was asked for."""
    total = sum(one.n for one in parts)
    return [share(part.n / total if total else math.nan), share(part.value)]


def _rate(part: LoadPart, name: str) -> str:
    return plain(part.figures[name].value) if name in part.figures else "-"


def _with_interval(figure: Estimate | None) -> str:
    if figure is None:
        return "-"
    if math.isnan(figure.low) or math.isnan(figure.high):
        return plain(figure.value)
    return f"{plain(figure.value)} [{plain(figure.low)}, {plain(figure.high)}]"
