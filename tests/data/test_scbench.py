"""SCBench's rows, prompts and modes, on rows made here in the published format."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.settings import Settings
from kvt_async.data.manifest import read_items
from kvt_async.data.prepare import check_data, prepare
from kvt_async.data.sources import list_tasks, open_source, published
from kvt_async.data.sources.scbench import SOURCE
from kvt_async.data.sources.source import ExampleSource, Row
from kvt_async.data.tasks import tasks_of
from kvt_async.records import Example
from tests.data.helpers import settings, write_lines

PROMPTS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "golden/scbench_prompts.json").read_bytes())


def config(tmp_path: Path, task: str, rows: list[dict[str, Any]], *overrides: str) -> Settings:
    path = write_lines(tmp_path / f"{task}.jsonl", rows)
    return settings(tmp_path, "dataset.name=scbench", f"dataset.task={task}", f"dataset.path={path}", *overrides)


def opened(tmp_path: Path, task: str, rows: list[dict[str, Any]], *overrides: str) -> tuple[ExampleSource, list[Row]]:
    source = open_source(config(tmp_path, task, rows, *overrides))
    return source, list(source.rows())


def sent(source: ExampleSource, example: Example) -> str:
    """What stands before the model under the golden script's chat template."""
    from kvt_async.contract.formulas.prompt_text import render

    messages, _ = render(source.template or "", example.context, example.question, example.meta["turns"])
    return "".join(f"<{m['role']}>{m['content']}</>" for m in messages) + "<assistant>"


@pytest.mark.parametrize("mode", ["multi_turn", "scdq"])
@pytest.mark.parametrize("task", sorted(SOURCE.tasks))
def test_prompts_are_the_official_ones_to_the_letter(tmp_path: Path, task: str, mode: str) -> None:
    wanted = PROMPTS[task]
    source, rows = opened(tmp_path, task, [wanted["row"]], f"dataset.params={{mode: {mode}}}")
    texts = [sent(source, row.example) for row in rows]
    if task == "scbench_summary" and mode == "multi_turn":  # how its answer is begun is left out, and said
        texts = [text + "This paper" * (k > 0) for k, text in enumerate(texts)]
        assert "This paper" in source.notes[0]
    assert [hashlib.sha256(text.encode()).hexdigest() for text in texts] == wanted[mode]


def test_the_twelve_tasks_have_their_published_lengths() -> None:
    assert len(SOURCE.tasks) == 12
    assert sorted(SOURCE.tasks) == sorted(PROMPTS)
    for task, row in PROMPTS.items():
        dataset = settings(Path("x"), "dataset.name=scbench", f"dataset.task={task}").dataset
        own = published(dataset)
        assert own is not None
        assert own.max_new_tokens == row["max_new_tokens"]


def test_turns_are_examples_of_one_conversation(tmp_path: Path) -> None:
    row = PROMPTS["scbench_choice_eng"]["row"]
    _, rows = opened(tmp_path, "scbench_choice_eng", [row, row])
    assert [r.example.example_id for r in rows] == ["0", "0.t1", "0.t2", "1", "1.t1", "1.t2"]
    assert [r.example.answers for r in rows[:3]] == [("red", "A"), ("blue", "C"), ("grey", "D")]
    assert (rows[1].example.meta["conversation"], rows[1].example.meta["turn"], rows[1].example.meta["id"]) == (
        "0",
        1,
        7,
    )
    assert rows[1].where.endswith("scbench_choice_eng.jsonl:1, multi_turns[1]")
    assert {r.example.context for r in rows} == {row["context"]}
    _, alone = opened(tmp_path, "scbench_choice_eng", [row], "dataset.params={mode: scdq}")
    assert [r.example.meta["turns"] for r in alone] == [[], [], []]
    assert [r.example.meta["turn"] for r in alone] == [0, 1, 2]


