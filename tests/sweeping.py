"""Settings for small sweeps against a loopback server, and what they left in the database."""

from pathlib import Path
from typing import Any

import orjson

from kvt_async.contract.load import load_settings
from kvt_async.contract.paths import run_paths
from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.settings import Settings

BUDGETS = (1.0, 0.5, 0.2)


def write_examples(path: Path, n: int, *, words: int = 30) -> Path:
    """A jsonl file of `n` short examples, each with its own context."""
    rows = (
        {"example_id": f"e{i}", "context": f"Fact {i}: " + "word " * (words + i % 7), "question": f"What is {i}?",
         "answers": ["a"]}
        for i in range(n)
    )  # fmt: skip
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def settings_for(folder: Path, base_url: str, *overrides: str, n: int = 12) -> Settings:
    """A whole experiment in `folder`: `n` examples in 2 bins, snapkv at three budgets, one repeat of full cache."""
    data = folder / "examples.jsonl"
    if not data.exists():
        write_examples(data, n)
    return load_settings(
        None,
        [
            "experiment.exp_group_id=g", "dataset.name=jsonl", "dataset.task=made", f"dataset.path={data}",
            "tokenizer.name=approx:chars/4", "binning.n_bins=2", f"binning.n_per_bin={n}", "model.name=reference",
            f"engine.base_url={base_url}", f"output.runs_dir={folder}/runs", f"output.data_dir={folder}/data",
            "decoding.max_tokens=8", "limits.concurrency=4", "limits.retry.initial_s=0.02", *overrides,
        ],
        environ={},
    )  # fmt: skip


def db_of(settings: Settings) -> Path:
    return run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path).db


def query(settings: Settings, sql: str, *values: object) -> list[tuple[Any, ...]]:
    conn = connect_for_reading(db_of(settings))
    try:
        return conn.execute(sql, values).fetchall()
    finally:
        conn.close()


def states(settings: Settings) -> dict[str, int]:
    """How many requests are in each state."""
    return dict(query(settings, "SELECT state, count(*) FROM outcomes GROUP BY 1"))


def check_invariants(settings: Settings) -> None:
    """What holds at any time, also after a kill."""
    assert query(settings, "PRAGMA integrity_check") == [("ok",)]
    assert query(settings, "PRAGMA foreign_key_check") == []
    assert query(settings, "SELECT count(*) FROM failures JOIN responses USING (request_id)") == [(0,)]
    assert query(settings, "SELECT count(*) FROM attempts LEFT JOIN telemetry t USING (request_id, attempt_idx) "
                           "WHERE t.request_id IS NULL") == [(0,)]  # fmt: skip
