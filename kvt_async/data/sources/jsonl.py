"""jsonl: one canonical example a line, UTF-8.

    {"example_id": "a1", "question": "...", "context": "...", "answers": ["...", "..."], "meta": {...}}

`question`, `context` (may be empty) and `answers` (a string, or a list of strings that are all accepted) are required.
`example_id` is optional: without it the id is a hash of the content. `meta` is optional and kept as it is; further
fields of a line are kept in it too. `meta.turns` = earlier chat turns [[question, answer], ...]. `tools`,
`tool_choice` and `expected_calls` are those of a task of tool calls: row_tools.py. A line with a `conversation` in
place of question and answers is an example a turn: conversation_rows.py. Blank lines are skipped.
`dataset.params.metric` names the metric (default f1), `dataset.params.max_line_mb` the longest line that is read
(default 64): an example is held whole, several times over.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.metric_needs import check_known
from kvt_async.contract.formulas.prompt_text import tool_fields
from kvt_async.contract.paths import data_path
from kvt_async.contract.settings import Settings
from kvt_async.data.sources.conversation_rows import conversation_rows, is_conversation
from kvt_async.data.sources.json_rows import (
    MAX_LINE_MB,
    answer_list,
    bounded_lines,
    check_max_line,
    given_id,
    json_object,
    text_field,
    wrong_type,
)
from kvt_async.data.sources.row_tools import check_tools, expected_calls
from kvt_async.data.sources.source import ExampleSource, Row, check_params, content_id, file_sha256, unreadable
from kvt_async.records import Example

FIELDS = ("example_id", "question", "context", "answers", "meta")
DEFAULT_METRIC = "f1"
_SCHEMA = 'A line is {"example_id": optional, "question": "...", "context": "...", "answers": ["..."], "meta": {}}.'


def check(settings: Settings) -> None:
    """Raises ConfigError for what is wrong in the config alone; opens nothing."""
    if settings.dataset.path is None:
        raise ConfigError("jsonl needs a file", where="dataset.path", do="Set dataset.path to a .jsonl file.")
    check_params(settings.dataset.params, ("metric", "max_line_mb"), "jsonl")
    check_known(metric_of(settings), "dataset.params.metric")
    check_max_line(settings.dataset.params)


def metric_of(settings: Settings) -> str:
    return str(settings.dataset.params.get("metric", DEFAULT_METRIC))


def open_source(settings: Settings) -> ExampleSource:
    check(settings)
    path = data_path(settings.dataset.path or "")
    if not path.is_file():
        what = "this is a folder, not a file" if path.is_dir() else "there is no such file"
        raise ConfigError(what, where=str(path), do="Set dataset.path to a .jsonl file.")
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise unreadable(path, error) from None
    max_line_mb = settings.dataset.params.get("max_line_mb", MAX_LINE_MB)
    return ExampleSource(f"sha256:{digest}", metric_of(settings), lambda: read(path, max_line_mb))


def read(path: Path, max_line_mb: float = MAX_LINE_MB) -> Iterator[Row]:
    """Stream a file. Raises ConfigError naming file:line and field at the first line that is no example or too long."""
    with path.open("rb") as file:
        for where, line in bounded_lines(file, str(path), max_line_mb):
            yield from rows_of(line, where)


def rows_of(line: bytes, where: str) -> Iterator[Row]:
    """The example of a line, or one a turn of its conversation. Raises ConfigError naming the field."""
    record = json_object(line, where, _SCHEMA)
    if is_conversation(record):
        yield from conversation_rows(record, where)
    else:
        yield Row(_example(record, where), where)


def _example(record: dict[str, Any], where: str) -> Example:
    expected = expected_calls(record, where)
    for name in ("question", "context", "answers"):
        if name not in record and not (name == "answers" and expected is not None):
            hint = _SCHEMA
            if name == "question" and "input" in record:
                hint = "It looks like a LongBench row: set dataset.name: longbench. " + _SCHEMA
            raise ConfigError(f"the field {name!r} is missing", where=where, do=hint)
    question, context = (text_field(record, name, where, _SCHEMA) for name in ("question", "context"))
    answers = expected if expected is not None else answer_list(record["answers"], where, _SCHEMA)
    meta = _meta(record, where)
    check_tools(meta, where)
    example_id = given_id(record, where, _SCHEMA)
    if example_id is None:
        example_id = content_id(question, context, answers, meta.get("turns"), tool_fields(meta))
    return Example(example_id, question, context, answers, meta)


def _meta(record: dict[str, Any], where: str) -> dict[str, Any]:
    meta = record.get("meta")
    if meta is not None and not isinstance(meta, dict):
        raise wrong_type("meta", "an object", meta, where, _SCHEMA)
    whole = {**(meta or {}), **{k: v for k, v in record.items() if k not in FIELDS}}
    turns = whole.get("turns")
    if turns is not None and not _are_turns(turns):
        raise wrong_type("meta.turns", "a list of [question, answer] pairs of strings", turns, where, _SCHEMA)
    return whole


def _are_turns(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn) for turn in value
    )
