"""Facts -> frames: the examples that were run. Their dataset, length bins, contexts and golds."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from analyzer.read.row_portions import read_frame
from analyzer.stats.sample_layout import Layout


@dataclass(frozen=True, slots=True)
class BinnedDataset:
    """A dataset as it was run: its task, how its answers are scored, and its length bins."""

    dataset_id: str
    name: str
    task: str
    tokenizer_name: str
    own_metric: str  # the task's own, of the contract
    bins: dict[int, tuple[int, int]]  # bin_idx -> (lo_tokens, hi_tokens)
    strategy: str  # how examples were selected
    version: int  # of the manifest
    other_metric: str | None = None  # that scores the stored answers in place of the task's own

    @property
    def metric(self) -> str:
        """The metric by which answers are scored."""
        return self.other_metric or self.own_metric

    @property
    def metric_sentence(self) -> str:
        """Says that another metric than the task's own scores the answers; empty where none does."""
        return rescored(self.other_metric, self.own_metric)

    def scored_by(self, metric: str | None) -> "BinnedDataset":
        """The same answers under another metric; None: under the task's own."""
        return replace(self, other_metric=None if metric == self.own_metric else metric)


def rescored(metric: str | None, own_metric: str) -> str:
    """'Scored by f1; the task's own metric is em.'; empty where no other metric scores."""
    return f"Scored by {metric}; the task's own metric is {own_metric}." if metric not in (None, own_metric) else ""


def dataset(conn: sqlite3.Connection, dataset_id: str) -> BinnedDataset:
    row = conn.execute(
        "SELECT dataset_id, name, task, tokenizer_name, metric, json_extract(selection_json, '$.strategy'), "
        "(SELECT max(version) FROM manifests m WHERE m.dataset_id = d.dataset_id) FROM datasets d WHERE dataset_id = ?",
        (dataset_id,),
    ).fetchone()
    limits = conn.execute(
        "SELECT bin_idx, lo_tokens, hi_tokens FROM bins WHERE dataset_id = ? ORDER BY 1", (dataset_id,)
    )
    stored, name, task, tokenizer, metric, strategy, version = row
    bins = {bin_idx: (low, high) for bin_idx, low, high in limits}
    return BinnedDataset(stored, name, task, tokenizer, metric, bins, strategy or "", version or 1)


def has_own_tokenizer(conn: sqlite3.Connection, dataset_id: str) -> bool:
    """Whether prompts were counted with a tokenizer, which the server is taken to share, rather than estimated."""
    row = conn.execute("SELECT tokenizer_name FROM datasets WHERE dataset_id = ?", (dataset_id,)).fetchone()
    return not str(row[0]).startswith("approx:")


def entries(conn: sqlite3.Connection, dataset_id: str) -> pl.DataFrame:
    """One row per manifest entry, in order; `entry` numbers them, `cluster` numbers their contexts."""
    frame = read_frame(
        conn.execute(
            "SELECT e.example_id, e.bin_idx, e.token_len, e.context_tokens, x.context_sha256 FROM manifest_entries e "
            "JOIN examples x ON x.dataset_id = e.dataset_id AND x.example_id = e.example_id "
            "WHERE e.dataset_id = ? ORDER BY e.seq",
            (dataset_id,),
        ),
        {
            "example_id": pl.String,
            "bin_idx": pl.Int64,
            "token_len": pl.Int64,
            "context_tokens": pl.Int64,
            "context_sha256": pl.String,
        },
    )
    return frame.with_row_index("entry").select(
        "entry",
        "example_id",
        "bin_idx",
        "token_len",
        "context_tokens",
        cluster=(pl.col("context_sha256").rank("dense") - 1).cast(pl.Int64),
    )


def places(conn: sqlite3.Connection, dataset_id: str) -> tuple[tuple[str, int], ...]:
    """(context, bin) of each entry of a manifest, in order; empty without one."""
    return tuple(
        conn.execute(
            "SELECT x.context_sha256, e.bin_idx FROM manifest_entries e "
            "JOIN examples x ON x.dataset_id = e.dataset_id AND x.example_id = e.example_id "
            "WHERE e.dataset_id = ? ORDER BY e.seq",
            (dataset_id,),
        )
    )


