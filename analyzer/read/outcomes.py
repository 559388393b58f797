"""Facts -> frames: the requests of one run, in chunks, as scoring, analysis and export read them."""

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Literal

import polars as pl

from analyzer.read.divergence import first_divergence
from analyzer.read.examples import with_golds
from analyzer.read.group_connection import baselines, parts
from analyzer.read.json_count import json_count
from analyzer.read.later_turns import without_lengths
from analyzer.read.row_portions import portions, read_frame
from analyzer.read.run_counts import refused
from analyzer.read.runs import Run
from analyzer.read.same_answer import calls_of, same_answer
from kvt_async.contract.schema_tables import columns_of
from kvt_async.contract.vocabulary import Unit

# Full cache's text where its answer is another one: as much of it as can matter, so that portions stay as small as they
# are. Answers that differ in their tool calls alone part at the end of their text.
_PARTED = "CASE WHEN NOT ({same}) THEN substr({full}.text, 1, length(CAST(p.text AS BLOB))) END"
_FULL = """LEFT JOIN {requests} f{i} ON f{i}.run_id = :full AND f{i}.example_id = r.example_id
    AND f{i}.sample_idx = r.sample_idx AND f{i}.turn_idx = r.turn_idx
    LEFT JOIN {responses} pf{i} ON pf{i}.request_id = f{i}.request_id"""


Reads = Literal["text", "calls", "given"]
"""What of a reply a metric reads: its text; its tool calls, where it made any; the score that another tool gave it."""
_READ: dict[Reads, str] = {
    "text": "NULL",
    "calls": calls_of("p"),  # without ids: equal calls are scored once
    "given": "CAST(json_extract(p.usage_json, '$.given.score') AS TEXT)",
}


def score_inputs(
    conn: sqlite3.Connection, runs: Sequence[Run], full_run_id: str | None, *, reads: Reads = "text"
) -> Iterator[pl.DataFrame]:
    """Finished requests of runs that share their full cache, in chunks: what scoring reads.

    request_id, example_id, is_failure, error_type, text, finish_reason, prompt_tokens (as the server counted),
    identical (1: same answer as at full cache, null there and where it isn't known), first_divergence (how many
    characters a text that isn't the same begins with as full cache's does), reasoned (the reply held reasoning in a
    field of its own), called (it made tool calls), sample_idx and, where the metric `reads` another thing than the
    text, read (tool calls as JSON without ids; the score that came with an imported answer; null: there is none).
    An example's n-th answer is compared with its n-th at full cache.
    """
    schema: dict[str, Any] = {
        "request_id": pl.String,
        "example_id": pl.String,
        "text": pl.String,
        "finish_reason": pl.String,
        "prompt_tokens": pl.Int64,
        "identical": pl.Int64,
        "of_full": pl.String,
        "is_failure": pl.Int64,
        "error_type": pl.String,
        "reasoned": pl.Int64,
        "called": pl.Int64,
        "read": pl.String,
        "sample_idx": pl.Int64,
    }
    texts = [*schema].index("text"), [*schema].index("read")
    answered = (
        part.execute(
            _answered(part, reads),
            {"run": run.run_id, "full": None if full_run_id == run.run_id else full_run_id},
        )
        for part in parts(conn)
        for run in runs
    )
    failed = (
        part.execute(
            "SELECT f.request_id, f.example_id, NULL, NULL, NULL, NULL, NULL, 1, ifnull(f.error_type, f.reason), "
            "0, 0, NULL, r.sample_idx FROM failures f JOIN requests r ON r.request_id = f.request_id "
            "WHERE f.run_id = ?",
            (run.run_id,),
        )
        for part in parts(conn)
        for run in runs
    )
    unknown = {request for run in runs for request in refused(conn, run.run_id)}
    for cursors in (answered, failed):
        for rows in portions(chain.from_iterable(cursors), *texts):
            finished = [row for row in rows if row[0] not in unknown] if unknown and cursors is failed else rows
            frame = pl.DataFrame(finished, schema=schema, orient="row")
            frame = frame.with_columns(
                pl.col("is_failure", "reasoned", "called").cast(pl.Boolean),
                first_divergence=first_divergence(frame["text"], frame["of_full"]),
            )
            yield frame.drop("of_full", *(["read"] if reads == "text" else []))


