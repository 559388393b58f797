"""Derived rows of a bench -> SQLite, whole groups at a time."""

import math
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from analyzer.bench.figure_json import dumps, estimate_json, finite, objective_json
from analyzer.bench.figures.conversation_figures import METRICS
from analyzer.bench.figures.points import Point
from analyzer.bench.figures.saturation import LoadZone, highest_within, knee
from analyzer.bench.figures.stage_results import StageResult
from analyzer.bench.quality.load_loss import LoadLoss
from analyzer.bench.read.server_side import Drafting
from analyzer.bench.stored_parts import BenchPart, part_rows
from analyzer.store.derived_rows import fingerprint, in_transaction, replace_group, replace_runs, set_state
from analyzer.store.tables import BenchConversations, BenchTurn, as_columns, columns
from kvt_async.contract.schema import lacking

Json = dict[str, Any]


BENCH_VERSION = "3"  # raise it whenever a stored figure of a bench could change
STAGE = "bench"
TABLES = {
    "bench_points": ("level", "load"),
    "bench_zones": ("level", "kind"),
    "bench_turns": ("level", "load", "turn"),
    "bench_conversations": ("level", "load"),
    "bench_parts": BenchPart.KEY,
    "bench_quality": LoadLoss.KEY,
    "bench_stats": ("run_id", "metric"),
    "run_evidence": ("run_id",),
}
"""What is stored of a bench, with the columns that tell rows apart (of one generation)."""
Rows = dict[str, list[Json]]  # by table


def table_rows(
    group: str,
    generation: int,
    points: Sequence[Point],
    results: Sequence[StageResult],
    zones: Sequence[Json],
    losses: Sequence[LoadLoss] = (),
) -> Rows:
    """Every derived row of a benched group, each with the fingerprint of them all."""
    about = {"exp_group_id": group, "generation": generation}
    loads = [point_row(group, generation, point) for point in points]
    of_answers = [as_columns(loss, **about) for loss in losses]
    mark = {"fingerprint": fingerprint(loads, *([of_answers] if of_answers else []))}
    return {
        "bench_points": [row | mark for row in loads],
        "bench_zones": [about | zone | mark for zone in zones],
        "bench_turns": [about | as_columns(row, **mark) for point in points for row in turn_rows(point)],
        "bench_conversations": [about | as_columns(row, **mark) for point in points for row in talk_rows(point)],
        "bench_parts": [about | as_columns(row, **mark) for point in points for row in part_rows(point)],
        "bench_quality": [row | mark for row in of_answers],
        "bench_stats": [row | mark for result in results for row in stat_rows(result)],
        "run_evidence": [as_columns(result.budget.row, **mark) for result in results if result.budget is not None],
    }


def write(conn: sqlite3.Connection, group: str, generation: int, rows: Rows, made_under: Json) -> None:
    """Replace what is stored of this group, and record how it was made: `made_under` holds alpha, the objectives where
    they are not the stages' own and, of answers that are scored, the margin and the metric."""

    def work(c: sqlite3.Connection) -> None:
        for table in (name for name, keys in TABLES.items() if "level" in keys):
            if rows[table] or table not in lacking(c):
                replace_group(c, table, group, generation, rows[table])
        runs = [row[0] for row in c.execute(_RUNS, (group, generation))]
        for table in ("bench_stats", "run_evidence"):
            replace_runs(c, table, runs, rows[table])
        detail = made_under | {"analyzer_version": BENCH_VERSION, "outcomes": n_outcomes(c, group, generation)}
        mark = rows["bench_points"][0]["fingerprint"] if rows["bench_points"] else ""
        set_state(c, group, generation, STAGE, "*", mark, detail)

    in_transaction(conn, work)


_RUNS = "SELECT run_id FROM runs WHERE exp_group_id = ? AND generation = ?"


def n_outcomes(conn: sqlite3.Connection, group: str, generation: int) -> int:
    """How many responses and failures a benched group has. With more of them than when it was analysed, what is stored
    is older than the facts."""
    counts = [
        conn.execute(
            f"SELECT count(*) FROM {table} JOIN requests USING (request_id) WHERE run_id IN ({_RUNS})",
            (group, generation),
        ).fetchone()[0]
        for table in ("responses", "give_ups")
    ]
    return sum(counts)


