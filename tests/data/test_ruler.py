"""RULER: lengths, the depth grid, determinism, the answer prefix, refusals. test_ruler_solver.py reads the items."""

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from kvt_async.contract.errors import ConfigError
from kvt_async.data.prepare import check_data, prepare
from kvt_async.data.sources import list_tasks, open_source
from kvt_async.data.sources.ruler_niah import DEPTHS
from kvt_async.data.sources.ruler_tasks import TASKS
from kvt_async.data.tokens import load_tokenizer
from kvt_async.records import Example
from tests.data.helpers import settings

NEEDLE = re.compile(r"One of the special magic \w+ for (\S+) is: (\S+)\.")
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."


def items(tmp_path: Path, task: str, *overrides: str, lengths: str = "[700, 1400]", n: int = 6) -> list[Example]:
    params = f"dataset.params={{lengths: {lengths}, per_length: {n}}}"
    config = settings(tmp_path, "dataset.name=ruler", f"dataset.task={task}", params, *overrides)
    return [row.example for row in open_source(config).rows()]


def test_forty_items_see_every_depth_of_the_published_grid_once(tmp_path: Path) -> None:
    depths = [example.meta["depth"] for example in items(tmp_path, "niah_single_1", lengths="[300]", n=40)]
    assert sorted(depths) == [d / 100 for d in DEPTHS]
    assert (DEPTHS[0], DEPTHS[1], DEPTHS[20], DEPTHS[-1]) == (0, 3, 51, 100)


@pytest.mark.parametrize("task", list(TASKS))
@pytest.mark.parametrize("tokenizer", ["reference", "approx:chars/4"])
def test_a_prompt_and_its_answer_fill_the_asked_length_and_no_more(tmp_path: Path, task: str, tokenizer: str) -> None:
    reserve = TASKS[task].max_new_tokens
    params = "dataset.params={lengths: [900], per_length: 2}"
    config = settings(tmp_path, "dataset.name=ruler", f"dataset.task={task}", params, f"tokenizer.name={tokenizer}")
    prepared = prepare(config, report=lambda _: None)
    longest = prepared.head.bin_edges[-1]
    unit = load_tokenizer(config).count([NOISE, "9 " * 40], special=False)
    assert 900 - max(unit) - 8 < longest + reserve <= 900


def test_items_are_the_same_on_every_machine(tmp_path: Path) -> None:
    texts = [f"{e.example_id} {e.context} {e.question} {e.answers}" for key in TASKS for e in items(tmp_path, key, n=1)]
    assert sha256("\n".join(texts).encode()).hexdigest()[:16] == "f3068d0fe9732587"


def test_the_answer_prefix_is_sent_where_it_can_be(tmp_path: Path) -> None:
    (chat,) = items(tmp_path, "niah_single_1", lengths="[700]", n=1)
    (plain,) = items(tmp_path, "niah_single_1", "prompt.endpoint=completions", lengths="[700]", n=1)
    prefix = " mentioned in the provided text is"
    assert chat.meta["answer_prefix"].endswith(prefix)
    assert (chat.question.endswith(prefix), plain.question.endswith(prefix)) == (False, True)
    said: list[str] = []
    params = "dataset.params={lengths: [700], per_length: 1}"
    prepare(settings(tmp_path, "dataset.name=ruler", "dataset.task=vt", params), report=said.append)
    assert "answer prefix is not sent" in said[0]
    for endpoint in ("chat", "completions"):
        turn = ("prompt.answer_prefix=turn", f"prompt.endpoint={endpoint}")
        (begun,) = items(tmp_path, "niah_single_1", *turn, lengths="[700]", n=1)
        assert not begun.question.endswith(prefix)  # it is a message of its own
        config = settings(tmp_path, "dataset.name=ruler", "dataset.task=vt", params, *turn)
        said.clear()
        prepared = prepare(config, report=said.append)
        assert not any("not sent" in line for line in said)
        assert 700 - 40 < prepared.head.bin_edges[-1] + TASKS["vt"].max_new_tokens <= 700  # the prefix is counted in


def test_essays_can_be_the_users(tmp_path: Path) -> None:
    path = tmp_path / "essay.txt"
    path.write_text("Alpha comes first.  Beta\nfollows! Gamma ends?")
    params = f"dataset.params={{lengths: [400], per_length: 1, essay: {path}}}"
    config = settings(tmp_path, "dataset.name=ruler", "dataset.task=niah_single_2", params)
    source = open_source(config)
    (row,) = source.rows()
    words = NEEDLE.sub("", row.example.context)
    assert set(re.findall(r"\S[^.!?]*[.!?]", words)) == {"Alpha comes first.", "Beta follows!", "Gamma ends?"}
    assert sha256(path.read_bytes()).hexdigest() in source.revision


