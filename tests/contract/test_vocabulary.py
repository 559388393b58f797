"""The words of the vocabularies are those that the schema page gives for their columns, and are stored as they are."""

import re
import sqlite3
from enum import StrEnum

import orjson
import pytest

from kvt_async.contract.labels import level_label, request_ids_of
from kvt_async.contract.schema_tables import schema_sql
from kvt_async.contract.vocabulary import (
    CacheState,
    CanaryVerdict,
    ClientVerdict,
    EndReason,
    EvidenceStatus,
    Mode,
    Role,
    SeriesVerdict,
    Unit,
)

OF_A_WINDOW = {EndReason.FINISHED, EndReason.INTERRUPTED, EndReason.SERVER, EndReason.LOCAL, EndReason.STOP_RULE}


def words_of(table: str, column: str) -> set[str]:
    """What the page lists for a column, between its bars; what stands in brackets or after a colon is not a word."""
    body = schema_sql().partition(f"CREATE TABLE IF NOT EXISTS {table} (")[2].partition(") STRICT;")[0]
    found = re.search(rf"^    {column} [^\n]*?-- ([^\n]*(?:\n +--   [^\n]*)*)", body, re.MULTILINE)
    assert found is not None
    text = re.sub(r"\([^)]*\)|\n +--  ", "", found[1])
    return {re.split(r"[:,]", part)[0].strip() for part in text.split(" | ")}


@pytest.mark.parametrize(
    ("table", "column", "words"),
    [
        ("runs", "kv_unit", set(Unit)),
        ("runs", "kv_mode", set(Mode)),
        ("session_ends", "reason", set(EndReason) - {EndReason.STOP_RULE}),
        ("bench_window_ends", "reason", OF_A_WINDOW),
        ("client_health", "verdict", set(ClientVerdict) - {ClientVerdict.UNKNOWN}),
        ("bench_points", "client", set(ClientVerdict)),
        ("bench_points", "cache", set(CacheState)),
        ("run_evidence", "status", set(EvidenceStatus)),
        ("transition_summary", "verdict", set(SeriesVerdict)),
        ("transition_summary", "role", set(Role)),
    ],
)
def test_the_schema_page_lists_the_words_of_a_vocabulary(table: str, column: str, words: set[StrEnum]) -> None:
    assert words_of(table, column) == words


def test_a_word_is_stored_as_its_text_and_compares_with_what_is_read_back() -> None:
    conn = sqlite3.connect(":memory:")
    conn.execute("CREATE TABLE t (word TEXT NOT NULL) STRICT")
    conn.execute("INSERT INTO t VALUES (?)", (CanaryVerdict.DEAD,))
    assert conn.execute("SELECT word, typeof(word) FROM t").fetchall() == [("dead", "text")]
    assert conn.execute("SELECT word FROM t WHERE word = ?", (CanaryVerdict.DEAD,)).fetchone()[0] == CanaryVerdict.DEAD
    assert orjson.dumps({"verdict": CanaryVerdict.DEAD}) == b'{"verdict":"dead"}'


@pytest.mark.parametrize(
    ("level", "label"),
    [
        (("snapkv/aware", 0.5, Unit.FRACTION), "snapkv/aware 0.5"),
        (("snapkv/aware", 256.0, Unit.TOKENS), "snapkv/aware 256 tokens"),
        (("kivi", 4.0, "bits"), "kivi 4 bits"),
    ],
)
def test_a_level_is_called_by_series_budget_and_unit(level: tuple[str, float, str], label: str) -> None:
    assert level_label(*level, is_full=False) == label


def test_full_cache_is_called_full_and_its_repeats_are_counted() -> None:
    names = [level_label("full", 1.0, Unit.FRACTION, is_full=True, repeat_idx=n) for n in (0, 2)]
    assert names == ["full", "full (repeat 2)"]


def test_the_keys_of_a_run_lie_between_its_bounds_and_those_of_its_neighbours_do_not() -> None:
    low, high = request_ids_of("snapkv-0.5")
    assert all(low < f"snapkv-0.5:{n}" < high for n in (0, 9, 10, 10**9))
    assert not any(low < other < high for other in ("snapkv-0.5", "snapkv-0.55:1", "snapkv-0.5-r1:1", "snapkv-0.4:1"))