def zone_rows(points: Sequence[Point]) -> list[Json]:
    """The rows of bench_zones: knee and objectives of every level that has them."""
    rows: list[Json] = []
    for level in dict.fromkeys(point.level for point in points):
        of_level = [point for point in points if point.level == level]
        zones: dict[str, LoadZone | None] = {"knee": knee(of_level), "objectives": highest_within(of_level)}
        for kind, zone in zones.items():
            if zone is not None:
                rows.append({"level": level or "", "kind": kind, "loop": of_level[0].loop, **asdict(zone)})
    return rows


def point_row(group: str, generation: int, point: Point) -> Json:
    """Columns of bench_points, without the fingerprint."""
    audits = [result.audit for result in point.results if result.audit is not None]
    shares = [result.cache.share for result in point.results if result.cache.share is not None]
    sent = [a.sent_share for a in audits if not math.isnan(a.sent_share)]
    spread = [a.sent_dispersion for a in audits if not math.isnan(a.sent_dispersion)]
    sources = {result.token_source for result in point.results}
    return {
        "exp_group_id": group,
        "generation": generation,
        "level": point.level or "",
        "load": point.load,
        "loop": point.loop,
        "value": point.value,
        "n_repeats": len(point.results),
        "n_started": point.n_started,
        "n_failed": point.n_failed,
        "n_owed": sum(result.stage.n_owed for result in point.results if result.stage.partial),
        "attainment": None if math.isnan(point.attainment) else point.attainment,
        "sent_share": min(sent, default=None),
        "dispersion": sum(spread) / len(spread) if spread else None,
        "cache": point.cache,
        "cached_share": sum(shares) / len(shares) if shares else None,
        "client": point.client.verdict,
        "error_bound_ms": finite(point.client.error_bound_ms),
        "token_source": sources.pop() if len(sources) == 1 else "mixed",
        "figures_json": dumps({name: figure_json(point, name) for name in point.figures}),
        "with_failures_json": dumps({name: finite(value) for name, value in point.censored.items()}),
        "objectives_json": dumps([objective_json(finding) for finding in point.findings]),
        "server_json": dumps(_server(point)),
    }


def stat_rows(result: StageResult) -> list[Json]:
    """The rows of bench_stats of one stage."""
    return [
        {
            "run_id": result.stage.run_id,
            "metric": metric,
            "n": summary.n,
            "n_failed": summary.n_failed,
            "mean_s": summary.mean,
            **{f"{name}_s": value for name, value in summary.quantiles.items()},
            "max_s": summary.maximum,
            **{f"{name}_with_failures_s": value for name, value in summary.censored.items()},
        }
        for metric, summary in result.summaries.items()
    ]


def turn_rows(point: Point) -> list[BenchTurn]:
    """The rows of bench_turns of one load."""
    rows = []
    for of in point.turns:
        row: Json = {name: getattr(of, name) for name in columns(BenchTurn) if hasattr(of, name)}
        for metric in METRICS:
            row |= {f"{metric}_{stat}_s": finite(of.summaries[metric].stat(stat)) for stat in ("p50", "p99")}
        rows.append(BenchTurn(level=point.level or "", load=point.load, **row))
    return rows


def talk_rows(point: Point) -> list[BenchConversations]:
    """The row of bench_conversations of one load; none where it had no conversations."""
    if (talks := point.conversations) is None:
        return []
    return [
        BenchConversations(
            level=point.level or "",
            load=point.load,
            n=talks.n,
            n_whole=talks.n_whole,
            n_failed=talks.n_failed,
            turns_mean=talks.turns_mean,
            duration_p50_s=finite(talks.duration.stat("p50")),
            duration_p99_s=finite(talks.duration.stat("p99")),
            think_mean_s=finite(talks.think_mean_s),
            input_tokens_mean=finite(talks.input_tokens_mean),
            output_tokens_mean=finite(talks.output_tokens_mean),
        )
    ]


def conversations_json(point: Point) -> Json:
    """What --json says of conversations: `turns`, empty without any, and `conversations`, null."""
    rows = [{**asdict(row), "cache": str(row.cache)} for row in turn_rows(point)]
    talks = [asdict(row) for row in talk_rows(point)]
    for row in (*rows, *talks):
        del row["level"], row["load"]
    return {"turns": rows, "conversations": talks[0] if talks else None}


