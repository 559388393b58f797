"""The jsonl source: its schema, and what it says when a line does not follow it."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvt_async.contract.errors import ConfigError
from kvt_async.data.sources import open_source
from kvt_async.data.sources.jsonl import read, rows_of
from kvt_async.records import Example
from tests.data.helpers import jsonl_settings, settings, write_lines

GOOD: dict[str, Any] = {"question": "q", "context": "c", "answers": ["a"]}


def rows(tmp_path: Path, *lines: dict[str, Any] | str) -> list[Example]:
    return [row.example for row in read(write_lines(tmp_path / "x.jsonl", lines))]


def test_every_field_arrives_and_unknown_ones_are_kept_in_meta(tmp_path: Path) -> None:
    line = {**GOOD, "example_id": "one", "answers": "a", "meta": {"k": [1]}, "extra": "kept"}
    assert rows(tmp_path, line) == [Example("one", "q", "c", ("a",), {"k": [1], "extra": "kept"})]


def test_without_an_id_the_content_gives_it_the_same_everywhere(tmp_path: Path) -> None:
    first, second, third = rows(tmp_path, GOOD, {**GOOD, "meta": {"other": 1}}, {**GOOD, "context": "d"})
    assert first.example_id == second.example_id == sha256(b'["q","c",["a"]]').hexdigest()[:16]
    assert third.example_id != first.example_id


def test_blank_lines_and_a_byte_order_mark_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "bom.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"question":"q","context":"","answers":[]}\n\n  \r\n')
    assert [(row.example.context, row.where) for row in read(path)] == [("", f"{path}:1")]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"question": "q", "context": "c", "answers": ["a"], "question": "r"}', "the key 'question' comes twice"),
        ('{"question": "q", "context": "c", "answers": ["a"], "meta": {"k": 1, "k": 2}}', "the key 'k' comes twice"),
        ('{"question": "q\\"", "context": "c", "answers": [], "x": 1, "x": "\\u0022"}', "the key 'x' comes twice"),
        ('{"question": "q", "context": "c", "answers": [], "n": 123456789012345678901234567890}', "beyond 64 bits"),
        ('{"question": "q", "context": "c", "answers": [], "n": [-9223372036854775809]}', "beyond 64 bits"),
        ('{"question": "q", "context": "c", "answers": [], "n": ' + "9" * 6000 + "}", "infinity"),
        ('{"question": "q", "context": "c", "answers": [], "meta": ' + '{"a":' * 250 + "1" + "}" * 251, "levels deep"),
        ('{"question": "q", "context": "c", "answers": [], "x": ' + "[" * 3000 + "]" * 3000 + "}", "levels deep"),
    ],
)  # fmt: skip
def test_what_could_not_be_kept_as_it_is_written_is_refused_by_its_line(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        rows(tmp_path, GOOD, line)
    assert "x.jsonl:2" in str(caught.value)


def test_numbers_and_nesting_that_can_be_kept_are_kept(tmp_path: Path) -> None:
    deep: dict[str, Any] = {"n": [18446744073709551615, -9223372036854775808, 0.1234567890123456789]}
    for _ in range(150):
        deep = {"in": deep}
    line = {**GOOD, "question": 'a "quoted" \\ word', "meta": deep}
    (example,) = rows(tmp_path, line)
    assert (example.question, example.meta) == (line["question"], deep)


@given(
    st.recursive(
        st.none() | st.integers(-9, 9) | st.text(max_size=5),
        lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x, max_size=3),
        max_leaves=12,
    ),
    st.booleans(),
)
def test_any_object_without_a_repeated_key_is_read_however_it_is_escaped(meta: Any, escaped: bool) -> None:
    line = json.dumps({**GOOD, "meta": {"any": meta}}, ensure_ascii=escaped).encode()
    (row,) = rows_of(line, "here")
    assert row.example.meta == {"any": meta}


def test_separators_inside_text_do_not_end_a_line(tmp_path: Path) -> None:
    context = "a\u2028b\x0bc\x85d" + "long " * 100_000 + "汉字"
    assert rows(tmp_path, {**GOOD, "context": context})[0].context == context


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"question": "q",', "not valid JSON"),
        ('["q"]', "a line is a JSON object, not a list"),
        ({"context": "c", "answers": ["a"]}, "the field 'question' is missing"),
        ({"question": "q", "answers": ["a"]}, "the field 'context' is missing"),
        ({"question": "q", "context": "c"}, "the field 'answers' is missing"),
        ({**GOOD, "question": 3}, "the field 'question' must be a string, not a number"),
        ({**GOOD, "context": None}, "the field 'context' must be a string, not null"),
        ({**GOOD, "answers": {"a": 1}}, "the field 'answers' must be a string or a list of strings, not an object"),
        ({**GOOD, "answers": ["a", 2]}, r"the field 'answers\[1\]' must be a string, not a number"),
        ({**GOOD, "example_id": ["x"]}, "the field 'example_id' must be a non-empty string, not a list"),
        ({**GOOD, "example_id": ""}, "the field 'example_id' must be a non-empty string, not a string"),
        ({**GOOD, "meta": "m"}, "the field 'meta' must be an object, not a string"),
        ({**GOOD, "meta": {"turns": ["x"]}}, r"the field 'meta.turns' must be a list of \[question, answer\] pairs"),
    ],
)
def test_a_bad_line_is_named_with_file_line_and_field(tmp_path: Path, line: dict[str, Any] | str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        rows(tmp_path, GOOD, line)
    assert caught.value.where == f"{tmp_path}/x.jsonl:2"
    assert caught.value.do


def test_a_line_beyond_the_longest_allowed_is_named_before_it_is_held(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", [GOOD, {**GOOD, "context": "long " * 400}])
    with pytest.raises(ConfigError, match=r"longer than 0\.002 MB") as caught:
        list(read(path, max_line_mb=0.002))
    assert caught.value.where == f"{path}:2"
    assert "dataset.params.max_line_mb" in caught.value.do
    assert [len(row.example.context) for row in read(path, max_line_mb=0.003)] == [1, 2000]


def test_a_longbench_row_is_recognised(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing") as caught:
        rows(tmp_path, {"input": "q", "context": "c", "answers": ["a"]})
    assert "dataset.name: longbench" in caught.value.do


def test_the_metric_comes_from_the_config(tmp_path: Path) -> None:
    assert open_source(jsonl_settings(tmp_path, [GOOD])).metric == "f1"
    assert open_source(jsonl_settings(tmp_path, [GOOD], "dataset.params={metric: em}")).metric == "em"


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ((), "jsonl needs a file"),
        (("dataset.path=/nowhere/x.jsonl",), "there is no such file"),
        (("dataset.path=/",), "this is a folder"),
        (("dataset.path=x", "dataset.params={metrik: em}"), "no parameter 'metrik'"),
        (("dataset.path=x", "dataset.params={max_line_mb: 0}"), "max_line_mb must be a number above 0, not 0"),
    ],
)
def test_a_source_that_cannot_be_opened_says_why(tmp_path: Path, overrides: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        open_source(settings(tmp_path, "dataset.name=jsonl", "dataset.task=mine", *overrides))
