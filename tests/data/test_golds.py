"""Golds that nothing can match, or that everything matches, are found before the first request is sent."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvt_async.contract.errors import ConfigError
from kvt_async.data.prepare import prepare
from kvt_async.data.sources import open_source
from tests.data.helpers import jsonl_settings, longbench_row, longbench_zip, settings


def prepared(tmp_path: Path, rows: list[dict[str, Any]], metric: str = "f1") -> list[str]:
    """What `prepare` says of these rows under a metric."""
    said: list[str] = []
    metric_of = f"dataset.params={{metric: {metric}}}"
    prepare(jsonl_settings(tmp_path, rows, metric_of, "tokenizer.name=approx:chars/4"), report=said.append)
    return said


def row(answers: Any, n: int = 0, **meta: Any) -> dict[str, Any]:
    return {"example_id": f"x{n}", "question": f"q{n}", "context": "c", "answers": answers, "meta": meta}


@pytest.mark.parametrize(
    ("metric", "answers", "meta", "says"),
    [
        ("string_match_part", ["", "Elm"], {}, "the empty answer scores 1"),
        ("string_match_all", [""], {}, "the empty answer scores 1"),
        ("string_match_all", ["42 "], {}, "'42 ' as an answer scores 0"),
        ("f1", [""], {}, "the empty answer scores 1"),
        ("em", ["  "], {}, "the empty answer scores 1"),
        ("qa_f1", ["the"], {}, "'the' as an answer scores 0"),
        ("qa_f1", ["..."], {}, "scores 0"),
        ("squad_f1", ["a"], {}, "the empty answer scores 1"),
        ("rouge", ["."], {}, "scores 0"),
        ("code_sim", ["# only a comment"], {}, "scores 0"),
        ("count", ["7.0"], {}, "scores 0"),
        ("retrieval", ["the third"], {}, "scores 0"),
        ("choice_letter", ["Paris"], {}, "scores 0"),
        ("classification", ["Food"], {}, "the row has no meta.all_classes"),
        ("classification", ["Food"], {"all_classes": ["Date"]}, "meta.all_classes lacks it"),
        ("classification", ["Food", "Dat"], {"all_classes": ["Food", "Date"]}, "'Dat'"),
        ("f1", ["7</think>"], {}, "scores 0"),  # scored as an answer is: all of it is reasoning
    ],
)
def test_a_row_whose_gold_cannot_be_scored_is_named_with_its_line_and_what_to_do(
    tmp_path: Path, metric: str, answers: list[str], meta: dict[str, Any], says: str
) -> None:
    good = {"all_classes": ["Food"]} if metric.startswith("classification") else {}
    right = {"count": "7", "retrieval": "Paragraph 7", "choice_letter": "B", "code_sim": "x = 1"}.get(metric, "Food")
    with pytest.raises(ConfigError) as caught:
        prepared(tmp_path, [row([right], 0, **good), row(answers, 1, **meta)], metric)
    assert "1 of 2 rows" in str(caught.value)
    assert f"{tmp_path / 'in.jsonl'}:2 (x1)" in caught.value.details[0]
    assert says in caught.value.details[0]
    assert '"answers": []' in (caught.value.do or "")
    assert caught.value.exit_code == 2
    assert not list((tmp_path / "data").rglob("manifest.json"))


def test_the_first_few_rows_are_named_and_the_others_counted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="8 of 8 rows") as caught:
        prepared(tmp_path, [row([""], n) for n in range(8)])
    assert len(caught.value.details) == 6
    assert caught.value.details[-1] == "and 3 more rows"


@pytest.mark.parametrize(
    ("metric", "answers", "meta"),
    [
        ("f1", [], {}),
        ("f1", [""], {"unanswerable": True}),
        ("squad_f1", ["", "the"], {"unanswerable": True}),
        ("f1", ["+"], {}),
        ("f1", ["?"], {}),
        ("f1", ["3.5", "unanswerable"], {}),
        ("choice_letter", ["(B)", "b", "B. Paris"], {}),
        ("rouge", ["one sentence. and another"], {}),
        ("classification_first_line", ["Food"], {"all_classes": ["Food"]}),
    ],
)
def test_a_row_may_say_that_nothing_is_its_answer_and_other_golds_pass(
    tmp_path: Path, metric: str, answers: list[str], meta: dict[str, Any]
) -> None:
    assert any("1 entries" in line for line in prepared(tmp_path, [row(answers, **meta)], metric))


def test_nothing_cannot_be_the_answer_under_a_metric_that_finds_it_everywhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        prepared(tmp_path, [row([""], unanswerable=True)], "string_match_part")
    assert "any other answer scores 1" in caught.value.details[0]


@pytest.mark.parametrize("gold", ['["Elm", "Oak"]', "['Elm']"])
def test_a_list_that_was_written_as_a_text_is_said(tmp_path: Path, gold: str) -> None:
    said = prepared(tmp_path, [row(gold), row("[1, 2]", 1), row("[see there]", 2)])
    assert "1 of 3 rows have one gold that reads like a list" in said[0]
    assert "in.jsonl:1" in said[0]


def test_published_rows_stay_as_they_are_and_what_their_metric_cannot_score_is_said(tmp_path: Path) -> None:
    classes = ["number", "Other", "Other number"]
    quirk = longbench_row(0, answers=["Other number"], all_classes=["r", *classes])
    trec = longbench_zip(tmp_path / "trec.zip", {"trec": [quirk]})
    said: list[str] = []
    prepare(settings(tmp_path, "dataset.task=trec", f"dataset.path={trec}"), report=said.append)
    assert any("1 of 1 rows have a gold that the published metric" in line and "0.5" in line for line in said)
    articles = longbench_zip(tmp_path / "qa.zip", {"hotpotqa": [longbench_row(0, answers=["the"])]})
    prepare(settings(tmp_path, "dataset.task=hotpotqa", f"dataset.path={articles}"), report=said.append)
    assert any("qa_f1" in line for line in said)


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("trec", {"answers": ["Food"], "all_classes": None}),
        ("trec", {"answers": ["Food"], "all_classes": ["Date"]}),
        ("passage_count", {"answers": ["seven"]}),
        ("passage_retrieval_en", {"answers": ["the third"]}),
    ],
)
def test_a_published_row_of_another_shape_than_its_metric_reads_is_refused(
    tmp_path: Path, task: str, changes: dict[str, Any]
) -> None:
    archive = longbench_zip(tmp_path / "data.zip", {task: [longbench_row(0, **changes)]})
    with pytest.raises(ConfigError, match="1 of 1 rows"):
        prepare(settings(tmp_path, f"dataset.task={task}", f"dataset.path={archive}"), report=lambda _: None)


def test_every_generator_makes_golds_that_score_themselves(tmp_path: Path) -> None:
    from kvt_async.data.golds import GoldCheck
    from kvt_async.data.sources.kvtext import TASKS as KVTEXT_TASKS
    from kvt_async.data.sources.ruler_tasks import TASKS as RULER_TASKS

    asked = [("kvtext", task, "") for task in KVTEXT_TASKS]
    ruler = "dataset.params={lengths: [2048], per_length: 2}"
    asked += [("ruler", task, ruler) for task in RULER_TASKS if not task.startswith("qa_")]
    for name, task, more in asked:
        overrides = [f"dataset.name={name}", f"dataset.task={task}", *([more] if more else [])]
        source = open_source(settings(tmp_path, *overrides))
        golds = GoldCheck(source.metric)
        golds.add([found for found, _ in zip(source.rows(), range(20), strict=False)])
        assert golds.remarks() == [], (name, task)
        assert golds.rows > 0


def test_checking_loads_no_library_of_the_analysis() -> None:
    code = (
        "from analyzer.metrics.single import scorer, has_form; has_form('count'); "
        "[scorer(m)('7', ('7',), {}) for m in ('f1', 'qa_f1', 'rouge', 'code_sim', 'choice_letter', 'squad_f1')]; "
        "import sys; print(sorted({'polars', 'numpy', 'altair', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------ expected calls

TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}}},
}


def calls_row(expected: Any, n: int = 0, tools: Any = (TOOL,)) -> dict[str, Any]:
    fields = {"example_id": f"x{n}", "question": f"q{n}", "context": "c", "tools": list(tools)}
    return {**fields, "expected_calls": expected}


def test_expected_calls_are_held_against_their_tools(tmp_path: Path) -> None:
    good = calls_row([{"name": "f", "arguments": {"n": 1}}])
    rows = [
        good,
        calls_row([{"name": "g", "arguments": {}}], 1),
        calls_row([{"name": "f", "arguments": {"n": "1"}}], 2),
    ]
    with pytest.raises(ConfigError, match="2 of 3 rows") as caught:
        prepared(tmp_path, rows, "tool_call")
    assert "in.jsonl:2 (x1): can't be matched" in caught.value.details[0]
    assert "the row has no tool 'g'" in caught.value.details[0]
    assert "arguments['n'] don't fit the tool's schema" in caught.value.details[1]


def test_tools_whose_parameters_are_no_schema_are_refused_though_no_call_is_expected(tmp_path: Path) -> None:
    odd = {"type": "function", "function": {"name": "f", "parameters": {"type": "dict"}}}
    with pytest.raises(ConfigError) as caught:
        prepared(tmp_path, [calls_row([], tools=[odd])], "tool_call")
    assert "the parameters of the tool 'f' are no JSON Schema" in caught.value.details[0]


def test_a_row_where_no_call_is_right_needs_no_answer(tmp_path: Path) -> None:
    said = prepared(
        tmp_path, [calls_row([]), calls_row([[]], 1), row([], 2), row([""], 3, unanswerable=True)], "tool_call"
    )
    assert any("2 of 4 examples have no answers: only to make no call is right" in line for line in said)


def test_several_expected_calls_are_said_to_be_alternatives(tmp_path: Path) -> None:
    calls = [{"name": "f", "arguments": {"n": n}} for n in (1, 2)]
    said = prepared(tmp_path, [calls_row(calls), calls_row([calls], 1), calls_row([calls[0], []], 2)], "tool_call")
    assert any("1 of 3 rows expect one of several calls" in line for line in said)


def test_expected_calls_under_a_metric_of_texts_are_said(tmp_path: Path) -> None:
    said = prepared(tmp_path, [calls_row([{"name": "f", "arguments": {"n": 1}}])])
    assert any("1 of 1 rows have expected_calls, and f1 gets them as JSON text" in line for line in said)


def test_calls_may_be_given_as_answers_in_json(tmp_path: Path) -> None:
    assert prepared(tmp_path, [row('{"name": "f", "arguments": {}}'), row(["[]"], 1)], "tool_call")


def test_a_text_is_no_expected_call(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        prepared(tmp_path, [row("Paris")], "tool_call")
    assert "it is no call" in caught.value.details[0]
