"""RULER solved without its generator: a reader of the rendered prompt alone finds every answer, at the stated depth,
and nowhere else. One solver a kind of task, each by the task's published definition.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from math import pi
from pathlib import Path
from typing import Any

import pytest

from kvt_async.contract.settings import Settings
from kvt_async.data.sources import open_source
from kvt_async.records import Example
from tests.data.helpers import settings

NEEDLE = re.compile(r"One of the special magic (\w+) for (\S+) is: (\S+)\.")
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
WORDS, NUMBER = r"[a-z]+-[a-z]+", r"[1-9]\d{6}"
NIAH = {  # published configuration: haystack, form of keys and of values, keys in the text, values a key, keys asked
    "niah_single_1": ("noise", WORDS, NUMBER, 1, 1, 1),
    "niah_single_2": ("essay", WORDS, NUMBER, 1, 1, 1),
    "niah_single_3": ("essay", WORDS, UUID, 1, 1, 1),
    "niah_multikey_1": ("essay", WORDS, NUMBER, 4, 1, 1),
    "niah_multikey_2": ("needles", WORDS, NUMBER, None, 1, 1),
    "niah_multikey_3": ("needles", UUID, UUID, None, 1, 1),
    "niah_multivalue": ("essay", WORDS, NUMBER, 1, 4, 1),
    "niah_multiquery": ("essay", WORDS, NUMBER, 4, 1, 4),
}


def prompts(
    tmp_path: Path, task: str, *, lengths: Sequence[int], n: int, path: Path | None = None
) -> Iterator[tuple[Any, ...]]:
    """Rendered prompts as they are sent, each with its example."""
    params = f"dataset.params={{lengths: {list(lengths)}, per_length: {n}}}"
    file = [f"dataset.path={path}"] if path else []
    config: Settings = settings(tmp_path, "dataset.name=ruler", f"dataset.task={task}", params, *file)
    source = open_source(config)
    for row in source.rows():
        example: Example = row.example
        text = (source.template or "{context}\n{question}").replace("{question}", example.question)
        yield text.replace("{context}", example.context), example


def units(text: str, haystack: str) -> list[str]:
    """What a depth is counted in: lines, or the sentences of an essay."""
    return re.split(r"(?<=[.!?])\s+", text) if haystack == "essay" else text.split("\n")


@pytest.mark.parametrize("task", NIAH)
def test_needles_are_found_by_their_keys_at_the_stated_depths_and_nowhere_else(tmp_path: Path, task: str) -> None:
    haystack, key_form, value_form, n_keys, n_values, n_asked = NIAH[task]
    seen = set()
    for prompt, example in prompts(tmp_path, task, lengths=[512, 1024], n=20):
        _, *body, question = prompt.split("\n")
        text = "\n".join(body)
        (named,) = re.findall(r"\AWhat .* for (.+) mentioned in the provided text\?\Z", question)
        asked = re.split(r", and |, ", named)
        values = {key: [v for _, k, v in NEEDLE.findall(text) if k == key] for key in asked}
        assert len(asked) == n_asked
        assert sorted(value for key in asked for value in values[key]) == sorted(example.answers)
        assert all(len(found) == n_values for found in values.values())
        assert len({key for _, key, _ in NEEDLE.findall(text)}) == n_keys or n_keys is None
        assert all(re.fullmatch(key_form, key) for _, key, _ in NEEDLE.findall(text))
        assert all(re.fullmatch(value_form, value) for _, _, value in NEEDLE.findall(text))
        for answer in example.answers:
            assert prompt.count(answer) == 1
        for key in asked:
            assert text.count(key) == n_values

        parts, depths = units(text, haystack), [round(100 * depth) for depth in example.meta["depths"]]
        hidden = NEEDLE if n_keys else re.compile(example.answers[0])  # in a haystack of needles, the asked one alone
        needles = [i for i, part in enumerate(parts) if hidden.search(part)]
        before = {i: i - place for place, i in enumerate(needles)}  # units of haystack before each needle
        straws = len(parts) - len(needles)
        assert sorted(before.values()) == sorted(straws * depth // 100 for depth in depths)
        if n_asked == 1:  # the stated depth is the asked needle's, or that of the first of its values
            at = next(i for i, part in enumerate(parts) if example.answers[0] in part)
            assert before[at] == straws * depths[0] // 100
        assert example.meta["depth"] * 100 == pytest.approx(depths[0])
        seen.add(depths[0])
    assert (len(seen), min(seen) < 10, max(seen) > 90) == (20, True, True)


def test_a_chain_is_followed_line_by_line(tmp_path: Path) -> None:
    statement = re.compile(r"VAR ([A-Z]+) = (?:VAR ([A-Z]+)|(\d{5}))")
    for prompt, example in prompts(tmp_path, "vt", lengths=[512, 2048], n=6):
        shown, _, text = prompt.rpartition("Memorize and track the chain(s)")
        (value,) = re.findall(r"assigned the value (\d+) in the text above\.", text)
        holds: dict[str, str] = {}
        for name, source, number in statement.findall(text):
            assert name not in holds, "a variable is assigned once"
            holds[name] = number or holds[source]  # KeyError: a source that comes later could not be followed
        assert [name for name, end in holds.items() if end == value] == list(example.answers)
        assert len(holds) == 5
        assert text.partition("\nQuestion:")[0].count(value) == 1
        assert not any(name in shown for name in example.answers)

        (shown_value,) = set(re.findall(r"assigned the value (\d+)", shown))
        told = shown.rpartition("they are: ")[2].split()
        lines = {name: (source, number) for name, source, number in statement.findall(shown)}
        assert lines[told[0]] == ("", shown_value)
        assert [lines[name][0] for name in told[1:]] == told[:-1]


@pytest.mark.parametrize(("length", "often", "seldom"), [(1024, 6, 1), (2048, 6, 1), (4096, 30, 3)])
def test_common_words_are_counted(tmp_path: Path, length: int, often: int, seldom: int) -> None:
    numbered = re.compile(r"(\d+)\. (\S+)")
    for prompt, example in prompts(tmp_path, "cwe", lengths=[length], n=2):
        shown, _, asked = prompt.rpartition("Below is a numbered list of words.")
        for text, told in ((asked, example.answers), (shown, re.findall(r"\d+\. (\S+)", shown.rpartition("are:")[2]))):
            listed = numbered.findall(text.partition("\nQuestion:")[0])
            assert [int(at) for at, _ in listed] == list(range(1, len(listed) + 1))
            ranked = Counter(word for _, word in listed).most_common()
            assert {word for word, _ in ranked[:10]} == set(told)
            assert ranked[9][1] > ranked[10][1], "the tenth is not tied"
        counts = Counter(word for _, word in numbered.findall(asked.partition("\nQuestion:")[0]))
        assert {counts[word] for word in example.answers} == {often}
        assert {n for word, n in counts.items() if word not in example.answers} == {seldom}
        others = [word for word in counts if word not in example.answers]
        assert not any(answer in word for answer in example.answers for word in others)


def test_coded_words_follow_zipfs_law_and_the_three_after_the_dots_are_asked(tmp_path: Path) -> None:
    for prompt, example in prompts(tmp_path, "fwe", lengths=[512, 2048], n=4):
        text = prompt.partition("frequently appeared coded words. ")[2].partition("\nQuestion:")[0]
        ranked = Counter(text.split(" ")).most_common()
        assert ranked[0][0] == "..."
        assert tuple(word for word, _ in ranked[1:4]) == example.answers
        assert all(re.fullmatch("[a-z]{6}", word) for word, _ in ranked[1:])
        zeta = pi**2 / 6  # alpha = 2
        fitting = [n for n in range(60, 20_000) if all(int(n / k**2 / zeta) == c for k, (_, c) in enumerate(ranked, 1))]
        assert fitting, [c for _, c in ranked]
        assert [c for _, c in ranked[1:4]] == sorted({c for _, c in ranked[1:4]}, reverse=True), "no ties among them"
        assert ranked[3][1] > ranked[4][1]


def documents(prompt: str) -> list[str]:
    numbers = [int(n) for n in re.findall(r"(?:^|\n\n)Document (\d+):\n", prompt)]
    assert numbers == list(range(1, len(numbers) + 1))
    text = prompt.partition("The following are given documents.\n\n")[2].rpartition("\n\nAnswer the question")[0]
    return re.split(r"(?:^|\n\n)Document \d+:\n", text)[1:]


def test_a_squad_question_is_answered_by_its_own_passage_alone(tmp_path: Path) -> None:
    box = "In article {0}, box {0}-{1} holds the {2}. It rained."
    asked = {(a, p): f"thing{a}x{p}" for a in range(3) for p in range(6)}
    data = [
        {"paragraphs": [{"context": box.format(a, p, thing), "qas": [{"question": f"What is in box {a}-{p}?",
         "answers": [{"text": thing}], "is_impossible": False}]} for (b, p), thing in asked.items() if b == a]}
        for a in range(3)
    ]  # fmt: skip
    path = tmp_path / "dev.json"
    path.write_text(json.dumps({"data": data}), encoding="utf-8")
    for prompt, example in prompts(tmp_path, "qa_1", lengths=[320], n=6, path=path):
        ((a, p),) = (
            (int(box), int(place)) for box, place in re.findall(r"Question: What is in box (\d)-(\d)\?", prompt)
        )
        passages = documents(prompt)
        assert example.answers == (asked[a, p],)
        assert [passage for passage in passages if asked[a, p] in passage] == [box.format(a, p, asked[a, p])]
        assert len(set(passages)) == len(passages) > 2


def test_a_hotpot_question_has_all_its_passages_among_others(tmp_path: Path) -> None:
    def passage(i: int, kind: str) -> list[Any]:
        said = f"{kind}{i} lies by river{i}. " if kind == "town" else f"{kind}{i} flows to sea{i}. "
        return [f"{kind}{i}", [said]]

    records = [
        {"question": f"To which sea flows the river of town{i}?", "answer": f"sea{i}",
         "context": [passage(i, "town"), passage(i, "river")]}
        for i in range(12)
    ]  # fmt: skip
    path = tmp_path / "hotpot.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    for prompt, example in prompts(tmp_path, "qa_2", lengths=[300], n=6, path=path):
        (i,) = re.findall(r"river of town(\d+)\?", prompt)
        passages = documents(prompt)
        assert example.answers == (f"sea{i}",)
        assert [p for p in passages if re.search(rf"\bsea{i}\b", p)] == [f"river{i}\nriver{i} flows to sea{i}. "]
        assert f"town{i}\ntown{i} lies by river{i}. " in passages
        assert len(passages) > 4
