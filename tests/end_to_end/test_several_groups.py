"""Groups of several tasks set side by side: `kvt compare` on what real sweeps left."""

import asyncio
import csv
import json
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from analyzer.scoring.score import score
from kvt_async.cli import app
from kvt_async.contract.errors import KvtError
from kvt_async.contract.schema import connect_for_reading
from kvt_async.sweep.sweep import SweepOptions, run
from tests.servers.openai_server import Script, serving
from tests.worlds import db_of, sweep_settings, write_examples

NAMES = ("alpha", "beta")


async def _sweep(folder: Path, group: str, names: tuple[str, ...], *overrides: str) -> Path:
    entries = [{"dataset": {"task": name, "path": str(folder / f"{name}.jsonl")}} for name in names]
    async with serving(Script()) as (_, url):
        settings = sweep_settings(
            folder, url, f"experiment.exp_group_id={group}", f"tasks={orjson.dumps(entries).decode()}",
            "binning.n_per_bin=6", "analysis.guard=0.99", *overrides,
        )  # fmt: skip
        await run(settings, options=SweepOptions(quiet=True))
    conn = connect_for_reading(db_of(settings), write_derived=True)
    score(conn, group)
    conn.close()
    return db_of(settings).parent


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("groups")
    for at, name in enumerate((*NAMES, "gamma")):
        write_examples(folder / f"{name}.jsonl", 6, words=20 + 10 * at)
    return {
        "monday": asyncio.run(_sweep(folder, "monday", NAMES)),
        "tuesday": asyncio.run(_sweep(folder, "tuesday", NAMES)),
        "wider": asyncio.run(_sweep(folder, "wider", (*NAMES, "gamma"), "kv.budgets=[1.0, 0.5]")),
        "apart": asyncio.run(_sweep(folder, "apart", ("gamma",))),
    }


def kvt(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(done.exception, KvtError):
        return done.exception.exit_code, str(done.exception)
    return done.exit_code, done.output


def compared(*places: Path) -> Any:
    code, output = kvt("compare", *places, "--json")
    assert code == 0, output
    return json.loads(output)


def test_two_groups_are_paired_task_by_task(groups: dict[str, Path]) -> None:
    answer = compared(groups["monday"], groups["tuesday"])
    assert {(level["task"], level["kv_budget"], level["n"]) for level in answer["levels"]} == {
        (task, budget, 6) for task in NAMES for budget in (1.0, 0.5, 0.2)
    }
    assert all(level["diff"] == 0 for level in answer["levels"])
    assert (answer["differs"], answer["only_in"]) == ({}, {"monday": [], "tuesday": []})


def test_what_one_group_lacks_is_said_by_task(groups: dict[str, Path]) -> None:
    answer = compared(groups["monday"], groups["wider"])
    assert answer["only_in"] == {
        "monday": ["alpha: snapkv/aware 0.2", "beta: snapkv/aware 0.2"],
        "wider": ["task gamma"],
    }


def test_any_number_of_groups_stand_in_one_table(groups: dict[str, Path]) -> None:
    answer = compared(groups["monday"], groups["tuesday"], groups["wider"])
    assert answer["groups"] == ["monday", "tuesday", "wider"]
    rows = {(row["task"], row["series"], row["kv_budget"]): row for row in answer["rows"]}
    assert rows["alpha", "full", 1.0]["accuracy"] == [0.0, 0.0, 0.0]
    assert rows["alpha", "snapkv/aware", 0.2]["accuracy"][2] is None
    assert rows["gamma", "full", 1.0]["accuracy"] == [None, None, 0.0]
    assert not any(any(row["proven"]) for row in answer["rows"])
    assert answer["mean_tasks"] == list(NAMES)
    assert {"series": "snapkv/aware", "kv_budget": 0.2, "accuracy": [0.0, 0.0, None]} in answer["means"]
    assert answer["safe"] == [{"series": "snapkv/aware", "safe_budget": [None] * 3, "analysed": [False] * 3}]
    code, text = kvt("compare", groups["monday"], groups["tuesday"], groups["wider"])
    assert code == 0
    assert re.search(r"^Task +Series +Budget +monday +tuesday +wider$", text, re.MULTILINE)


def test_a_group_that_shares_no_task_is_named_and_the_others_are_compared(groups: dict[str, Path]) -> None:
    answer = compared(groups["monday"], groups["tuesday"], groups["apart"])
    assert answer["apart"] == {"apart": "monday and apart share no task; monday: alpha, beta; apart: gamma"}
    code, output = kvt("compare", groups["monday"], groups["apart"])
    assert (code, "share no task" in output) == (3, True)
    assert kvt("compare", groups["monday"])[0] == 2


def test_an_example_is_shown_as_each_task_has_it(groups: dict[str, Path]) -> None:
    code, output = kvt("show", groups["monday"], "e1", "--json")
    assert code == 0, output
    assert [(example["task"], len(example["levels"])) for example in json.loads(output)["examples"]] == [
        ("alpha", 4), ("beta", 4),
    ]  # fmt: skip
    _, output = kvt("show", groups["monday"], "e1", "--task", "beta", "--json")
    assert [example["task"] for example in json.loads(output)["examples"]] == ["beta"]
    _, output = kvt("show", groups["monday"], "--sample", "12", "--json")
    assert {example["task"] for example in json.loads(output)["examples"]} == {"alpha", "beta"}
    code, output = kvt("show", groups["monday"], "e1", "--task", "gamma")
    assert (code, "Its tasks: alpha, beta" in output) == (2, True)


def test_an_export_names_group_task_and_model(groups: dict[str, Path], tmp_path: Path) -> None:
    code, output = kvt("export", groups["monday"], tmp_path / "rows.csv")
    assert code == 0, output
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["exp_group_id"], row["task"], row["model_name"], row["sample_idx"]) for row in rows} == {
        ("monday", "alpha", "reference", "0"), ("monday", "beta", "reference", "0"),
    }  # fmt: skip
    assert len(rows) == 2 * 6 * 4


@pytest.mark.parametrize("suffix", ["html", "md", "csv"])
@pytest.mark.parametrize("names", [("monday", "tuesday"), ("monday", "tuesday", "wider")])
def test_the_comparison_is_also_a_page(
    groups: dict[str, Path], tmp_path: Path, suffix: str, names: tuple[str, ...]
) -> None:
    out = tmp_path / f"page.{suffix}"
    code, output = kvt("compare", *(groups[name] for name in names), "--out", out)
    assert code == 0, output
    text = out.read_text()
    assert all(name in text for name in (*names, *NAMES))
    if suffix == "csv":
        rows = list(csv.reader(text.splitlines()))
        assert {len(row) for row in rows} == {len(rows[0])}
    assert kvt("compare", *(groups[name] for name in names), "--out", tmp_path / "page.pdf")[0] == 2
