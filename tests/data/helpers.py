"""Small datasets and settings, written at test time."""

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kvt_async.contract.load import load_settings
from kvt_async.contract.settings import Settings


def settings(tmp_path: Path, *overrides: str) -> Settings:
    """Defaults with the packaged tokenizer, everything written under tmp_path."""
    base = [f"output.data_dir={tmp_path}/data", "tokenizer.name=reference"]
    return load_settings(None, [*base, *overrides], environ={})


def write_lines(path: Path, rows: Iterable[dict[str, Any] | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def numbered(n: int, words: int = 3) -> list[dict[str, Any]]:
    """n examples of rising length: example i has words * (i + 1) words of context."""
    return [
        {
            "example_id": f"e{i:03d}",
            "question": f"what is {i} ?",
            "context": " ".join(["rain"] * (words * (i + 1))),
            "answers": [str(i)],
        }
        for i in range(n)
    ]


def jsonl_settings(tmp_path: Path, rows: Iterable[dict[str, Any] | str], *overrides: str) -> Settings:
    path = write_lines(tmp_path / "in.jsonl", rows)
    return settings(tmp_path, "dataset.name=jsonl", "dataset.task=mine", f"dataset.path={path}", *overrides)


def longbench_row(idx: int, **changes: Any) -> dict[str, Any]:
    return {
        "input": f"who did it {idx} ?",
        "context": "once upon a time " * (idx + 1),
        "answers": ["Ada", "Ada Lovelace"],
        "length": 4 * (idx + 1),
        "dataset": "narrativeqa",
        "language": "en",
        "all_classes": None,
        "_id": f"{idx:048x}",
        **changes,
    }


def longbench_zip(path: Path, tasks: dict[str, list[dict[str, Any]]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, rows in tasks.items():
            archive.writestr(f"data/{name}.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    return path
