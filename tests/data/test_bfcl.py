"""BFCL: rows of the published shape as chat requests, in both modes, from the repository's files and the hub's.

Rows here are invented; their shape was read in ShishirPatil/gorilla at 6ea57973 (bfcl_eval/data).
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.prompt_text import context_parts, render
from kvt_async.data.example_prompt import context_sha256
from kvt_async.data.prepare import check_data, prepare
from kvt_async.data.sources import list_tasks, open_source
from kvt_async.data.sources.bfcl import SOURCE
from kvt_async.data.sources.bfcl_functions import SYSTEM, hinted, system_text, tools
from kvt_async.data.sources.source import Row
from kvt_async.data.tasks import tasks_of
from tests.data.helpers import settings, write_lines

FERRY = {
    "name": "ferry.book",
    "description": "Books a ferry.",
    "parameters": {
        "type": "dict",
        "properties": {
            "route": {"type": "string", "description": "From and to."},
            "price": {"type": "float", "description": "At most."},
        },
        "required": ["route"],
    },
}


def question(n: int, *messages: tuple[str, str], **fields: Any) -> dict[str, Any]:
    said = messages or (("user", f"Book ferry {n}."),)
    turn = [{"role": role, "content": content} for role, content in said]
    return {"id": f"simple_python_{n}", "question": [turn], "function": [FERRY], **fields}


def truth(n: int) -> dict[str, Any]:
    return {"id": f"simple_python_{n}", "ground_truth": [{"ferry.book": {"route": [f"r{n}"], "price": ["", 1.5]}}]}


def bad(parameter: str, schema: Any) -> dict[str, Any]:
    """The ferry with another schema of a parameter."""
    return {**FERRY, "parameters": {"type": "dict", "properties": {parameter: schema}, "required": []}}


def folder(tmp_path: Path, questions: list[dict[str, Any]], truths: list[dict[str, Any]], name: str = "") -> Path:
    name = name or "BFCL_v4_simple_python.json"
    write_lines(tmp_path / "bfcl" / name, questions)
    write_lines(tmp_path / "bfcl" / "possible_answer" / name, truths)
    return tmp_path / "bfcl"


def rows_of(tmp_path: Path, path: Path, *overrides: str) -> list[Row]:
    config = settings(
        tmp_path,
        "dataset.name=bfcl",
        "dataset.task=simple_python",
        f"dataset.path={path}",
        "prompt.endpoint=chat",
        *overrides,
    )
    return list(open_source(config).rows())


def sent(row: Row) -> list[dict[str, str]]:
    example = row.example
    parts = context_parts(example.meta, example.context)
    return render("{context}{question}", example.context, example.question, (), None, parts)[0]


def test_functions_are_offered_as_the_official_code_offers_them() -> None:
    golden = Path(__file__).parent / "golden" / "bfcl_functions.jsonl"
    for line in golden.read_text().splitlines():
        row = json.loads(line)
        described = hinted(row["functions"], row["category"])
        assert json.dumps(tools(described)) == json.dumps(row["tools"])
        assert hashlib.sha256(system_text(described).encode()).hexdigest() == row["system_sha256"]


def test_the_published_system_text_is_kept_to_the_letter() -> None:
    assert hashlib.sha256(SYSTEM.encode()).hexdigest()[:16] == "d32ea59cbdb51e49"


def test_in_mode_fc_functions_go_out_as_tools_and_messages_as_published(tmp_path: Path) -> None:
    conversation = (("system", "Be brief."), ("user", "Hello."), ("user", "Book it."))
    first, second = rows_of(tmp_path, folder(tmp_path, [question(0), question(1, *conversation)], [truth(0), truth(1)]))
    (tool,) = first.example.meta["tools"]
    assert tool["function"]["name"] == "ferry_book"
    assert tool["function"]["parameters"]["properties"]["price"]["type"] == "number"
    assert tool["function"]["description"] == "Books a ferry. Note that the provided function is in Python 3 syntax."
    assert sent(first) == [{"role": "user", "content": "Book ferry 0."}]
    assert [(message["role"], message["content"]) for message in sent(second)] == list(conversation)
    assert json.loads(first.example.answers[0]) == truth(0)["ground_truth"]
    assert first.example.meta["bfcl"] == {"category": "simple_python", "mode": "fc", "functions": [FERRY]}


def test_in_mode_prompt_functions_stand_in_the_system_text_before_the_rows_own(tmp_path: Path) -> None:
    path = folder(tmp_path, [question(0), question(1, ("system", "Be brief."), ("user", "Go."))], [truth(0), truth(1)])
    first, second = rows_of(tmp_path, path, "dataset.params.mode=prompt")
    text = system_text(hinted([FERRY], "simple_python"))
    assert sent(first) == [{"role": "system", "content": text}, {"role": "user", "content": "Book ferry 0."}]
    assert sent(second)[0] == {"role": "system", "content": f"{text}\n\nBe brief."}
    assert "tools" not in first.example.meta
    assert first.example.context == text  # entries with the same functions are one cluster


def test_entries_that_share_their_functions_are_one_cluster_in_either_mode(tmp_path: Path) -> None:
    other = {**FERRY, "description": "Books another ferry."}
    path = folder(tmp_path, [question(0), question(1), question(2, function=[other])], [truth(n) for n in range(3)])
    for mode in ("fc", "prompt"):
        first, second, third = (
            context_sha256(row.example) for row in rows_of(tmp_path, path, f"dataset.params.mode={mode}")
        )
        assert first == second != third


@pytest.mark.parametrize("name", ["BFCL_v4_simple_python.json", "BFCL_v3_simple.json", "BFCL_v3_simple_python.json"])
def test_files_are_found_by_the_names_of_the_repository_and_of_the_hub(tmp_path: Path, name: str) -> None:
    path = folder(tmp_path, [question(0)], [truth(0)], name)
    assert len(rows_of(tmp_path, path)) == 1
    assert len(rows_of(tmp_path, path / name)) == 1  # the file itself, with possible_answer beside it


def test_a_file_of_questions_whose_possible_answers_are_missing_is_not_called_missing_itself(tmp_path: Path) -> None:
    name = "BFCL_v4_simple_python.json"
    path = folder(tmp_path, [question(0)], [truth(0)], name)
    (path / "possible_answer" / name).unlink()
    with pytest.raises(ConfigError, match=r"beside it lies no possible_answer/BFCL_v3_simple\.json") as caught:
        rows_of(tmp_path, path / name)
    assert "possible_answer/BFCL_v4_simple_python.json" in (caught.value.do or "")


def test_a_checkout_of_the_repository_is_a_folder_of_the_files(tmp_path: Path) -> None:
    inner = tmp_path / "gorilla" / "berkeley-function-call-leaderboard" / "bfcl_eval" / "data"
    write_lines(inner / "BFCL_v4_simple_python.json", [question(0)])
    write_lines(inner / "possible_answer" / "BFCL_v4_simple_python.json", [truth(0)])
    for path in (tmp_path / "gorilla", tmp_path / "gorilla" / "berkeley-function-call-leaderboard", inner):
        assert len(rows_of(tmp_path, path)) == 1


def test_the_hubs_files_are_those_of_version_3_at_a_pinned_revision() -> None:
    paths = {key: [file.path for file in SOURCE.task(key, {}).files] for key in SOURCE.tasks}
    assert paths["simple_java"] == ["BFCL_v3_java.json", "possible_answer/BFCL_v3_java.json"]
    assert paths["live_relevance"] == ["BFCL_v3_live_relevance.json"]  # nothing to compare with
    assert {file.revision for key in paths for file in SOURCE.task(key, {}).files} == {
        "61fc0608cfd831fcfbbaa676ebdfef0ed963eeda"
    }


@pytest.mark.parametrize(
    ("questions", "truths", "words"),
    [
        ([question(0), question(1)], [truth(0)], "fewer possible answers"),
        ([question(0)], [truth(0), truth(1)], "more possible answers"),
        ([question(0)], [{"id": "x", "ground_truth": [{"f": 1}]}], "'ground_truth' must be a list of calls"),
        ([question(0)], [question(0)], "'ground_truth' must be a list of calls"),
        ([question(0, function=[{"name": "f"}])], [truth(0)], "'function' must be a list of functions"),
        ([question(0, function=[bad("price", {"type": "array", "items": {}})])], [truth(0)], "lacks the field 'type'"),
        (
            [question(0, function=[bad("price", {"type": ["x"]})])],
            [truth(0)],
            "a parameter is not described as in BFCL",
        ),
        ([question(0, function=[])], [truth(0)], "offers no function"),
        ([question(0)], [{"ground_truth": [{"ferry.book": {"route": 1}}]}], "'ground_truth' must be a list of calls"),
        ([question(0, function=[bad("price", 1)])], [truth(0)], "'function' must be a list of functions"),
        ([question(0, question=[[], []])], [truth(0)], "no conversation of one turn"),
        ([question(0, ("user", "a"), ("assistant", "b"))], [truth(0)], "does not end with the user"),
    ],
)
def test_a_row_of_another_shape_is_named_by_file_and_line(
    tmp_path: Path, questions: list[dict[str, Any]], truths: list[dict[str, Any]], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        rows_of(tmp_path, folder(tmp_path, questions, truths))
    assert "simple_python.json" in str(caught.value.where)


def test_java_and_javascript_are_asked_in_mode_fc_alone(tmp_path: Path) -> None:
    java = settings(tmp_path, "dataset.name=bfcl", "dataset.task=simple_java", "dataset.params.mode=prompt")
    with pytest.raises(ConfigError, match="can't run simple_java"):
        check_data(java)
    every = settings(tmp_path, "dataset.name=bfcl", "dataset.task=all", "dataset.params.mode=prompt")
    chosen = tasks_of(every)
    assert len(chosen.tasks) == 11
    assert any(note.startswith("simple_java is left out") for note in chosen.notes)
    assert len(tasks_of(settings(tmp_path, "dataset.name=bfcl", "dataset.task=all")).tasks) == 13


def test_another_mode_is_refused_and_the_list_says_what_is_not_offered(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no mode 'FC'"):
        check_data(settings(tmp_path, "dataset.name=bfcl", "dataset.task=multiple", "dataset.params.mode=FC"))
    said: list[str] = []
    rows = list_tasks("bfcl", settings(tmp_path), report=said.append)
    assert dict(rows)["parallel"].endswith("bfcl_ast, 4096 tokens")
    assert "multi_turn" in said[0]


def test_prepare_says_which_accepted_calls_no_reply_can_match(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = {"id": "x", "ground_truth": [{"ferry.book": {"route": ["a"], "boat": [1]}}]}
    path = folder(tmp_path, [question(0), question(1)], [truth(0), broken])
    prepare(
        settings(
            tmp_path, "dataset.name=bfcl", "dataset.task=simple_python", f"dataset.path={path}", "prompt.endpoint=chat"
        )
    )
    said = capsys.readouterr().out
    assert "1 of 2 rows have a gold that the published metric bfcl_ast can't score" in said
    assert "simple_python.json:2 (simple_python_1)" in said
