"""Levels as Every Eval Ever has them: an aggregate JSON file each, and its answers as JSON lines beside it."""

import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from analyzer.read import outcomes
from analyzer.read.drift import refuse_drift
from analyzer.read.runs import Run
from analyzer.read.snapshot import snapshot
from analyzer.results.results import Results, refuse_older
from analyzer.results.suite_results import SuiteResults, read_suite
from analyzer.stage_answers import Json, StageAnswer
from analyzer.verbs.eee_records import SCHEMA_VERSION, LevelRecord, aggregate_of, file_name, instance
from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.files import make_private, scratch_folder
from kvt_async.contract.local_faults import file_error
from kvt_async.contract.settings import Settings

# Whoever splits a text at every kind of line end takes these for one, and JSON need not escape them.
_LINE_ENDS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))


@dataclass(frozen=True)
class EeeLevel:
    """A level that was written: its name, its answers' file, and how many answers that holds."""

    name: str
    samples: Path
    rows: int


@dataclass(frozen=True)
class EeeAnswer(StageAnswer):
    """Every level that was written, full cache first."""

    levels: list[EeeLevel]

    @property
    def lines(self) -> list[str]:
        return [f"{level.name}: {level.rows} answers in {level.samples}" for level in self.levels]

    def json(self) -> Json:
        levels = [
            {
                "level": level.name,
                "rows": level.rows,
                "aggregate": str(level.samples).replace("_samples.jsonl", ".json"),
                "samples": str(level.samples),
            }
            for level in self.levels
        ]
        return {"schema_version": SCHEMA_VERSION, "levels": levels}


def export_eee(
    conn: sqlite3.Connection,
    settings: Settings,
    out: Path,
    *,
    organization: str = "unknown",
    with_context: bool = False,
) -> EeeAnswer:
    """Write every level of the newest generation, A/A repeats too, below `out` as data/GROUP/DEVELOPER/MODEL/UUID.json
    and UUID_samples.jsonl.

    A score is the report's accuracy (each length bin weighs the same) with its interval; `details` has the plain mean
    of the instances, and the paired loss against full cache. organization: who ran it. with_context: an instance's
    input is context and question, else the question alone and the context's SHA-256.

    Raises MissingPrerequisiteError where answers are not scored or analysed yet, StoreError where `out` can't be
    written, DriftError as the other exports do.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with snapshot(conn) as facts, scratch_folder(out, ".export-") as scratch:
            suite = read_suite(facts, settings.experiment.exp_group_id)
            refuse_drift([] if settings.analysis.allow_drift else suite.first.drifts)
            for task in suite.tasks:
                refuse_older(task)
            levels = []
            for name, runs in _levels(suite).items():
                record = LevelRecord.of(suite, runs[0][1], name)
                place = Path("data", file_name(suite.first.group), *record.folder)
                samples = place / f"{record.file_id}_samples.jsonl"
                half = scratch / samples.name
                means = {run.run_id: _write_answers(facts, half, record, task, run, with_context) for task, run in runs}
                with half.open("rb") as file:
                    checksum = hashlib.file_digest(file, "sha256").hexdigest()
                rows = sum(n for n, _ in means.values())
                aggregate = aggregate_of(record, runs, means, settings, organization) | {
                    "detailed_evaluation_results": {
                        "format": "jsonl",
                        "file_path": samples.as_posix(),
                        "hash_algorithm": "sha256",
                        "checksum": checksum,
                        "total_rows": rows,
                    }
                }
                whole = scratch / f"{record.file_id}.json"
                make_private(whole)
                whole.write_bytes(orjson.dumps(aggregate, option=orjson.OPT_INDENT_2))
                (out / place).mkdir(parents=True, exist_ok=True)
                for file_ in (half, whole):
                    file_.replace(out / place / file_.name)
                levels.append(EeeLevel(name, out / samples, rows))
    except OSError as error:
        raise file_error(error, "the export can't be written", out) from error
    return EeeAnswer(levels)


def _levels(suite: SuiteResults) -> dict[str, list[tuple[Results, Run]]]:
    """The runs of each level that has answers, one for each task, under the name that `kvt import` takes."""
    levels: dict[str, list[tuple[Results, Run]]] = {}
    for task in suite.tasks:
        for run in task.runs:
            if (stat := task.stat(run)) is not None and stat.n:
                name = "full" if run.is_full else f"{run.series}:{run.kv_budget:g}"
                levels.setdefault(f"{name}#{run.repeat_idx}" if run.repeat_idx else name, []).append((task, run))
    if not levels:
        raise MissingPrerequisiteError(
            "nothing is analysed yet", where=suite.first.group, do="Run `kvt all` with the same folder or config."
        )
    return levels


def _write_answers(
    facts: sqlite3.Connection, half: Path, record: LevelRecord, task: Results, run: Run, with_context: bool
) -> tuple[int, float]:
    """Append a run's answers that count; how many, and their mean score."""
    n, total = 0, 0.0
    make_private(half)
    with half.open("ab") as file:
        for row in _rows(facts, task, run, with_context):
            line = orjson.dumps(instance(row, record, task))
            for end, escape in _LINE_ENDS:
                line = line.replace(end, escape)
            file.write(line + b"\n")
            n, total = n + 1, total + row["score"]
    return n, total / max(n, 1)


def _rows(facts: sqlite3.Connection, task: Results, run: Run, with_context: bool) -> Iterator[dict[str, Any]]:
    for frame in outcomes.export_rows(facts, run, task.task, with_context=with_context):
        for row in frame.iter_rows(named=True):
            if row["sample_idx"] >= task.samples:
                continue
            if row["score"] is None:
                raise MissingPrerequisiteError(
                    f"the answer {row['request_id']} is not scored yet",
                    where=task.group,
                    do="Run `kvt all` with the same folder or config.",
                )
            yield row