def _answered(part: sqlite3.Connection, reads: Reads) -> str:
    """What scoring reads of the answers of a `run` beside those of `full`, wherever these lie."""
    sources = [{"i": i, "requests": names[0], "responses": names[1]} for i, names in enumerate(baselines(part))]
    same = [same_answer("p", f"pf{source['i']}") for source in sources]
    other = [_PARTED.format(same=each, full=f"pf{i}") for i, each in enumerate(same)]
    return (
        "SELECT r.request_id, r.example_id, p.text, p.finish_reason, t.prompt_tokens, "
        f"{_first(same)}, {_first(other)}, 0, NULL, ifnull(p.reasoning, '') != '', "
        f"ifnull(p.tool_calls_json, '') != '', {_READ[reads]}, r.sample_idx "
        "FROM requests r JOIN responses p ON p.request_id = r.request_id "
        "LEFT JOIN telemetry t ON t.request_id = p.request_id AND t.attempt_idx = p.attempt_idx "
        f"{' '.join(_FULL.format(**source) for source in sources)} WHERE r.run_id = :run"
    )


def _first(expressions: Sequence[str]) -> str:
    """The first that isn't null."""
    return expressions[0] if len(expressions) == 1 else f"coalesce({', '.join(expressions)})"


# Tokens kept: the server's figure, or of a prompt that was cut before it was sent, its length.
_SAID = json_count("p.usage_json", "$.kv.kept_tokens")
_KEPT = f"ifnull({_SAID}, {json_count('p.kv_evidence_json', '$.kept_tokens')})"

# Latencies of one request, as attempt_metrics names them: those of which bin_stats has the median.
LATENCIES = tuple(f"{name.removesuffix('_p50_s')}_s" for name in columns_of("bin_stats") if name.endswith("_p50_s"))

_OUTCOME_COLUMNS: dict[str, Any] = {
    "example_id": pl.String,
    "score": pl.Float64,
    "em": pl.Float64,
    "f1": pl.Float64,
    "failure_label": pl.String,
    "flags": pl.String,
    "first_divergence": pl.Int64,
    "is_failure": pl.Int64,
    **dict.fromkeys(LATENCIES, pl.Float64),
    "prompt_tokens": pl.Int64,
    "completion_tokens": pl.Int64,
    "cached_tokens": pl.Int64,
    "kv_effective": pl.Float64,
    "source": pl.String,
    "kept_tokens": pl.Float64,
    "kv_bytes": pl.Float64,
    "compressible_tokens": pl.Int64,
}
_OF_ANSWERS: dict[str, Any] = {"finish_reason": pl.String, "sample_idx": pl.Int64}
# Of a request r, its response p, its scores s and the metrics m of the attempt that answered.
_OUTCOME_SQL = f"""r.example_id, s.score, s.em, s.f1, s.failure_label, s.flags, s.first_divergence,
    p.request_id IS NULL,
    {", ".join(f"m.{name}" for name in LATENCIES)}, m.prompt_tokens, m.completion_tokens, m.cached_tokens,
    p.kv_effective, json_extract(p.kv_evidence_json, '$.source'), {_KEPT},
    {json_count("p.usage_json", "$.kv.bytes")}, {json_count("p.usage_json", "$.kv.compressible_tokens")}"""


_EVERY = 1 << 31  # more answers of an example than can be


