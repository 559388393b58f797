"""The tables of kvt's database by name, as schema.sql makes them."""

import re
from functools import cache
from importlib import resources

FACT_TABLES = (
    "experiments",
    "sessions",
    "session_ends",
    "datasets",
    "manifests",
    "examples",
    "bins",
    "manifest_entries",
    "task_contracts",
    "sample_plans",
    "runs",
    "requests",
    "try_series",
    "attempts",
    "responses",
    "telemetry",
    "give_ups",
    "server_snapshots",
    "probes",
    "client_health",
    "merges",
    "bench_stages",
    "bench_arrivals",
    "bench_requests",
    "bench_windows",
    "bench_window_ends",
    "server_samples",
)
DERIVED_TABLES = (
    "scores",
    "bin_stats",
    "run_evidence",
    "budget_stats",
    "transition_summary",
    "comparisons",
    "outcome_changes",
    "suite_stats",
    "suite_summary",
    "bench_stats",
    "bench_points",
    "bench_turns",
    "bench_conversations",
    "bench_parts",
    "bench_zones",
    "bench_quality",
    "analysis_state",
)
# Tables that came with a later schema version: an older database is whole without them.
SINCE = {
    "bench_stages": 2,
    "bench_arrivals": 2,
    "bench_windows": 2,
    "bench_window_ends": 2,
    "server_samples": 2,
    "bench_stats": 2,
    "bench_points": 2,
    "bench_zones": 2,
    "task_contracts": 3,
    "sample_plans": 3,
    "merges": 3,
    "bench_requests": 3,
    "bench_quality": 3,
    "outcome_changes": 3,
    "bench_turns": 3,
    "bench_conversations": 3,
    "bench_parts": 3,
    "suite_stats": 3,
    "suite_summary": 3,
}


MADE_WHEN_WANTED = frozenset(  # a database without them is whole
    {"merges", "bench_requests", "bench_turns", "bench_conversations", "bench_parts", "bench_quality"}
)


def schema_sql() -> str:
    return resources.files("kvt_async.contract").joinpath("schema.sql").read_text(encoding="utf-8")


def table_sql(name: str) -> str:
    """`name (...) STRICT`, as the schema has it."""
    _, _, rest = schema_sql().partition(f"CREATE TABLE IF NOT EXISTS {name} ")
    return f"{name} {rest.partition(') STRICT;')[0]}) STRICT"


@cache
def columns_of(table: str) -> tuple[str, ...]:
    """Names of a table's columns by today's schema, in their order."""
    _, _, rest = schema_sql().partition(f"CREATE TABLE IF NOT EXISTS {table} (")
    text, _, _ = rest.partition("\n) STRICT;")
    return tuple(re.findall(r'^    "?(\w+)"? +(?:TEXT|INTEGER|REAL|BLOB)\b', text, re.MULTILINE))
