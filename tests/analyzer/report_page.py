"""The demo's report, built once for all tests that look at it: drawing ten charts takes seconds."""

import atexit
import re
import shutil
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from analyzer.report.build import ReportPaths, build_report
from kvt_async.contract.load import load_settings
from kvt_async.contract.paths import RunPaths
from kvt_async.contract.schema import connect_for_reading
from tests.analyzer.report_cases import GROUP, Rows
from tests.analyzer.report_rows import write

SETTINGS = load_settings(None, [f"experiment.exp_group_id={GROUP}"], environ={})
SLIPS = re.compile(r".*(?:\bNone\b|\bnan\b|\binf\b|\[–|\w+\(\w+=|^- $).*", re.MULTILINE)  # unformatted values
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@cache
def demo_report() -> tuple[Path, ReportPaths]:
    """The database and the report that was built beside it at NOON."""
    folder = Path(tempfile.mkdtemp(prefix="kvt-report-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    db = folder / "demo.sqlite"
    write(db, Rows(n=20)).close()
    with closing(connect_for_reading(db)) as conn:
        return db, build_report(conn, SETTINGS, RunPaths(folder, db), now=NOON)
