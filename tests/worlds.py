"""The worlds that tests are set in, and what a run of kvt left there: one place for all rooms.

Settings come in three sizes: of an engine that sends single requests, of a small sweep, of a small bench. Each takes
`key=value` overrides as the command line does, and reads no variable of the machine.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from kvt_async.contract.load import load_settings
from kvt_async.contract.paths import run_paths
from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.settings import Settings
from tests.bench_output import documented

if TYPE_CHECKING:
    from analyzer.metrics import Metric
    from kvt_async.ways.levels import Levels

BUDGETS = (1.0, 0.5, 0.2)  # of `sweep_settings`
TRANSPORT = "aiohttp"  # that `engine_settings` chooses: see the fixture every_transport


def settings_of(*overrides: str) -> Settings:
    """The defaults with these overrides."""
    return load_settings(None, overrides, environ={})


def engine_settings(base_url: str, limits: dict[str, Any] | None = None, **engine: Any) -> Settings:
    """No retries and no key unless asked for: the variable it names does not exist."""
    limits = {"retry": {"max_attempts": 1, "initial_s": 0.01}} | (limits or {})
    return Settings.model_validate(
        {
            "engine": {"base_url": base_url, "api_key_env": "KVT_TEST_NO_SUCH_KEY", "transport": TRANSPORT} | engine,
            "limits": limits,
        }
    )


def sweep_settings(folder: Path, base_url: str, *overrides: str, n: int = 12) -> Settings:
    """A whole experiment in `folder`: `n` examples in 2 bins, snapkv at three budgets, one repeat of full cache."""
    data = folder / "examples.jsonl"
    if not data.exists():
        write_examples(data, n)
    return settings_of(
        "experiment.exp_group_id=g",
        *("dataset.name=jsonl", "dataset.task=made", f"dataset.path={data}", "tokenizer.name=approx:chars/4"),
        *("binning.n_bins=2", f"binning.n_per_bin={n}", "model.name=reference", f"engine.base_url={base_url}"),
        *(f"output.runs_dir={folder}/runs", f"output.data_dir={folder}/data", "decoding.max_tokens=8"),
        *("limits.concurrency=4", "limits.retry.initial_s=0.02"),
        *overrides,
    )


def bench_settings(folder: Path, base_url: str, *overrides: str) -> Settings:
    """A bench of 20 requests of 40 tokens, 4 warm-ups; a load is the caller's to choose."""
    return settings_of(*bench_overrides(folder, base_url, *overrides))


def bench_overrides(folder: Path, base_url: str, *overrides: str) -> list[str]:
    """What `bench_settings` is made of, for a command line."""
    return [
        *("experiment.exp_group_id=b", "tokenizer.name=approx:chars/4", "model.name=reference"),
        *(f"engine.base_url={base_url}", f"output.runs_dir={folder}/runs", f"output.data_dir={folder}/data"),
        *("bench.requests=20", "bench.warm_up={requests: 4, latencies: 0}", "bench.workload.input_tokens.value=40"),
        *("bench.workload.output_tokens.value=6", "bench.scrape_interval_s=0.2"),
        *overrides,
    ]


def write_examples(path: Path, n: int, *, words: int = 30) -> Path:
    """A jsonl file of `n` short examples, each with its own context."""
    rows = (
        {
            "example_id": f"e{i}",
            "context": f"Fact {i}: " + "word " * (words + i % 7),
            "question": f"What is {i}?",
            "answers": ["a"],
        }
        for i in range(n)
    )
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def levels_of(*overrides: str) -> "Levels":
    """The levels that the defaults with these overrides stand for."""
    from kvt_async.ways.levels import make_levels

    return make_levels(settings_of(*overrides))


def metric_of(name: str) -> "Metric":
    """The metric of that name; it is not one of those that are rules over columns."""
    from analyzer.metrics import find

    metric = find(name)
    assert metric is not None, name
    return metric


def db_of(settings: Settings) -> Path:
    """The database of the group that these settings name."""
    return run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path).db


def query(place: Settings | Path, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """Rows of a group's database, or of a database's file."""
    db = db_of(place) if isinstance(place, Settings) else place
    with closing(connect_for_reading(db)) as conn:
        return conn.execute(sql, values).fetchall()


def states(settings: Settings) -> dict[str, int]:
    """How many requests are in each state."""
    return dict(query(settings, "SELECT state, count(*) FROM outcomes GROUP BY 1"))


def check_invariants(settings: Settings) -> None:
    """What holds at any time, also after a kill."""
    assert query(settings, "PRAGMA integrity_check") == [("ok",)]
    assert query(settings, "PRAGMA foreign_key_check") == []
    assert query(settings, "SELECT count(*) FROM failures JOIN responses USING (request_id)") == [(0,)]
    unmeasured = "SELECT count(*) FROM attempts LEFT JOIN telemetry t USING (request_id, attempt_idx)"
    assert query(settings, f"{unmeasured} WHERE t.request_id IS NULL") == [(0,)]


def page_of(files: dict[str, Any]) -> str:
    """The Markdown report among the files that an analysis of a bench has written; all that it says is documented."""
    documented({name: value for name, value in files.items() if name != "lines"})
    return Path(files["report_md"]).read_text(encoding="utf-8")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def until(condition: Callable[[], object]) -> None:
    """Return as soon as the condition is true; raises TimeoutError after 20 s."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for is plain state of a server or a Sender
            await asyncio.sleep(0.002)
