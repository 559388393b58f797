"""GSM8K, MATH-500, AIME and GPQA-Diamond: their records, their prompts, what they are published with.

The formats were read in the data sets' cards and in code that reads them (lm-evaluation-harness, lighteval,
simple-evals); every row here is made up.
"""

import csv
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.prompt_text import render
from kvt_async.contract.load import load_settings
from kvt_async.contract.settings import Settings
from kvt_async.data.identity import dataset_id
from kvt_async.data.prepare import prepare
from kvt_async.data.sources import check_metric, check_source, gpqa, gsm8k, math_problems, open_source, published
from kvt_async.data.sources.shelf import SHELF
from kvt_async.data.tasks import tasks_of
from kvt_async.records import Example
from tests.data.helpers import settings, write_lines

NAMES = ("gsm8k", "math500", "aime24", "aime25", "gpqa_diamond")
ROOT = Path(__file__).parents[2]

GSM8K = [
    {"question": "Ida has 3 bags of 24 nuts. How many nuts?", "answer": "3 * 24 = <<3*24=72>>72 nuts.\n#### 72"},
    {"question": "Bo earns $500 twice. How much?", "answer": "500 + 500 = 1,000\n#### 1,000"},
]
MATH500 = [
    {
        "problem": "Half of $\\frac{3}{2}$?",
        "solution": "It is $\\boxed{\\frac{3}{4}}.$",
        "answer": "\\frac{3}{4}",
        "subject": "Prealgebra",
        "level": 1,
        "unique_id": "test/prealgebra/9001.json",
    },
    {
        "problem": "Which way up?",
        "solution": "$\\boxed{\\text{north}}$",
        "answer": "\\text{north}",
        "subject": "Geometry",
        "level": 5,
        "unique_id": "test/geometry/9002.json",
    },
]
AIME24 = [
    {
        "id": 7,
        "problem": "Find $n$.",
        "solution": "It is 73.",
        "answer": "073",
        "url": "https://example.org",
        "year": "2024",
    }
]
AIME25 = [{"problem": "Find $m$.", "answer": "410", "id": "0"}]
GPQA = [
    {
        "Pre-Revision Question": "?",
        "Question": f"Which of these, in case {n}?\nThink.",
        "Correct Answer": "the right one\n",
        "Incorrect Answer 1": "a",
        "Incorrect Answer 2": "b, c",
        "Incorrect Answer 3": '"d"',
        "Record ID": f"rec{n}",
        "High-level domain": "Physics",
        "Subdomain": "Optics",
    }
    for n in range(8)
]


