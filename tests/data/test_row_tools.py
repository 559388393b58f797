"""Rows that offer tools: what is taken, what is refused by its line, what is counted and hashed."""

import json
from pathlib import Path
from typing import Any

import pytest

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.prompt_text import messages_sha256
from kvt_async.data.chat_template import ChatTemplate
from kvt_async.data.manifest import read_items
from kvt_async.data.prepare import prepare
from kvt_async.data.sources.jsonl import rows_of
from tests.data.helpers import jsonl_settings

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = {"name": "weather", "arguments": {"city": "Paris"}}
ROW: dict[str, Any] = {"question": "q", "context": "c", "answers": ["a"]}


def parsed(**fields: Any) -> Any:
    line = {key: value for key, value in {**ROW, **fields}.items() if value is not ...}
    (row,) = rows_of(json.dumps(line).encode(), "x.jsonl:7")
    return row.example


def test_tools_are_kept_in_meta_and_expected_calls_are_the_answers() -> None:
    example = parsed(tools=[TOOL], tool_choice="auto", expected_calls=[CALL, [CALL, CALL], []], answers=...)
    assert (example.meta["tools"], example.meta["tool_choice"]) == ([TOOL], "auto")
    assert [json.loads(answer) for answer in example.answers] == [CALL, [CALL, CALL], []]
    assert parsed(tools=[TOOL], expected_calls=[], answers=[]).answers == ()


def test_a_row_without_an_id_is_another_one_with_other_tools() -> None:
    other = {"type": "function", "function": {"name": "clock"}}
    ids = {parsed(tools=tools).example_id for tools in (None, [], [TOOL], [other])}
    assert len(ids) == 3
    assert parsed().example_id == parsed(tools=None).example_id


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"tools": TOOL}, "'tools' must be a list of function definitions, not an object"),
        ({"tools": ["weather"]}, r"tools\[0\] is no function definition"),
        ({"tools": [TOOL["function"]]}, r"tools\[0\] is no function definition"),
        ({"tools": [TOOL, {"type": "web_search"}]}, r"tools\[1\] is no function definition"),
        ({"tools": [{"type": "function", "function": {"name": " "}}]}, r"tools\[0\].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]}, "a JSON Schema"),
        ({"tools": [TOOL, TOOL]}, "two tools are called 'weather'"),
        ({"tool_choice": "auto"}, "tool_choice without tools"),
        ({"tools": [TOOL], "tool_choice": "always"}, "names none of this row's tools"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "names none"),
        ({"expected_calls": [CALL]}, "the row has answers and expected_calls"),
        ({"expected_calls": CALL, "answers": ...}, "'expected_calls' must be a list, not an object"),
        ({"expected_calls": ["weather"], "answers": ...}, r"'expected_calls\[0\]' must be a call or a list of calls"),
        ({"expected_calls": [[CALL], [3]], "answers": []}, r"'expected_calls\[1\]'"),
        ({"expected_calls": [{"arguments": {}}], "answers": ...}, r"expected_calls\[0\].name"),
        ({"expected_calls": [{"name": "f"}], "answers": ...}, r"expected_calls\[0\].arguments' must be an object"),
        ({"expected_calls": [{"name": "f", "arguments": "{}"}], "answers": ...}, "must be an object, not a string"),
        ({"expected_calls": [{**CALL, "id": "1"}], "answers": ...}, "unknown key 'id'"),
    ],
)
def test_what_no_request_could_carry_is_refused_by_its_line(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        parsed(**fields)
    assert "x.jsonl:7" in str(caught.value)
    assert caught.value.do


def prepared(tmp_path: Path, tokenizer: str, *overrides: str) -> tuple[int, int, list[str], str]:
    """Lengths of a prompt with and without tools, what was said, and the hash of the first."""
    rows = [{**ROW, "example_id": "with", "tools": [TOOL]}, {**ROW, "example_id": "without"}]
    said: list[str] = []
    made = prepare(
        jsonl_settings(tmp_path, rows, f"tokenizer.name={tokenizer}", "binning.n_bins=1", *overrides),
        report=said.append,
    )
    entries = {entry.example_id: entry for entry, _ in read_items(made.path)}
    return entries["with"].token_len, entries["without"].token_len, said, entries["with"].prompt_sha256


def with_template(folder: Path, byte_level: Path, template: str | None) -> str:
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes((byte_level / "tokenizer.json").read_bytes())
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return str(folder)


def test_tools_are_counted_as_the_template_writes_them(tmp_path: Path, byte_level: Path) -> None:
    template = "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}"
    long, short, said, _ = prepared(tmp_path, with_template(tmp_path / "t", byte_level, template))
    assert long > short + 30
    assert "1 of 2 rows offer tools: counted as the chat template writes them" in said


def test_what_no_template_writes_is_not_counted_and_said(tmp_path: Path, byte_level: Path) -> None:
    plain = with_template(tmp_path / "t", byte_level, "{% for m in messages %}{{ m.content }}{% endfor %}")
    long, short, said, _ = prepared(tmp_path, plain)
    assert long == short
    assert any("1 of 2 rows offer tools: the chat template leaves them out" in line for line in said)
    long, short, said, _ = prepared(tmp_path, with_template(tmp_path / "n", byte_level, None))
    assert long == short
    assert any("no chat template that writes them" in line for line in said)


def test_an_estimate_takes_tools_as_json(tmp_path: Path) -> None:
    long, short, said, sha256 = prepared(tmp_path, "approx:chars/4")
    assert long - short == pytest.approx(len(json.dumps([TOOL], separators=(",", ":"))) / 4, abs=2)
    assert any("estimated as JSON text" in line for line in said)
    messages = [{"role": "user", "content": "c q"}]
    assert sha256 == messages_sha256(messages, {"tools": [TOOL]}) != messages_sha256(messages)


def test_tools_without_a_chat_request_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this row offers tools, which only chat requests can") as caught:
        prepared(tmp_path, "approx:chars/4", "prompt.endpoint=completions")
    assert "in.jsonl:1" in str(caught.value)


def test_a_template_that_refuses_the_probe_is_taken_to_write_tools() -> None:
    strict = "{% if tools and messages[0].content == 'x' %}{{ raise_exception('no') }}{% endif %}{{ messages }}"
    assert ChatTemplate(strict, {}, "here").shows_tools()
    assert not ChatTemplate("{{ messages }}", {}, "here").shows_tools()
