"""Invented rows of MRCR and LongBench v2 in the exact format, and files of them as they are published."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

KINDS, TOPICS = ("poem", "blog post", "riddle", "short essay"), ("tapirs", "rocks", "harbours", "lanterns")
NEEDLE = ("poem", "tapirs")


def mrcr_row(seed: int, *, needles: int = 2, pairs: int = 6, words: int = 12) -> dict[str, Any]:
    """A conversation of `pairs` asks and answers of so many words behind one message of examples."""
    rng = random.Random(seed)
    others = [(kind, topic) for kind in KINDS for topic in TOPICS if (kind, topic) != NEEDLE]
    asked = [NEEDLE] * needles + [rng.choice(others) for _ in range(pairs - needles)]
    rng.shuffle(asked)
    messages = [{"role": "user", "content": "Here are two worked examples.\n======EXAMPLE======\n...\n"}]
    written: list[str] = []
    for kind, topic in asked:
        text = f"A {kind} about {topic}: " + " ".join(rng.choices(("rain", "look", "code", "mira"), k=words)) + "."
        messages += [{"role": "user", "content": f"write a {kind} about {topic}"}]
        messages += [{"role": "assistant", "content": text}]
        written += [text] if (kind, topic) == NEEDLE else []
    nth = rng.randrange(needles)
    prefix = "".join(rng.choices("abcdefghXYZ0123456789", k=10))
    asks = f"Prepend {prefix} to the {nth + 1}th (1 indexed) poem about tapirs. Do not include any other text."
    messages += [{"role": "user", "content": asks}]
    at = [place for place, message in enumerate(messages) if message["content"] == "write a poem about tapirs"][nth]
    return {
        "prompt": json.dumps(messages),
        "answer": prefix + written[nth],
        "random_string_to_prepend": prefix,
        "n_needles": needles,
        "desired_msg_index": at,
        "total_messages": len(messages),
        "n_chars": sum(len(message["content"]) for message in messages),
        "date_added": "04-12-2025",
    }


def mrcr_files(folder: Path, rows: Sequence[dict[str, Any]], needles: int = 2) -> Path:
    """Two Parquet files of a needle count, half of the rows each, where the hub has them."""
    place = folder / f"{needles}needle"
    place.mkdir(parents=True, exist_ok=True)
    for part, some in enumerate((rows[: len(rows) // 2], rows[len(rows) // 2 :])):
        table = pyarrow.Table.from_pylist(list(some))
        pyarrow.parquet.write_table(table, place / f"{needles}needle_{part}.parquet")
    return folder


def longbench_v2_row(idx: int, **changes: Any) -> dict[str, Any]:
    return {
        "_id": f"{idx:024x}",
        "domain": "Single-Document QA",
        "sub_domain": "Detective",
        "difficulty": ("easy", "hard")[idx % 2],
        "length": ("short", "medium", "long")[idx % 3],
        "question": f" who holds code {idx} ?\n",
        **{
            f"choice_{letter}": f" {name} "
            for letter, name in zip("ABCD", ("mira", "anna", "otto", "ida"), strict=True)
        },
        "answer": "ABCD"[idx % 4],
        "context": f"\n the code of mira is {idx} . " + "rain falls . " * (idx + 1),
        **changes,
    }


def data_json(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.json").write_text(json.dumps(list(rows), ensure_ascii=False, indent=2), encoding="utf-8")
    return folder