def contexts(conn: sqlite3.Connection, dataset_id: str) -> pl.Series:
    """What tells the context of every manifest entry from others, over all data sets, in order. Equal contexts are one;
    an example without a context shares it with nobody."""
    own = "CASE WHEN x.context = '' THEN e.dataset_id || ' ' || x.context_sha256 ELSE x.context_sha256 END"
    cursor = conn.execute(
        f"SELECT {own} FROM manifest_entries e JOIN examples x ON x.dataset_id = e.dataset_id "
        "AND x.example_id = e.example_id WHERE e.dataset_id = ? ORDER BY e.seq",
        (dataset_id,),
    )
    return read_frame(cursor, {"context": pl.String})["context"]


def layout(conn: sqlite3.Connection) -> Layout | None:
    """How the examples of the manifest that was stored last lie in contexts and bins; None without one."""
    row = conn.execute("SELECT dataset_id FROM manifests ORDER BY created_at DESC, rowid DESC LIMIT 1").fetchone()
    if row is None:
        return None
    frame = entries(conn, row[0])
    return Layout.of(frame["cluster"].to_numpy(), frame["bin_idx"].to_numpy()) if frame.height else None


def golds(
    conn: sqlite3.Connection, dataset_id: str, *, needs_meta: Sequence[str] = (), only: pl.Series | None = None
) -> pl.DataFrame:
    """example_id, token_len, golds (list of text) and, where fields of meta are needed, needed_json (a JSON object of
    these fields; null: the example has none of that name) of every entry, or of `only` these example_ids."""
    columns = "e.example_id, e.token_len, x.answers_json"
    if needs_meta:
        fields = " || ',' || ".join(f"""'"{field}":' || {_field_as_json(field)}""" for field in needs_meta)
        columns += f", '{{' || {fields} || '}}'"
    schema: dict[str, Any] = {"example_id": pl.String, "token_len": pl.Int64, "answers_json": pl.String}
    cursor = conn.execute(
        f"SELECT {columns} FROM manifest_entries e "
        "JOIN examples x ON x.dataset_id = e.dataset_id AND x.example_id = e.example_id WHERE e.dataset_id = ?"
        + ("" if only is None else " AND e.example_id IN (SELECT value FROM json_each(?))"),
        (dataset_id,) if only is None else (dataset_id, json.dumps(only.to_list())),
    )
    frame = read_frame(cursor, schema | ({"needed_json": pl.Categorical} if needs_meta else {}))
    return with_golds(frame)


def with_golds(frame: pl.DataFrame) -> pl.DataFrame:
    """A frame with golds (lists of text) in place of answers_json, at its end."""
    return frame.drop("answers_json").with_columns(golds=_lists(frame["answers_json"].to_list()))


def _lists(texts: Sequence[str]) -> pl.Series:
    """Lists of texts from JSON lists, by way of one column: a Series made of lists takes ten times as long."""
    parsed = [json.loads(text) for text in texts]
    rows = [row for row, golds in enumerate(parsed) for _ in golds]
    flat = pl.DataFrame(
        {"row": rows, "golds": [str(gold) for golds in parsed for gold in golds]},
        schema={"row": pl.UInt32, "golds": pl.String},
    )
    lists = flat.group_by("row", maintain_order=True).agg("golds")
    every = pl.DataFrame({"row": pl.int_range(len(texts), dtype=pl.UInt32, eager=True)})
    joined = every.join(lists, on="row", how="left", maintain_order="left")
    return joined["golds"].fill_null(pl.Series([[]], dtype=pl.List(pl.String)))


def _field_as_json(field: str) -> str:
    """SQL of a field of meta as JSON text. json_extract makes numbers of true and false."""
    path = f"""x.meta_json, '$."{field}"'"""
    flags = f"CASE json_type({path}) WHEN 'true' THEN 'true' WHEN 'false' THEN 'false'"
    return f"{flags} ELSE json_quote(json_extract({path})) END"