def budget_json(point: Point) -> Json | None:
    """What --json says of a level's budget."""
    if (budget := point.budget) is None:
        return None
    names = ("status", "source", "reason", "n", "n_off", "requested", "effective_p50")
    return {**{name: getattr(budget.row, name) for name in names}, "unit": budget.unit, "kv_bytes_p50": budget.kv_bytes}


def figure_json(point: Point, name: str) -> Json:
    """A figure with its interval; a time with each repeat's own and with this client's error."""
    estimate = point.figures[name]
    figure = estimate_json(estimate)
    if name in point.repeats:
        figure["repeats"] = [finite(value) for value in point.repeats[name]]
    if name.endswith("_s") and not name.endswith("_per_s"):
        figure["client_error"] = finite(point.client_error_s(name))
    return figure


def replies_json(point: Point) -> Json:
    """What the replies were like: tokens asked and got, replies without a token, those that came in one piece, first
    tokens that came with others, and replies that [DONE] alone ended."""
    lengths = point.lengths
    return {
        "n_answered": point.n_answered,
        "n_empty": point.n_empty,
        "n_one_arrival": point.n_one_arrival,
        "n_coalesced": point.n_coalesced,
        "n_done_alone": point.n_done_alone,
        "input_tokens": {
            "n": lengths.n_input,
            "asked": lengths.input_asked,
            "got": lengths.input_got,
            "share": finite(lengths.input_share),
            "estimated": lengths.estimated,
            "n_cut": lengths.n_cut,
        },
        "output_tokens": {
            "n": lengths.n_output,
            "asked": lengths.output_asked,
            "got": lengths.output_got,
            "share": finite(lengths.output_share),
        },
    }


def _server(point: Point) -> Json:
    """What the servers said of a load, its repeats put together; a name that is not there is one that no server says,
    and a count of 0 stood still."""
    parts = [result.breakdown for result in point.results if result.breakdown is not None]
    row: Json = {"replies": replies_json(point)}
    if parts:
        row["ttft_parts_s"] = {
            name: finite(sum(getattr(part, name) for part in parts) / len(parts))
            for name in ("client", "server", "queue", "prefill", "other", "beyond")
        }
    sides = [result.server for result in point.results if result.server is not None]
    if not sides:
        return row
    usage = [side.gauges["kv_usage"] for side in sides if "kv_usage" in side.gauges]
    if usage:
        row["kv_cache_usage_mean"] = finite(sum(u.mean for u in usage) / len(usage))
        row["kv_cache_usage_max"] = finite(max(u.maximum for u in usage))
    row["engine"] = sides[0].engine
    row["stages"] = [_side_json(result) for result in point.results if result.server is not None]
    return row


def shared_json(point: Point) -> Json:
    """The share of prompt tokens that began like an earlier prompt, as a replayed trace says; empty: none says it."""
    said = [result.cache.by_trace for result in point.results if result.cache.by_trace is not None]
    return {"shared_share": sum(said) / len(said)} if said else {}


def _side_json(result: StageResult) -> Json:
    """One stage. `histograms` in seconds; `counters`: by how much they grew over the stage."""
    side = result.server
    assert side is not None
    return {
        "repeat": result.stage.repeat_idx,
        "histograms": {
            name: {"n": seen.count, "mean_s": seen.mean, "p50_s": finite(seen.p50), "p99_s": finite(seen.p99)}
            for name, seen in side.histograms.items()
        },
        "gauges": {name: {"mean": span.mean, "max": span.maximum} for name, span in side.gauges.items()},
        "counters": dict(side.counters),
        "cached_share": finite(side.cached_share),
        "drafting": None if side.drafting is None else _drafting_json(side.drafting),
        "restarts": side.n_restarts,
        "requests_of_others": side.of_others,
        "tokens_of_others": side.tokens_of_others,
    }


def _drafting_json(drafting: Drafting) -> Json:
    return {
        "acceptance": finite(drafting.acceptance),
        "accepted_length": finite(drafting.accepted_length),
        "draft_length": finite(drafting.draft_length),
        "by_position": list(drafting.by_position),
        "source": drafting.source,
    }
