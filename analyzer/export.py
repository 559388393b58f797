"""One row per outcome, for whoever analyses elsewhere: Parquet or CSV, written run by run in bounded memory."""

import sqlite3
import tempfile
from pathlib import Path

import polars as pl

from analyzer import outcomes, tables
from analyzer.served import group_drifts, refuse_drift
from kvt_async.contract.errors import ConfigError, StoreError
from kvt_async.contract.settings import Settings


def export(conn: sqlite3.Connection, settings: Settings, out: Path) -> int:
    """Write every finished request of the newest generation to `out` (.parquet or .csv); give the number of rows.

    Columns: keys and level, bin and lengths, answer, scores (null where not scored), label, flags, latencies in
    seconds, tokens and evidence. Raises ConfigError for another suffix, StoreError where `out` can't be
    written, DriftError where the server became another one meanwhile (unless analysis.allow_drift).
    """
    if out.suffix not in (".parquet", ".csv"):
        raise ConfigError(
            f"{out.name} is neither .parquet nor .csv", where="kvt export", do="Name FILE.parquet or FILE.csv."
        )
    group, rows = settings.experiment.exp_group_id, 0
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tables.snapshot(conn) as facts, tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as scratch:
            gen = tables.newest_generation(facts, group)
            refuse_drift([] if settings.analysis.allow_drift else group_drifts(facts, group, gen))
            parts = []
            for i, run in enumerate(tables.runs(facts, group, gen)):
                for j, frame in enumerate(outcomes.export_rows(facts, run)):
                    parts.append(Path(scratch) / f"{i:05d}-{j:05d}.parquet")
                    frame.write_parquet(parts[-1])
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
    return rows