@pytest.mark.parametrize("task", ["scbench_mf", "scbench_many_shot", "scbench_qa_chn"])
def test_an_answer_may_be_a_list(tmp_path: Path, task: str) -> None:
    row = json.loads(json.dumps(PROMPTS[task]["row"]))
    row["multi_turns"] = row["multi_turns"][:2]
    answers: list[Any] = [15, 4] if task == "scbench_mf" else ["one", "two"]
    for turn in row["multi_turns"]:
        turn["answer"] = answers
    first, second = opened(tmp_path, task, [row])[1]
    told = second.example.meta["turns"][0][1]
    assert told == str(answers)  # as the script writes it
    if task == "scbench_mf":
        assert first.example.answers == ("15",)
    else:
        assert (first.example.answers, first.example.meta["labels"]) == (("one", "two"), "list")
        row["multi_turns"][0]["answer"] = "one"
        assert opened(tmp_path, task, [row])[1][0].example.meta["labels"] == "text"


def test_so_many_turns_are_taken_as_the_script_takes(tmp_path: Path) -> None:
    turns = [{"input": f"key {k} ?", "answer": f"v{k}"} for k in range(8)]
    row = {"context": "c", "multi_turns": turns}
    for most, n in (("", 5), ("dataset.params={max_turns: 2}", 2), ("dataset.params={max_turns: null}", 8)):
        _, rows = opened(tmp_path, "scbench_kv", [row], *([most] if most else []))
        assert len(rows) == n


def test_functions_are_compared_with_all_of_their_repository(tmp_path: Path) -> None:
    def row(repo: str, *names: str) -> dict[str, Any]:
        turns = [
            {"input": f"find {n}", "answer": f"def {n}(): pass", "name": n, "task": "scbench_repoqa"} for n in names
        ]
        turns.append({"input": "key ?", "answer": "v", "name": "", "task": "scbench_kv"})
        return {"context": "code", "lang": "python", "repo": repo, "multi_turns": turns}

    given = [row("a/a", "one", "two"), row("b/b", "three"), row("a/a", "four")]
    _, rows = opened(tmp_path, "scbench_repoqa_and_kv", given)
    meta = rows[0].example.meta
    assert [name for name, _ in meta["needles"]] == ["one", "two", "four"]
    assert (meta["lang"], meta["repo"], meta["func_name"], meta["task"]) == ("python", "a/a", "one", "scbench_repoqa")
    assert rows[2].example.meta["task"] == "scbench_kv"
    assert "func_name" not in rows[2].example.meta
    assert [name for name, _ in rows[3].example.meta["needles"]] == ["three"]


def test_parquet_of_the_same_rows_is_read_from_a_folder_as_the_hub_has_it(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    (folder / "scbench_mf").mkdir(parents=True)
    row = PROMPTS["scbench_mf"]["row"]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), folder / "scbench_mf/test-00000-of-00001.parquet")
    from_parquet = open_source(
        settings(tmp_path, "dataset.name=scbench", "dataset.task=scbench_mf", f"dataset.path={folder}")
    )
    _, rows = opened(tmp_path, "scbench_mf", [row])
    assert [r.example for r in from_parquet.rows()] == [r.example for r in rows]
    assert rows[0].example.answers == ("15",)


