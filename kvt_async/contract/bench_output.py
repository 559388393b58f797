"""The JSON that `kvt bench` prints: its name and version, and the JSON Schema that says what is in it.

The version is that of the meaning: keys are added under the same version, and a reader passes over those it does not
know. It rises when a key goes, gets another name, another unit or another meaning.
"""

from importlib import resources
from typing import Any

BENCH_OUTPUT = "kvt.bench/1"
SCHEMA_FILE = "bench_output.schema.json"


def stamped(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer with its `schema` before everything else."""
    return {"schema": BENCH_OUTPUT, **answer}


def schema_text() -> str:
    """The JSON Schema (draft 2020-12) of everything that `kvt bench --json` prints, as it is shipped."""
    return resources.files("kvt_async.contract").joinpath(SCHEMA_FILE).read_text(encoding="utf-8")
