"""Every published data set of files, each from a local copy in its exact format, in one suite against the real server.

Rows are invented; where each format was read stands in the tests of its source.
"""

import csv
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import yaml

from tests.data.long_context_rows import data_json, longbench_v2_row, mrcr_files, mrcr_row
from tests.end_to_end.conftest import Kvt, ok, overrides
from tests.worlds import query

ROWS = 6
WORDS = ["rain", "falls", "on", "the", "code", "of", "mira", "and", "anna", "looks", "at", "otto"]
FERRY = {
    "name": "book_ferry",
    "description": "Books a ferry.",
    "parameters": {"type": "dict", "properties": {"route": {"type": "string"}}, "required": ["route"]},
}


def prose(seed: int, words: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def lines(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def gpqa(path: Path) -> Path:
    fields = ("Record ID", "Question", "Correct Answer", *(f"Incorrect Answer {n}" for n in (1, 2, 3)))
    fields = (*fields, "High-level domain", "Subdomain")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(fields)
        for n in range(ROWS):
            writer.writerow((f"rec{n}", f"{prose(n, 40)} ?", "mira", "anna", "otto", "ida", "Physics", "Optics"))
    return path


def tasks(folder: Path) -> list[dict[str, Any]]:
    """An entry of `tasks` for each data set, over ROWS rows (of conversations: with two turns each)."""
    rows = range(ROWS)
    bfcl = lines(
        folder / "bfcl/BFCL_v4_simple_python.json",
        (
            {
                "id": f"simple_python_{n}",
                "question": [[{"role": "user", "content": f"{prose(n, 40)} Book ferry {n}."}]],
                "function": [{**FERRY, "description": f"Books a ferry of line {n}."}],
            }
            for n in rows
        ),
    ).parent
    lines(
        bfcl / "possible_answer/BFCL_v4_simple_python.json",
        ({"id": f"simple_python_{n}", "ground_truth": [{"book_ferry": {"route": [f"r{n}"]}}]} for n in rows),
    )
    scbench = lines(
        folder / "scbench_kv.jsonl",
        (
            {
                "id": n,
                "context": json.dumps({f"key{i}": f"value{i}" for i in range(20 + n)}),
                "multi_turns": [{"input": f"key{i}", "answer": f"value{i}"} for i in range(2)],
            }
            for n in rows
        ),
    )
    own = lines(
        folder / "own.jsonl",
        (
            {
                "example_id": f"talk{n}",
                "context": prose(n, 60),
                "conversation": [
                    {"question": "who is it ?", "answers": ["mira"]},
                    {"question": "and then ?", "answers": ["anna"]},
                ],
            }
            for n in rows
        ),
    )
    ifeval = lines(
        folder / "ifeval_input_data.jsonl",
        (
            {
                "key": n,
                "prompt": f"{prose(n, 40)}. No commas, please, and in lower case.",
                "instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase"],
                "kwargs": [{}, {}],
            }
            for n in rows
        ),
    )
    gsm8k = [{"question": f"{prose(n, 40)} 2 + {n}?", "answer": f"2 + {n}\n#### {n + 2}"} for n in rows]
    problems = [
        {
            "problem": f"{prose(n, 40)} Find $n$.",
            "solution": "It is.",
            "answer": f"0{n}",
            "subject": "Algebra",
            "level": 1,
            "unique_id": f"test/algebra/{n}.json",
            "id": n,
            "url": "",
            "year": "2024",
        }
        for n in rows
    ]
    paths = {
        "gsm8k": parquet(folder / "gsm8k.parquet", gsm8k),
        "math500": lines(folder / "math500.jsonl", problems),
        "aime24": parquet(folder / "aime24.parquet", problems),
        "aime25": lines(folder / "aime25.jsonl", ({**row, "id": str(row["id"])} for row in problems)),
        "gpqa_diamond": gpqa(folder / "gpqa_diamond.csv"),
        "ifeval": ifeval,
        "longbench_v2": data_json(folder / "lb2", [longbench_v2_row(n) for n in rows]),
    }
    mrcr = mrcr_files(folder / "mrcr", [mrcr_row(n) for n in rows])
    entries: list[dict[str, Any]] = [{"dataset": {"name": name, "path": str(path)}} for name, path in paths.items()]
    entries += [
        {"dataset": {"name": "mrcr", "task": "2needle", "path": str(mrcr)}},
        {"dataset": {"name": "scbench", "task": "scbench_kv", "path": str(scbench)}},
        {"dataset": {"name": "bfcl", "task": "simple_python", "path": str(bfcl), "params": {"mode": "prompt"}}},
        {"dataset": {"name": "jsonl", "task": "talks", "path": str(own)}},
    ]
    return entries


METRICS = {
    "aime24": "math_verify",
    "aime25": "math_verify",
    "gpqa_diamond": "gpqa_letter",
    "gsm8k": "gsm8k_number",
    "ifeval": "ifeval_strict",
    "longbench_v2": "longbench_v2_letter",
    "math500": "math_verify",
    "2needle": "mrcr",
    "scbench_kv": "scbench_kv",
    "simple_python": "bfcl_ast",
    "talks": "f1",
}
TURNS = {"scbench_kv": 2, "talks": 2}


@pytest.mark.parametrize("history", ["golden", "own"])
def test_all_of_them_run_in_one_suite_from_files_to_the_report(
    kvt: Kvt, tmp_path: Path, server_url: str, history: str
) -> None:
    chosen = tasks(tmp_path / "raw")
    if history == "own":
        chosen = [entry for entry in chosen if entry["dataset"].get("task") in TURNS]
    config = {
        "experiment": {"exp_group_id": "published"},
        "tokenizer": {"name": "reference"},
        "model": {"name": "reference"},
        "engine": {"base_url": server_url},
        "tasks": chosen,
        "binning": {"n_bins": 1, "n_per_bin": ROWS},
        "decoding": {"max_tokens": 8},
        "workload": {"reuse": "turns", "history": history},
        "kv": {"policy": "snapkv", "budgets": [1.0, 0.3]},
        "analysis": {"resamples": 200, "guard": 0.9},
    }
    (tmp_path / "published.yaml").write_text(yaml.safe_dump(config))
    args = ("-c", "published.yaml")
    ok(kvt("validate", *args))
    assert "requests" in ok(kvt("sweep", *args, "--dry-run"))
    ok(kvt("sweep", *args, "--allow-dead-knob"))
    ok(kvt("all", *args))
    db = tmp_path / "runs/published/kv_transition.sqlite"
    names = {entry["dataset"].get("task", entry["dataset"]["name"]) for entry in chosen}
    stored = query(db, "SELECT task, metric, count(*) FROM datasets JOIN runs USING (dataset_id) GROUP BY 1, 2")
    assert sorted(stored) == sorted((name, METRICS[name], 3) for name in names)
    answered = "SELECT task, count(*) FROM responses JOIN requests USING (request_id) JOIN runs USING (run_id) "
    counts = query(db, answered + "JOIN datasets USING (dataset_id) GROUP BY 1")
    assert dict(counts) == {name: 3 * ROWS * TURNS.get(name, 1) for name in names}
    assert query(db, "SELECT count(*) FROM failures") == [(0,)]
    assert query(db, "SELECT DISTINCT turn_idx FROM requests ORDER BY 1") == [(0,), (1,)]
    report = (tmp_path / "runs/published/report.md").read_text()
    for name in names:
        assert name in report
    ok(kvt("sweep", *args, *overrides("limits.concurrency=2")))
    assert query(db, "SELECT count(*) FROM attempts") == [(sum(n for _, n in counts),)], "nothing is asked twice"
