"""RULER: every item is checked by a solver that reads the rendered text alone."""

import json
import re
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest

from kvt_async.contract.errors import ConfigError
from kvt_async.data.prepare import check_data, prepare
from kvt_async.data.sources import list_tasks, open_source
from kvt_async.data.sources.ruler_niah import DEPTHS
from kvt_async.data.sources.ruler_tasks import TASKS
from kvt_async.data.tokens import load_tokenizer
from kvt_async.records import Example
from tests.data.helpers import settings

NIAH = [key for key in TASKS if key.startswith("niah")]
NEEDLE = re.compile(r"One of the special magic \w+ for (\S+) is: (\S+)\.")
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."


def items(tmp_path: Path, task: str, *overrides: str, lengths: str = "[700, 1400]", n: int = 6) -> list[Example]:
    params = f"dataset.params={{lengths: {lengths}, per_length: {n}}}"
    config = settings(tmp_path, "dataset.name=ruler", f"dataset.task={task}", params, *overrides)
    return [row.example for row in open_source(config).rows()]


@pytest.mark.parametrize("task", NIAH)
def test_a_needle_is_in_the_text_under_its_key_and_nowhere_else(tmp_path: Path, task: str) -> None:
    for example in items(tmp_path, task):
        found = NEEDLE.findall(example.context)
        asked = re.findall(r"for (.+) mentioned", example.question)[0]
        keys = re.split(r", and |, ", asked)
        assert Counter(value for key, value in found if key in keys) == Counter(example.answers)
        assert all(example.context.count(value) == 1 for value in example.answers)


@pytest.mark.parametrize(
    ("task", "keys", "values"),
    [("niah_single_1", 1, 1), ("niah_multikey_1", 4, 1), ("niah_multivalue", 1, 4), ("niah_multiquery", 4, 4)],
)
def test_the_published_numbers_of_keys_and_values_are_there(tmp_path: Path, task: str, keys: int, values: int) -> None:
    for example in items(tmp_path, task, n=2):
        found = NEEDLE.findall(example.context)
        assert (len({key for key, _ in found}), len(example.answers)) == (keys, values)


@pytest.mark.parametrize("task", ["niah_single_1", "niah_multikey_2"])
def test_the_asked_needle_stands_at_the_stated_depth(tmp_path: Path, task: str) -> None:
    for example in items(tmp_path, task):
        lines = example.context.split("\n")
        at = next(i for i, line in enumerate(lines) if example.answers[0] in line)
        assert at == int((len(lines) - 1) * example.meta["depth"])


def test_forty_items_see_every_depth_of_the_published_grid_once(tmp_path: Path) -> None:
    depths = [example.meta["depth"] for example in items(tmp_path, "niah_single_1", lengths="[300]", n=40)]
    assert sorted(depths) == [d / 100 for d in DEPTHS]
    assert (DEPTHS[0], DEPTHS[1], DEPTHS[20], DEPTHS[-1]) == (0, 3, 51, 100)


def test_a_chain_of_variables_can_be_followed_to_its_value(tmp_path: Path) -> None:
    for example in items(tmp_path, "vt"):
        text = example.context[example.context.rindex("Memorize and track") :]
        value, known = example.meta["value"], dict[str, str]()
        for name, source in re.findall(r"VAR (\w+) = (?:VAR )?(\w+)", text):
            known[name] = known.get(source, source)
        assert [name for name, end in known.items() if end == value] == list(example.answers)
        assert f"the value {value} in" in example.question


def numbered_words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\d+\. (\S+)", text[text.rindex("Below is a numbered") :]))


@pytest.mark.parametrize(("lengths", "often", "seldom"), [("[1400]", 6, 1), ("[4200]", 30, 3)])
def test_common_words_are_the_ten_that_come_most_often(tmp_path: Path, lengths: str, often: int, seldom: int) -> None:
    for example in items(tmp_path, "cwe", lengths=lengths, n=2):
        counted = numbered_words(example.context)
        assert {word for word, n in counted.items() if n == often} == set(example.answers)
        assert {n for word, n in counted.items() if word not in example.answers} == {seldom}
        others = " ".join(word for word in counted if word not in example.answers)
        assert not any(answer in others for answer in example.answers)


def test_frequent_words_are_ranks_two_to_four_after_the_dots(tmp_path: Path) -> None:
    for example in items(tmp_path, "fwe"):
        ranked = Counter(re.findall(r"\.\.\.|\b[a-z]{6}\b", example.context.partition("coded words. ")[2])).most_common(
            5
        )
        assert tuple(word for word, _ in ranked[:4]) == ("...", *example.answers)
        assert ranked[3][1] > ranked[4][1], "the third answer is not tied"


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

    def paragraph(a: int, p: int) -> dict:
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
def test_a_question_is_answered_by_one_passage_among_distractors(tmp_path: Path, task: str, write, lengths) -> None:
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
