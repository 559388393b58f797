"""docs/LIFE_OF_A_REQUEST.md against the code: its files, the names beside them, the tables that it says are written."""

import re
import sqlite3
from pathlib import Path

import pytest

from analyzer.stages import analyze_stage, score_stage
from kvt_async.contract.schema import create
from kvt_async.contract.schema_tables import DERIVED_TABLES, FACT_TABLES, columns_of
from kvt_async.sweep.sweep import SweepOptions, run
from tests.servers.openai_server import Script, serving
from tests.worlds import query, sweep_settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "LIFE_OF_A_REQUEST.md").read_text(encoding="utf-8")
PARAGRAPHS = [part for part in PAGE.split("\n\n") if not part.startswith("```")]
QUOTED = re.compile(r"`([^`]+)`")
FILE = re.compile(r"\w+(?:/\w+)+\.(?:py|sql)")
TABLES = {table for table in (*FACT_TABLES, *DERIVED_TABLES) if not table.startswith("bench_")} - {"server_samples"}
PLAIN = {"kvt show", "kvt verify", "--retry-failed", "limits.concurrency", "limits.order", "RUN_ID:SEQ", "SEQ"}
PLAIN |= {"RUN_ID:SEQ.SAMPLE.TURN", "workload", "workload.reuse: turns", "workload.history: own", "earlier_turn_failed"}
PLAIN |= {"RUN_ID:SEQ.SAMPLE", "manifest.json", "report.md", "report.html"}  # commands, keys and what is written


def files_in(text: str) -> list[str]:
    return [word for word in QUOTED.findall(text) if FILE.fullmatch(word)]


def test_every_file_on_the_page_exists() -> None:
    files = files_in(PAGE)
    assert len(files) > 40
    assert [file for file in files if not (ROOT / file).is_file()] == []


@pytest.mark.parametrize("paragraph", PARAGRAPHS, ids=lambda text: text[:40])
def test_every_name_on_the_page_is_a_table_or_is_defined_in_a_file_beside_it(paragraph: str) -> None:
    code = "\n".join((ROOT / file).read_text(encoding="utf-8") for file in files_in(paragraph))
    for word in QUOTED.findall(paragraph):
        table, _, column = word.partition(".")
        if FILE.fullmatch(word) or word in PLAIN or word in TABLES:
            continue
        if table in TABLES:
            assert column in columns_of(table), word
        else:
            defined = rf"^ *(?:async )?(?:def|class) {re.escape(word)}\b"
            assert re.search(defined, code, re.MULTILINE), f"{word} is defined in no file of its paragraph"


def test_every_table_of_a_sweep_is_said_to_be_stored() -> None:
    stored = " ".join(part for part in PARAGRAPHS if part.startswith("**Stored**"))
    assert TABLES - {word.partition(".")[0] for word in QUOTED.findall(stored)} == set()


async def test_a_sweep_and_its_analysis_write_these_tables_and_no_other(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        settings = sweep_settings(tmp_path, url, "analysis.resamples=100", "analysis.charts=false", n=2)
        await run(settings, options=SweepOptions(quiet=True))
    scored_alone = {name for (name,) in query(settings, "SELECT name FROM sqlite_master WHERE type = 'table'")}
    score_stage(settings)
    analyze_stage(settings)
    written = {name for name in scored_alone if query(settings, f"SELECT 1 FROM {name} LIMIT 1")}
    assert written <= TABLES
    assert TABLES - written <= {
        "give_ups",
        "try_series",
        "merges",
        "comparisons",
        "outcome_changes",
        "suite_stats",
        "suite_summary",
    }


def test_the_query_of_the_page_is_valid() -> None:
    (sql,) = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    conn = sqlite3.connect(":memory:")
    create(conn)
    assert conn.execute(sql).fetchall() == []