@pytest.mark.parametrize(
    ("task", "change", "says"),
    [
        (
            "scbench_choice_eng",
            {"multi_turns": [{"input": "?", "answer": "a", "options": 4}]},
            "'options' must be a list of four texts, not a number",
        ),
        ("scbench_kv", {"multi_turns": None}, "the field 'multi_turns' must be a list of turns, not null"),
        ("scbench_kv", {"multi_turns": []}, "the field 'multi_turns' must be a list of turns"),
        ("scbench_kv", {"multi_turns": [{"input": "q"}]}, r"the field 'multi_turns\[0\]' must be a turn"),
        ("scbench_kv", {"multi_turns": [{"input": "q", "answer": ["a"]}]}, "the field 'answer' must be a text"),
        ("scbench_kv", {"context": None}, "the field 'context' must be a text, or a list of numbers, not null"),
        ("scbench_vt", {"multi_turns": [{"input": "q", "answer": "a"}]}, "the field 'answer' must be a list of texts"),
        ("scbench_mf", {"multi_turns": [{"input": "The largest is", "answer": "9"}]}, "'answer' must be a number"),
        ("scbench_many_shot", {"multi_turns": [{"input": "q", "answer": []}]}, "'answer' must be a text"),
        ("scbench_mf", {"multi_turns": [{"input": "largest ?", "answer": 9}]}, "a question of scbench_mf has"),
        (
            "scbench_choice_eng",
            {"multi_turns": [{"input": "q", "answer": "a", "options": ["a"]}]},
            "the field 'options' must be a list of four texts",
        ),
        (
            "scbench_choice_eng",
            {"multi_turns": [{"input": "q", "answer": "e", "options": [*"abcd"]}]},
            "the answer is none of the options",
        ),
        (
            "scbench_summary_with_needles",
            {"multi_turns": [{"input": "q", "answer": "a", "task": "other"}]},
            "the field 'task' of a turn is scbench_summary or scbench_passkey, not 'other'",
        ),
        ("scbench_repoqa", {"lang": None}, "the field 'lang' must be a text"),
    ],
)
def test_a_row_of_another_shape_is_named(tmp_path: Path, task: str, change: dict[str, Any], says: str) -> None:
    row = PROMPTS[task]["row"]
    with pytest.raises(ConfigError, match=says) as caught:
        opened(tmp_path, task, [row, {**row, **change}])
    assert f"{task}.jsonl:2" in caught.value.where


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ("{mode: turns}", "mode must be multi_turn or scdq, not 'turns'"),
        ("{max_turns: 0}", "max_turns must be a whole number above 0"),
        ("{max_turns: true}", "max_turns must be a whole number above 0"),
        ("{modes: scdq}", "scbench has no parameter 'modes'"),
    ],
)
def test_a_parameter_without_meaning_is_refused(tmp_path: Path, params: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_data(config(tmp_path, "scbench_kv", [], f"dataset.params={params}"))


def test_each_task_prepares_and_its_golds_can_be_scored(tmp_path: Path) -> None:
    for task, golden in PROMPTS.items():
        row = {**golden["row"], "id": 1}
        if task == "scbench_summary_with_needles":
            row["multi_turns"][1]["answer"] = "71432"
        if task in ("scbench_repoqa", "scbench_repoqa_and_kv"):
            for turn in row["multi_turns"]:
                turn["answer"] = f"def {turn['name']}(a, b):\n    return a + b - {turn['name'][1:]} * (a - b)"
        said: list[str] = []
        prepared = prepare(config(tmp_path, task, [row], "binning.n_bins=1"), report=said.append)
        entries = list(read_items(prepared.path))
        assert [example.example_id for _, example in entries] == ["0", "0.t1", "0.t2"]
        assert len({entry.context_sha256 for entry, _ in entries}) == 1
        unscorable = any("can't score in full" in line for line in said)
        assert unscorable == (task == "scbench_qa_chn"), (
            task,
            said,
        )  # its quirk: a gold is never more than a character


def test_all_takes_the_tasks_whose_files_are_there(tmp_path: Path) -> None:
    for task in ("scbench_kv", "scbench_vt"):
        write_lines(tmp_path / "files" / f"{task}.jsonl", [PROMPTS[task]["row"]])
    tasks = tasks_of(settings(tmp_path, "dataset.name=scbench", "dataset.task=all", f"dataset.path={tmp_path}/files"))
    assert [task.name for task in tasks.tasks] == ["scbench_kv", "scbench_vt"]
    assert any("scbench_mf is left out" in note for note in tasks.notes)
    assert tasks.tasks[1].settings.decoding.max_tokens == 30


def test_the_tasks_are_listed_with_metric_and_length(tmp_path: Path) -> None:
    rows = dict(list_tasks("scbench", settings(tmp_path)))
    assert rows["scbench_vt"].endswith("scbench_vt, 30 tokens")