@pytest.mark.parametrize(
    ("task", "params", "says", "where"),
    [
        ("niah_single_4", "{}", "ruler has no task", "dataset.task"),
        ("vt", "{length: 5}", "no parameter 'length'", "dataset.params.length"),
        ("vt", "{lengths: 4096}", "lengths must be a list", "dataset.params.lengths"),
        ("vt", "{lengths: [0]}", "lengths must be a list", "dataset.params.lengths"),
        ("vt", "{per_length: many}", "per_length must be a whole number", "dataset.params.per_length"),
    ],
)
def test_a_wrong_config_is_refused_by_validate(tmp_path: Path, task: str, params: str, says: str, where: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        check_data(settings(tmp_path, "dataset.name=ruler", f"dataset.task={task}", f"dataset.params={params}"))
    assert caught.value.where == where


def refused(tmp_path: Path, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        prepare(settings(tmp_path, "dataset.name=ruler", *overrides), report=lambda _: None)
    return caught.value


def test_a_length_too_short_for_the_task_says_what_it_takes(tmp_path: Path) -> None:
    error = refused(tmp_path, "dataset.task=niah_single_1", "dataset.params={lengths: [150], per_length: 1}")
    assert "150 tokens are too few" in error.what
    assert re.search(r"Ask for \d+ or more", error.do)


def squad(path: Path, articles: int = 3, paragraphs: int = 6) -> Path:
    """A file in SQuAD 2.0's form: paragraph (a, p) alone says what the colour of box a-p is."""

    def paragraph(a: int, p: int) -> dict[str, Any]:
        asked = {"question": f"What colour has box {a}-{p}?", "answers": [{"text": f"colour{a}x{p}"}] * 2}
        odd = {"question": "Who?", "answers": [], "is_impossible": True}
        return {"context": f"In article {a}, box {a}-{p} has colour{a}x{p}. It rained. ", "qas": [asked, odd]}

    data = [{"paragraphs": [paragraph(a, p) for p in range(paragraphs)]} for a in range(articles)]
    path.write_text(json.dumps({"data": data}), encoding="utf-8")
    return path


def hotpot(path: Path, n: int = 8) -> Path:
    records = [
        {
            "question": f"Which river flows by town{i}?",
            "answer": f"river{i}",
            "context": [[f"town{i}", [f"town{i} lies by river{i}. "]], [f"other{i}", ["It rained.", " Much."]]],
        }
        for i in range(n)
    ]
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


@pytest.mark.parametrize(("task", "write"), [("qa_1", squad), ("qa_2", hotpot)])
@pytest.mark.parametrize("lengths", ["[300]", "[400, 1200]"])
def test_a_question_is_answered_by_one_passage_among_distractors(
    tmp_path: Path, task: str, write: Any, lengths: str
) -> None:
    path = write(tmp_path / "questions.json")
    for example in items(tmp_path, task, f"dataset.path={path}", lengths=lengths, n=5):
        documents = re.split(r"(?:^|\n\n)Document \d+:\n", example.context)[1:]
        assert len(documents) > 1
        assert len([d for d in set(documents) if example.answers[0] in d]) == 1
        assert len(example.answers) == 1  # annotators who agree count once


def test_passages_of_the_same_article_come_before_others(tmp_path: Path) -> None:
    path = squad(tmp_path / "questions.json", articles=4, paragraphs=12)
    for example in items(tmp_path, "qa_1", f"dataset.path={path}", lengths="[230]", n=4):
        articles = set(re.findall(r"In article (\d)", example.context))
        assert articles == {example.answers[0].removeprefix("colour").partition("x")[0]}


def test_question_answering_is_scored_by_any_answer_and_pins_its_file(tmp_path: Path) -> None:
    path = squad(tmp_path / "questions.json")
    source = open_source(settings(tmp_path, "dataset.name=ruler", "dataset.task=qa_1", f"dataset.path={path}"))
    assert (source.metric, source.max_new_tokens) == ("string_match_part", 32)
    assert sha256(path.read_bytes()).hexdigest() in source.revision


def test_question_answering_names_the_file_that_it_needs(tmp_path: Path) -> None:
    assert "dev-v2.0.json" in refused(tmp_path, "dataset.task=qa_1").do
    other = hotpot(tmp_path / "hotpot.json")
    assert "not the file that qa_1" in refused(tmp_path, "dataset.task=qa_1", f"dataset.path={other}").what
    few = refused(
        tmp_path, "dataset.task=qa_2", f"dataset.path={other}", "dataset.params={lengths: [400], per_length: 9}"
    )
    assert "8 questions are too few" in few.what
    error = refused(tmp_path, "dataset.task=vt", f"dataset.path={other}")
    assert "reads no file" in error.what


def test_all_13_tasks_are_listed(tmp_path: Path) -> None:
    assert len(list_tasks("ruler", settings(tmp_path))) == 13


@pytest.mark.parametrize(
    ("dataset", "key"),
    [
        ("{name: kvtext, task: single, params: {contexts: 1000000000000}}", "contexts"),
        ("{name: kvtext, task: single, params: {max_tokens: 1000000000000}}", "max_tokens"),
        ("{name: ruler, task: niah_single_1, params: {lengths: [4096, 1000000000000]}}", "lengths"),
        ("{name: ruler, task: niah_single_1, params: {per_length: 1000000000000}}", "per_length"),
    ],
)
def test_more_than_any_data_set_has_is_refused_before_it_is_made(tmp_path: Path, dataset: str, key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} must be at most 10,000,000"):
        check_data(settings(tmp_path, f"dataset={dataset}"))
