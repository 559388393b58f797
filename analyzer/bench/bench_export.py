"""`kvt bench export`: a stored bench in files that other tools read. Nothing is sent, and nothing stored is changed."""

import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analyzer.bench.bench_analysis import measured
from analyzer.bench.exports.bench_csv import csv_text, load_rows, request_rows
from analyzer.bench.exports.llmd_report import llmd_report
from analyzer.bench.exports.vllm_file import vllm_file
from analyzer.bench.figures.stage_results import StageResult
from analyzer.bench.read import stage_facts
from analyzer.bench.read.request_metrics import with_metrics
from analyzer.read.runs import newest_group
from analyzer.read.snapshot import snapshot
from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError
from kvt_async.contract.files import write_whole
from kvt_async.contract.paths import DB_NAME
from kvt_async.contract.schema import connect_for_reading

Json = dict[str, Any]
FORMATS = ("vllm", "llm-d", "csv")
ALPHA = 0.05
FOLDER = "export"  # beside the database, where no other place is named


@dataclass(frozen=True, slots=True)
class ExportOrder:
    """What is to be exported. `load`: as the report calls it, None: all; `texts`: with the replies; `requests`: CSV of
    requests, not of loads; `metadata`: keys that are added to vLLM's files."""

    format: str
    out: str | None = None
    load: str | None = None
    texts: bool = False
    requests: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)


def export_bench(place: str, order: ExportOrder) -> Json:
    """`place`: name under runs/, run directory, or database. A file a stage, or one of CSV; `lines` is for people.

    Raises ConfigError for a format or load that isn't there, MissingPrerequisiteError where nothing was benched.
    """
    if order.format not in FORMATS:
        raise ConfigError(f"no format {order.format!r}", where="--format", do=f"One of: {', '.join(FORMATS)}.")
    where = Path(place) if Path(place).exists() else Path("runs") / place
    db = where / DB_NAME if where.is_dir() else where
    with closing(connect_for_reading(db)) as conn, snapshot(conn) as reader:
        files = _files(reader, order)
    out = Path(order.out) if order.out is not None else db.parent / FOLDER
    if len(files) == 1 and out.suffix in (".json", ".csv"):
        paths = dict(zip([out], files.values(), strict=True))
    else:
        paths = {out / name: text for name, text in files.items()}
    for path, text in paths.items():
        write_whole(path, text)
    names = [str(path) for path in paths]
    return {"format": order.format, "files": names, "lines": names}


def _files(reader: sqlite3.Connection, order: ExportOrder) -> dict[str, str]:
    """Text by file name."""
    group, generation, _ = newest_group(reader)
    results, loads, _ = measured(reader, stage_facts.stages(reader, group, generation), ALPHA)
    started = [result for result in results if result.n_started]
    if not started:
        raise MissingPrerequisiteError("nothing was measured yet", do="Run `kvt bench -c CONFIG` first.")
    chosen = [result for result in started if order.load in (None, result.stage.load)]
    if not chosen:
        labels = ", ".join(dict.fromkeys(result.stage.load for result in started))
        raise ConfigError(f"there is no load {order.load!r}", where="--load", do=f"Benched: {labels}.")
    if order.format == "csv":
        rows = (
            [row for result in chosen for row in request_rows(result, _frame(reader, result))]
            if order.requests
            else load_rows([point for point in loads if order.load in (None, point.load)])
        )
        return {"requests.csv" if order.requests else "loads.csv": csv_text(rows)}
    files = {}
    for result in chosen:
        frame = _frame(reader, result)
        if order.format == "vllm":
            texts = stage_facts.reply_texts(reader, result.stage.run_id) if order.texts else None
            content = vllm_file(result, frame, texts, order.metadata)
        else:
            content = llmd_report(result, frame, group)
        files[_name(order.format, result)] = json.dumps(content, allow_nan=False, indent=1) + "\n"
    return files


def _frame(reader: sqlite3.Connection, result: StageResult) -> Any:
    return with_metrics(stage_facts.requests(reader, result.stage.run_id))


def _name(kind: str, result: StageResult) -> str:
    """'vllm-rate-4-s-r0.json'."""
    series = re.sub(r"[^A-Za-z0-9._]+", "-", result.stage.series).strip("-")
    return f"{kind}-{series}-r{result.stage.repeat_idx}.json"


def metadata_of(pairs: Sequence[str]) -> dict[str, str]:
    """'KEY=VALUE' -> {KEY: VALUE}. Raises ConfigError for what is no pair."""
    parts = [pair.partition("=") for pair in pairs]
    for key, sep, _ in parts:
        if not sep or not key.strip():
            raise ConfigError(f"{key!r} is not KEY=VALUE", where="--metadata", do="Write --metadata gpu=H200.")
    return {key.strip(): value.strip() for key, _, value in parts}
