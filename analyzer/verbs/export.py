"""One row per outcome, for whoever analyses elsewhere: Parquet, CSV or JSON lines, run by run in bounded memory."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

import orjson
import polars as pl

from analyzer.read import outcomes, row_portions, runs
from analyzer.read.drift import group_drifts, refuse_drift
from analyzer.read.group_tasks import group_tasks
from analyzer.read.snapshot import snapshot
from analyzer.stage_answers import Json, StageAnswer
from kvt_async.contract.errors import ConfigError, StoreError
from kvt_async.contract.files import make_private, refuse_other_kinds, scratch_folder
from kvt_async.contract.local_faults import file_error
from kvt_async.contract.settings import Settings


@dataclass(frozen=True)
class ExportAnswer(StageAnswer):
    """What was written; `guarded`: texts that a spreadsheet would take for formulas and that begin with ' now."""

    rows: int
    guarded: int
    file: Path

    @property
    def lines(self) -> list[str]:
        lines = [f"{self.rows} rows in {self.file}"]
        if self.guarded:
            lines.append(
                f"{self.guarded} texts that a spreadsheet would take for formulas begin with ' there; --exact, "
                ".parquet and .jsonl keep them as they are"
            )
        return lines

    def json(self) -> Json:
        return {"rows": self.rows, "guarded": self.guarded, "file": str(self.file)}


def export(
    conn: sqlite3.Connection, settings: Settings, out: Path, *, exact: bool = False, with_context: bool = False
) -> ExportAnswer:
    """Write every finished request of the newest generation to `out` (.parquet, .csv or .jsonl).

    Columns: group, model, task, keys and level, bin and lengths, question, golds, answer, scores (null where not
    scored), label, flags, latencies in seconds, tokens and evidence; the context `with_context`, else its SHA-256
    alone. In CSV, golds are a JSON list, and a text that a spreadsheet would take for a formula gets an apostrophe in
    front, unless `exact`; Parquet and JSON lines hold every text as it is.

    Raises ConfigError for another suffix, StoreError where `out` can't be written, DriftError where the server became
    another one meanwhile (unless analysis.allow_drift).
    """
    if out.suffix not in _WRITERS:
        raise ConfigError(
            f"{out.name} is neither .parquet, .csv nor .jsonl",
            where="kvt export",
            do="Name FILE.parquet, FILE.csv or FILE.jsonl.",
        )
    group, rows, guarded = settings.experiment.exp_group_id, 0, 0
    guard = out.suffix == ".csv" and not exact
    refuse_other_kinds(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with snapshot(conn) as facts, scratch_folder(out.parent, ".export-") as scratch:
            gen = runs.newest_generation(facts, group)
            refuse_drift([] if settings.analysis.allow_drift else group_drifts(facts, group, gen))
            target = scratch / f"all{out.suffix}"
            make_private(target)
            tasks = {task.dataset_id: task.name for task in group_tasks(facts, group, gen)}
            for run in runs.runs(facts, group, gen):
                for frame in outcomes.export_rows(facts, run, tasks[run.dataset_id], with_context=with_context):
                    texts = [name for name, kind in frame.schema.items() if guard and kind == pl.String]
                    guarded += sum(frame.select(_is_formula(name).sum() for name in texts).row(0)) if texts else 0
                    _WRITERS[out.suffix](target, frame.with_columns(_guarded(name) for name in texts))
                    rows += frame.height
            if out.suffix == ".parquet":
                _join_parts(target)
            target.replace(out)
    except OSError as error:
        raise file_error(error, "the export can't be written", out) from error
    except pl.exceptions.ComputeError as error:
        raise StoreError(
            f"the export can't be written: {error}", where=str(out), do="Free disk space there."
        ) from error
    return ExportAnswer(rows, guarded, out)


def _append_csv(target: Path, frame: pl.DataFrame) -> None:
    golds = pl.Series("golds", [orjson.dumps(golds).decode() for golds in frame["golds"].to_list()], dtype=pl.String)
    with target.open("ab") as file:
        frame.with_columns(golds).write_csv(file, include_header=file.tell() == 0)


def _append_lines(target: Path, frame: pl.DataFrame) -> None:
    with target.open("ab") as file:
        frame.write_ndjson(file)


def _add_part(target: Path, frame: pl.DataFrame) -> None:
    """Write a part to a file of its own, whose name tells its place and how many such rows memory may hold at once."""
    texts = frame.select(pl.col(name) for name in outcomes.LONG_TEXTS if name in frame.columns)
    characters = sum(texts.select(pl.all().str.len_chars().sum()).row(0))
    together = frame.height * row_portions.CHARACTERS // max(characters, 1)
    place = len(list(target.parent.iterdir()))
    frame.write_parquet(target.with_name(f"{place:06d}-{max(together, 1)}.part"))


def _join_parts(target: Path) -> None:
    """Join all parts in one file. Polars holds some row groups at a time: of long texts a group has few rows."""
    parts = sorted(target.parent.glob("*.part"))
    if not parts:
        pl.DataFrame().write_parquet(target)
        return
    together = min(int(part.stem.partition("-")[2]) for part in parts)
    pl.scan_parquet(parts).sink_parquet(target, row_group_size=min(together, row_portions.ROWS))


_WRITERS = {".parquet": _add_part, ".csv": _append_csv, ".jsonl": _append_lines}


def _is_formula(name: str) -> pl.Expr:
    """Whether a spreadsheet would compute a text instead of showing it: a plain number is shown."""
    text = pl.col(name)
    return (text.str.contains(r"^[=+\-@\t\r]") & ~text.str.contains(r"^[+-]?(\d+\.?\d*|\.\d+)$")).fill_null(False)


def _guarded(name: str) -> pl.Expr:
    return pl.when(_is_formula(name)).then(pl.lit("'") + pl.col(name)).otherwise(pl.col(name)).alias(name)