def outcomes(
    conn: sqlite3.Connection, runs: Sequence[Run], samples: int | None = None, *, entries: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Finished and scored requests of runs with latencies, tokens and evidence: run (its place among `runs`), columns
    as _OUTCOME_COLUMNS, and _OF_ANSWERS. samples: only the first so many answers of each example; None: all.

    With the `entries` of their manifest, those that have one, and its columns in place of example_id: the texts that
    each row would hold are then never there for more than a portion of the rows."""
    rows = chain.from_iterable(
        part.execute(
            f"SELECT ?, {_OUTCOME_SQL}, p.finish_reason, r.sample_idx "
            "FROM requests r JOIN scores s ON s.request_id = r.request_id "
            "LEFT JOIN responses p ON p.request_id = r.request_id "
            "LEFT JOIN attempt_metrics m ON m.request_id = p.request_id AND m.attempt_idx = p.attempt_idx "
            "WHERE r.run_id = ? AND r.sample_idx < ?",
            (i, run.run_id, samples or _EVERY),
        )
        for i, run in enumerate(runs)
        for part in parts(conn)
    )
    schema = {"run": pl.Int64} | _OUTCOME_COLUMNS | _OF_ANSWERS
    frame = read_frame(rows, schema, lambda part: part if entries is None else _with_entries(part, entries))
    return frame.with_columns(pl.col("is_failure").cast(pl.Boolean))


def _with_entries(part: pl.DataFrame, entries: pl.DataFrame) -> pl.DataFrame:
    few = pl.col("failure_label", "source").cast(pl.Categorical)
    return part.join(entries, on="example_id", how="inner").drop("example_id").with_columns(few)


def normalised_answers(conn: sqlite3.Connection, run: Run, samples: int) -> pl.DataFrame:
    """example_id, sample_idx, pred_norm of the first `samples` answers of each example that are scored; failures have
    none."""
    rows = chain.from_iterable(
        part.execute(
            "SELECT r.example_id, r.sample_idx, s.pred_norm FROM requests r "
            "JOIN scores s ON s.request_id = r.request_id "
            "WHERE r.run_id = ? AND r.sample_idx < ? AND s.pred_norm IS NOT NULL",
            (run.run_id, samples),
        )
        for part in parts(conn)
    )
    return read_frame(rows, {"example_id": pl.String, "sample_idx": pl.Int64, "pred_norm": pl.String})


def share_with_gold(conn: sqlite3.Connection, run: Run, samples: int) -> float | None:
    """Share of the scored ones of the first `samples` answers of each example whose normalised text holds, as whole
    words, the gold that scored best; None without scores."""
    holds = "gold_norm != '' AND instr(' ' || pred_norm || ' ', ' ' || gold_norm || ' ') > 0"
    sql = f"""SELECT count(*), count(*) FILTER (WHERE {holds}) FROM requests r
        JOIN scores s ON s.request_id = r.request_id WHERE r.run_id = ? AND r.sample_idx < ?"""
    counts = [part.execute(sql, (run.run_id, samples)).fetchone() for part in parts(conn)]
    n, n_held = (sum(column) for column in zip(*counts, strict=True))
    return n_held / n if n else None


LONG_TEXTS = ("text", "question", "answers_json", "context")
_EXPORT_COLUMNS: dict[str, Any] = {
    "exp_group_id": pl.String,
    "model_name": pl.String,
    "task": pl.String,
    "dataset_id": pl.String,
    "run_id": pl.String,
    "series": pl.String,
    "kv_budget": pl.Float64,
    "repeat_idx": pl.Int64,
    "request_id": pl.String,
    "sample_idx": pl.Int64,
    "turn_idx": pl.Int64,
    "bin_idx": pl.Int64,
    "token_len": pl.Int64,
    "text": pl.String,
    "tool_calls_json": pl.String,
    "finish_reason": pl.String,
    "cache_state": pl.String,
    "metric": pl.String,
    "error_type": pl.String,
    "question": pl.String,
    "answers_json": pl.String,
    "context_sha256": pl.String,
}


def export_rows(conn: sqlite3.Connection, run: Run, task: str, *, with_context: bool = False) -> Iterator[pl.DataFrame]:
    """Finished requests of one run of a task in chunks, with group, model, level, bin, question, golds (a list of
    text), answer, scores (null: not scored) and metrics; `with_context`: and with the context as it was sent.

    kept_tokens as in the report: the server's figure, else from the effective budget; null without evidence.
    """
    schema = _EXPORT_COLUMNS | ({"context": pl.String} if with_context else {}) | _OUTCOME_COLUMNS
    failed: dict[str, str] = {
        request: reason
        for part in parts(conn)
        for request, reason in part.execute(
            "SELECT request_id, ifnull(error_type, reason) FROM failures WHERE run_id = ?", (run.run_id,)
        )
    }
    sql = (
        "SELECT u.exp_group_id, u.model_name, ?, u.dataset_id, u.run_id, u.series, u.kv_budget, u.repeat_idx, "
        "r.request_id, r.sample_idx, r.turn_idx, e.bin_idx, e.token_len, p.text, p.tool_calls_json, "
        "p.finish_reason, p.cache_state, s.metric, NULL, x.question, x.answers_json, x.context_sha256, "
        f"{'x.context, ' if with_context else ''}{_OUTCOME_SQL} "
        "FROM requests r JOIN runs u ON u.run_id = r.run_id "
        "JOIN manifest_entries e ON e.dataset_id = u.dataset_id AND e.example_id = r.example_id "
        "JOIN examples x ON x.dataset_id = e.dataset_id AND x.example_id = e.example_id "
        "LEFT JOIN responses p ON p.request_id = r.request_id LEFT JOIN scores s ON s.request_id = r.request_id "
        "LEFT JOIN attempt_metrics m ON m.request_id = p.request_id AND m.attempt_idx = p.attempt_idx "
        "WHERE r.run_id = ? ORDER BY e.seq, r.sample_idx, r.turn_idx"
    )
    cursor = chain.from_iterable(part.execute(sql, (task, run.run_id)) for part in parts(conn))
    for request in refused(conn, run.run_id):
        failed.pop(request, None)
    for rows in portions(cursor, *(place for place, name in enumerate(schema) if name in LONG_TEXTS)):
        frame = with_golds(pl.DataFrame(rows, schema=schema, orient="row", strict=False))
        frame = without_lengths(conn, [run.run_id], frame).with_columns(
            pl.col("is_failure").cast(pl.Boolean),
            kept_tokens=kept_tokens(run.kv_unit),
            error_type=pl.col("request_id").replace_strict(failed, default=None, return_dtype=pl.String),
        )
        yield frame.filter(~pl.col("is_failure") | pl.col("request_id").is_in(list(failed)))


def kept_fraction(unit: str, decoding: pl.Expr | None = None) -> pl.Expr:
    """Effective budget as a fraction of the prompt; null without evidence, for bit widths, and for a cap on what is
    held while the answer is generated (`decoding`), which is no part of a prompt."""
    effective, length = pl.col("kv_effective"), pl.col("prompt_tokens").fill_null(pl.col("token_len"))
    if unit == Unit.TOKENS:
        share = pl.min_horizontal(effective / length, pl.lit(1.0))
        return share if decoding is None else pl.when(~decoding).then(share)
    return effective if unit == Unit.FRACTION else pl.lit(None, dtype=pl.Float64)


def kept_tokens(unit: str) -> pl.Expr:
    """Tokens kept: as the server counted them, else from the effective budget; null without evidence."""
    length = pl.col("prompt_tokens").fill_null(pl.col("token_len"))
    effective = pl.col("kv_effective")
    if unit == Unit.FRACTION:
        return pl.coalesce("kept_tokens", effective * length)
    return pl.coalesce("kept_tokens", effective if unit == Unit.TOKENS else pl.lit(None, dtype=pl.Float64))