def folder(tmp_path: Path) -> dict[str, Path]:
    """Each data set as it is published, in a place of its own."""
    (tmp_path / "gsm8k/main").mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(AIME24), tmp_path / "aime24.parquet")
    rows = pyarrow.Table.from_pylist(GSM8K)
    pyarrow.parquet.write_table(rows, tmp_path / "gsm8k/main/test-00000-of-00001.parquet")
    with (tmp_path / "gpqa_diamond.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, GPQA[0])
        writer.writeheader()
        writer.writerows(GPQA)
    return {
        "gsm8k": tmp_path / "gsm8k",
        "math500": write_lines(tmp_path / "math500/test.jsonl", MATH500).parent,
        "aime24": tmp_path / "aime24.parquet",
        "aime25": write_lines(tmp_path / "aime25/test.jsonl", AIME25),
        "gpqa_diamond": tmp_path,
    }


def of(tmp_path: Path, name: str, *more: str) -> Settings:
    path = folder(tmp_path)[name]
    return settings(tmp_path, f"dataset={{name: {name}, path: '{path}'}}", "decoding.temperature=0.6", *more)


def examples(tmp_path: Path, name: str, *more: str) -> list[Example]:
    return [row.example for row in open_source(of(tmp_path, name, *more)).rows()]


def test_records_become_examples_with_the_published_answer_and_without_the_solution(tmp_path: Path) -> None:
    found = {name: examples(tmp_path / name, name) for name in NAMES}
    assert [(e.question, e.answers) for e in found["gsm8k"]] == [
        (GSM8K[0]["question"], ("72",)),
        (GSM8K[1]["question"], ("1,000",)),
    ]
    assert [(e.example_id, e.answers, e.meta) for e in found["math500"]] == [
        ("test/prealgebra/9001.json", ("\\frac{3}{4}",), {"subject": "Prealgebra", "level": 1}),
        ("test/geometry/9002.json", ("\\text{north}",), {"subject": "Geometry", "level": 5}),
    ]
    assert [(e.example_id, e.answers) for e in found["aime24"] + found["aime25"]] == [("7", ("073",)), ("0", ("410",))]
    assert {e.context for each in found.values() for e in each} == {""}
    assert not any("solution" in str(e.meta) for each in found.values() for e in each)


@pytest.mark.parametrize("name", NAMES)
def test_each_prepares_from_a_local_file_and_every_gold_can_be_scored(tmp_path: Path, name: str) -> None:
    said: list[str] = []
    result = prepare(of(tmp_path, name, "binning.n_bins=1", "binning.n_per_bin=4"), report=said.append)
    assert result is not None
    assert not [line for line in said if "can't" in line]


@pytest.mark.parametrize(
    ("template", "question", "sha256"),
    [  # of the prompt that the official code makes of this question
        (gsm8k.TEMPLATE, "QUESTION", "4932e177f5055ddabe33384adcf8369e58f0741eeb14b7b26d30f75a61cab365"),
        (math_problems.TEMPLATE, "QUESTION", "54e1580cd050b1ac50a1eac6dbdab8847b693a1b207158598637cfcd01976f14"),
        (
            gpqa.TEMPLATE,
            "QUESTION\n\nA) a\nB) b\nC) c\nD) d",
            "b8200613e0639decddabb454f8256e42ae65b990e9e96c9dd37a2abd54de23ef",
        ),
    ],
)
def test_the_prompt_is_the_published_one_to_the_letter(template: str, question: str, sha256: str) -> None:
    messages, context_chars = render(template, "", question)
    assert hashlib.sha256(messages[0]["content"].encode()).hexdigest() == sha256
    assert (len(messages), context_chars) == (1, 0)


def test_choices_stand_in_the_question_and_the_gold_is_the_right_one_s_letter(tmp_path: Path) -> None:
    for example in examples(tmp_path, "gpqa_diamond"):
        lines = re.findall(r"^([A-D])\) (.*)$", example.question, re.MULTILINE)
        assert [letter for letter, _ in lines] == list("ABCD")
        assert {text for _, text in lines} == {"the right one", "a", "b, c", '"d"'}
        assert dict(lines)[example.answers[0]] == "the right one"
        assert example.meta["all_classes"] == list("ABCD")


@given(st.integers(0, 1 << 60), st.text(min_size=1, max_size=20), st.permutations(range(4)))
def test_the_order_of_choices_depends_on_the_seed_and_the_id_alone(seed: int, name: str, places: list[int]) -> None:
    record: dict[str, Any] = {**GPQA[0], "Record ID": name}
    (example,) = gpqa.example(record, "", seed)
    others = [record[f"Incorrect Answer {n}"] for n in (1, 2, 3)]
    changed = {
        **record,
        "Question": "another",
        "Correct Answer": "new",
        **dict(zip(gpqa._CHOICES[1:], others, strict=True)),
    }
    assert next(gpqa.example(changed, "", seed)).answers == example.answers
    assert sorted(example.meta["order"]) == [0, 1, 2, 3]


def test_another_seed_is_another_data_set_and_gives_other_orders(tmp_path: Path) -> None:
    first, again = examples(tmp_path / "a", "gpqa_diamond"), examples(tmp_path / "b", "gpqa_diamond")
    other = examples(tmp_path / "c", "gpqa_diamond", "dataset.params={seed: 1}")
    assert first == again
    assert [e.question for e in other] != [e.question for e in first]
    assert {e.answers[0] for e in first} != {first[0].answers[0]}
    seeds = [of(tmp_path / str(n), "gpqa_diamond", f"dataset.params={{seed: {n}}}", "dataset.path=x") for n in (1, 2)]
    assert dataset_id(seeds[0]) != dataset_id(seeds[1])
    with pytest.raises(ConfigError, match="a whole number of 0 or more, not -1"):
        examples(tmp_path / "d", "gpqa_diamond", "dataset.params={seed: -1}")


def test_another_file_is_named_with_the_field_that_it_lacks(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "mine.jsonl", [{"problem": "?", "answer": "1"}])
    for name, field in (("gsm8k", "question"), ("math500", "id"), ("gpqa_diamond", "Correct Answer")):
        source = open_source(settings(tmp_path, f"dataset={{name: {name}, path: '{path}'}}"))
        with pytest.raises(ConfigError, match=f"the field '{field}' is missing") as caught:
            list(source.rows())
        assert caught.value.where == f"{path}:1"


@pytest.mark.parametrize(
    ("name", "row", "says"),
    [
        ("gsm8k", {**GSM8K[0], "question": None}, "'question' must be a string, not null"),
        ("gsm8k", {**GSM8K[0], "answer": ["72"]}, "'answer' must be a text, not a list"),
        ("math500", {**MATH500[0], "problem": 7}, "'problem' must be a string, not a number"),
        ("aime24", {**AIME24[0], "answer": None}, "'answer' must be a text, not null"),
        ("aime25", {**AIME25[0], "id": {}}, "'id' must be a text, not an object"),
        ("gpqa_diamond", {**GPQA[0], "Incorrect Answer 2": None}, "'Incorrect Answer 2' must be a text, not null"),
    ],
)
def test_what_is_no_text_is_refused_and_not_asked_as_such(tmp_path: Path, name: str, row: Any, says: str) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [row])
    with pytest.raises(ConfigError, match=says):
        list(open_source(settings(tmp_path, f"dataset={{name: {name}, path: '{path}'}}")).rows())


