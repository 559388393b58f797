"""One row per outcome, for whoever analyses elsewhere: Parquet or CSV, written run by run in bounded memory."""

import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from analyzer import outcomes, tables
from analyzer.served import group_drifts, refuse_drift
from kvt_async.contract.errors import ConfigError, StoreError
from kvt_async.contract.settings import Settings


@dataclass(frozen=True)
class Exported:
    """What was written; `guarded`: texts that a spreadsheet would take for formulas and that begin with ' now."""

    rows: int
    guarded: int


def export(conn: sqlite3.Connection, settings: Settings, out: Path, *, exact: bool = False) -> Exported:
    """Write every finished request of the newest generation to `out` (.parquet or .csv).

    Columns: keys and level, bin and lengths, answer, scores (null where not scored), label, flags, latencies in
    seconds, tokens and evidence. In CSV, which spreadsheets open, a text that they would take for a formula gets an
    apostrophe in front, unless `exact`; Parquet holds every text as it is.

    Raises ConfigError for another suffix, StoreError where `out` can't be written, DriftError where the server became
    another one meanwhile (unless analysis.allow_drift).
    """
    if out.suffix not in (".parquet", ".csv"):
        raise ConfigError(
            f"{out.name} is neither .parquet nor .csv", where="kvt export", do="Name FILE.parquet or FILE.csv."
        )
    group, rows, guarded = settings.experiment.exp_group_id, 0, 0
    guard = out.suffix == ".csv" and not exact
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tables.snapshot(conn) as facts, tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as scratch:
            gen = tables.newest_generation(facts, group)
            refuse_drift([] if settings.analysis.allow_drift else group_drifts(facts, group, gen))
            parts = []
            for i, run in enumerate(tables.runs(facts, group, gen)):
                for j, frame in enumerate(outcomes.export_rows(facts, run)):
                    parts.append(Path(scratch) / f"{i:05d}-{j:05d}.parquet")
                    texts = [name for name, kind in frame.schema.items() if guard and kind == pl.String]
                    guarded += sum(frame.select(_is_formula(name).sum() for name in texts).row(0)) if texts else 0
                    frame.with_columns(_guarded(name) for name in texts).write_parquet(parts[-1])
                    rows += frame.height
            whole = pl.scan_parquet(parts) if parts else pl.DataFrame().lazy()
            target = Path(scratch) / f"all{out.suffix}"
            if out.suffix == ".parquet":
                whole.sink_parquet(target)
            else:
                whole.sink_csv(target)
            target.replace(out)
    except OSError as error:
        raise StoreError(f"the export can't be written: {error.strerror}", where=str(out)) from error
    return Exported(rows, guarded)


def _is_formula(name: str) -> pl.Expr:
    """Whether a spreadsheet would compute a text instead of showing it: a plain number is shown."""
    text = pl.col(name)
    return (text.str.contains(r"^[=+\-@\t\r]") & ~text.str.contains(r"^[+-]?(\d+\.?\d*|\.\d+)$")).fill_null(False)


def _guarded(name: str) -> pl.Expr:
    return pl.when(_is_formula(name)).then(pl.lit("'") + pl.col(name)).otherwise(pl.col(name)).alias(name)
