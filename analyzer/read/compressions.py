"""What replies say of budgets that applied while they were generated: how often the cache was compressed, and the most
that it held, beside full cache's answer to the same prompt."""

import json
import sqlite3
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from analyzer.read.group_connection import parts
from analyzer.read.json_count import json_count
from analyzer.read.row_portions import read_frame
from analyzer.read.runs import Run, baseline_id
from kvt_async.contract.formulas.decode_budget import USUAL_INTERVAL, first_compression, interval_of
from kvt_async.contract.vocabulary import When

Floats = npt.NDArray[np.float64]

_FROM = """FROM requests r JOIN responses p ON p.request_id = r.request_id
LEFT JOIN telemetry t ON t.request_id = p.request_id AND t.attempt_idx = p.attempt_idx
WHERE r.run_id = ? AND r.sample_idx < ?"""
_KEY: dict[str, Any] = {"example_id": pl.String, "sample_idx": pl.Int64, "turn_idx": pl.Int64}
_HERE = f"""SELECT r.example_id, r.sample_idx, r.turn_idx, {json_count("p.kv_evidence_json", "$.n_compressions")},
    {json_count("p.kv_evidence_json", "$.peak_tokens")}, {json_count("p.kv_evidence_json", "$.kept_tokens")},
    t.prompt_tokens, t.completion_tokens, p.kv_effective IS NOT NULL {_FROM}"""
_OF_HERE = _KEY | {
    "n": pl.Float64,
    "peak": pl.Float64,
    "kept": pl.Float64,
    "prompt": pl.Float64,
    "completion": pl.Float64,
    "shows": pl.Float64,
}
# At full cache nothing is evicted: it holds the prompt and every token of the answer but the last, which is not read.
_FULL = f"""SELECT r.example_id, r.sample_idx, r.turn_idx,
    ifnull(nullif({json_count("p.usage_json", "$.kv.peak_tokens")}, 0), t.prompt_tokens + t.completion_tokens - 1),
    t.prompt_tokens, t.completion_tokens {_FROM}"""
_OF_FULL = _KEY | {"full_peak": pl.Float64, "full_prompt": pl.Int64, "full_completion": pl.Int64}


# Of `Compressions`, in its order.
_COLUMNS = ("n", "peak", "full_peak", "reached", "kept", "prompt", "completion", "shows")


@dataclass(frozen=True)
class Compressions:
    """Of every answer of a run that evicts while it answers, [entries, answers to each]; NaN: not known, or not there.

    n: how often its cache was compressed. peak: the most tokens that it held; full_peak: of full cache's answer.
    reached: 1 where full cache's answer would have been long enough for a first compression, else 0. kept: tokens held
    at the end; prompt, completion: tokens as the server counted them; shows: 1 where the reply says to what the cache
    was compressed, else 0.
    """

    n: Floats
    peak: Floats
    full_peak: Floats
    reached: Floats
    kept: Floats
    prompt: Floats
    completion: Floats
    shows: Floats
    alone: bool = field(
        default=True, kw_only=True
    )  # its policy evicts only then, and not once the prompt is read as well

    @classmethod
    def of_replies(cls, n: Floats, shows: Floats) -> "Compressions":
        """Of answers [n] of which no more is known than how often their cache was compressed, and whether it is said
        to what."""
        known = {"n": n.reshape(-1, 1).astype(np.float64), "shows": shows.reshape(-1, 1).astype(np.float64)}
        unknown = np.full((len(n), 1), np.nan)
        return cls(*(known.get(name, unknown) for name in _COLUMNS))

    @property
    def is_said(self) -> npt.NDArray[np.bool_]:
        """Where the reply says how often."""
        return ~np.isnan(self.n)

    @property
    def applied(self) -> npt.NDArray[np.bool_]:
        """Where the cache was compressed at least once."""
        return self.n > 0

    @property
    def n_said(self) -> int:
        return int(self.is_said.sum())

    @property
    def n_applied(self) -> int:
        return int(self.applied.sum())

    @property
    def n_shown(self) -> int:
        """Of the answers whose cache was compressed, those whose reply says to what."""
        return int((self.shows[self.applied] == 1).sum())

    @property
    def share(self) -> float:
        """Of the answers that say it, those whose cache was compressed; 0 where none says it."""
        return self.n_applied / self.n_said if self.n_said else 0.0


def compressions(conn: sqlite3.Connection, run: Run, entries: pl.DataFrame, samples: int) -> Compressions | None:
    """Over the first `samples` answers to each of a manifest's `entries`; None: the run evicts no later than when the
    prompt has been read."""
    if not run.decodes:
        return None
    frame = _read(conn, _HERE, _OF_HERE, run.run_id, samples)
    full = _read(conn, _FULL, _OF_FULL, baseline_id(conn, run), samples)
    frame = frame.join(full, on=list(_KEY), how="left").join(
        entries.select("example_id", "entry"), on="example_id", how="inner"
    )
    interval = interval_of(json.loads(run.kv_params_json)) or USUAL_INTERVAL
    reached = [
        None
        if prompt is None or completion is None
        else float(completion > first_compression(run.kv_budget, run.kv_unit, run.kv_when, interval, prompt))
        for prompt, completion in frame.select("full_prompt", "full_completion").iter_rows()
    ]
    frame = frame.with_columns(reached=pl.Series(reached, dtype=pl.Float64))
    place = frame["entry"].cast(pl.Int64).to_numpy(), frame["sample_idx"].to_numpy()
    columns = {name: np.full((entries.height, samples), np.nan) for name in _COLUMNS}
    for name, column in columns.items():
        column[place] = frame[name].to_numpy()
    return Compressions(*columns.values(), alone=run.kv_when == When.DECODE)


def _read(conn: sqlite3.Connection, sql: str, schema: dict[str, Any], run_id: str | None, samples: int) -> pl.DataFrame:
    """Of all databases of the group: full cache's answers may lie in another one than a level's."""
    return read_frame(chain.from_iterable(part.execute(sql, (run_id, samples)) for part in parts(conn)), schema)