def test_files_are_pinned_by_the_hub_s_commit() -> None:
    for name in NAMES:
        task = SHELF[name].task(name, {})
        assert [len(file.revision) for file in task.files] == [40]
        assert all(re.fullmatch(r"[0-9a-f]{40}", file.revision) for file in task.files)


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_config_is_as_published_and_valid_without_a_hub(tmp_path: Path, name: str) -> None:
    path = folder(tmp_path)[name]
    config = load_settings(ROOT / f"configs/experiments/{name}.yaml", [f"dataset.path={path}"], environ={})
    tasks = tasks_of(config)
    (task,) = tasks.tasks
    check_source(task.settings)
    check_metric(task.settings)
    own = published(task.settings.dataset)
    assert own is not None
    assert tasks.notes == ()
    assert task.settings.decoding.max_tokens == own.max_new_tokens
    assert task.settings.decoding.temperature == own.temperature


def test_another_sampling_than_the_published_one_is_said(tmp_path: Path) -> None:
    def notes(name: str, *decoding: str) -> tuple[str, ...]:
        return tasks_of(settings(tmp_path, f"dataset={{name: {name}, path: x}}", *decoding)).notes

    assert notes("aime24") == ("aime24: decoding.temperature 0, the task is published with 0.6",)
    assert notes("aime24", "decoding.temperature=0.6") == (
        "aime24: decoding.extra_body.top_p not set, the task is published with 0.95",
    )
    assert notes("gsm8k") == ()
    assert notes("gsm8k", "decoding.temperature=null") == (
        "gsm8k: decoding.temperature the server's own, the task is published with 0",
    )
    assert notes("aime24", "decoding.temperature=0", "decoding.extra_body={temperature: 0.6, top_p: 0.5}") == (
        "aime24: decoding.extra_body.top_p 0.5, the task is published with 0.95",
    )


def test_no_record_needs_more_than_the_fields_that_are_read(tmp_path: Path) -> None:
    """GSM8K's authors publish JSON lines, others publish AIME as such: a file of either kind will do."""
    path = write_lines(tmp_path / "test.jsonl", [json.dumps(row) for row in GSM8K])
    assert len(list(open_source(settings(tmp_path, f"dataset={{name: gsm8k, path: '{path}'}}")).rows())) == 2
    path = write_lines(tmp_path / "aime24.jsonl", [{"id": "2024-I-1", "problem": "?", "answer": 7}])
    (row,) = open_source(settings(tmp_path, f"dataset={{name: aime24, path: '{path}'}}")).rows()
    assert (row.example.example_id, row.example.answers) == ("2024-I-1", ("7",))
