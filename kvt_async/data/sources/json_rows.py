"""One JSON object a line, as every source in JSON lines reads it: its faults are named by file:line and field."""

import codecs
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import IO, Any

import orjson

from kvt_async.contract.errors import ConfigError

BOM = codecs.BOM_UTF8
MAX_LINE_MB = 64  # some 15 million tokens; a line takes about five times its size in memory
DEEPEST = 200  # levels: the manifest, the database and SQLite's JSON functions all take more
_MANY_DIGITS = re.compile(rb"[0-9]{19}")
_LEAST, _MOST = -(1 << 63), (1 << 64) - 1


def check_max_line(params: Mapping[str, Any]) -> None:
    """Raises ConfigError for a `max_line_mb` that is no length of a line."""
    longest = params.get("max_line_mb", MAX_LINE_MB)
    if not isinstance(longest, int | float) or isinstance(longest, bool) or not 0 < longest <= 1_000_000:
        raise ConfigError(
            f"max_line_mb must be a number above 0, not {longest!r}",
            where="dataset.params.max_line_mb",
            do=f"In MB; the default is {MAX_LINE_MB}.",
        )


def bounded_lines(file: IO[bytes], name: str, max_line_mb: float) -> Iterator[tuple[str, bytes]]:
    """(file:line, line) of all lines that are not blank; a longer one than the limit is never held. A byte order mark
    at the start of the file is no text. Raises ConfigError for a line that is longer.
    """
    most, number = int(max_line_mb * 1_000_000), 0
    while line := file.readline(most + 1):
        number += 1
        if len(line) > most:
            raise ConfigError(
                f"this line is longer than {max_line_mb:g} MB",
                where=f"{name}:{number}",
                do="One example a line, not one list of all. If this is one, raise dataset.params.max_line_mb: an "
                "example takes about five times its size in memory.",
            )
        text = line.removeprefix(BOM) if number == 1 else line
        if text.strip():
            yield f"{name}:{number}", text


def json_object(line: bytes, where: str, schema: str) -> dict[str, Any]:
    """The object of a line. Raises ConfigError: for what is no JSON or no object (`schema` is the advice), for what is
    nested too deep to be stored, for a whole number beyond 64 bits (it would lose its last digits), and for a key that
    comes twice in one object.
    """
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if "depth limit" in error.msg or "ecursion" in error.msg:
            raise _too_deep(where) from None
        raise ConfigError(
            f"not valid JSON: {error.msg} at column {error.colno}", where=where, do="One JSON object a line, UTF-8."
        ) from None
    if not isinstance(record, dict):
        raise ConfigError(f"a line is a JSON object, not {_kind(record)}", where=where, do=schema)
    if line.count(b"[") + line.count(b"{") > DEEPEST and _depth(record) > DEEPEST:
        raise _too_deep(where)
    if line.count(b'"') != _quotes(record) or _MANY_DIGITS.search(line):
        _read_exactly(line, where)
    return record


def text_field(record: dict[str, Any], name: str, where: str, schema: str) -> str:
    value = record[name]
    if not isinstance(value, str):
        raise wrong_type(name, "a string", value, where, schema)
    return value


def text_or_number(record: dict[str, Any], name: str, where: str, schema: str) -> str:
    """A field as text: a table may have made numbers of what was text. Raises ConfigError for anything else."""
    value = record[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    if not isinstance(value, str) and not is_number:
        raise wrong_type(name, "a text", value, where, schema)
    return str(value)


def answer_list(value: Any, where: str, schema: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise wrong_type("answers", "a string or a list of strings", value, where, schema)
    for idx, answer in enumerate(value):
        if not isinstance(answer, str):
            raise wrong_type(f"answers[{idx}]", "a string", answer, where, schema)
    return tuple(value)


def given_id(record: dict[str, Any], where: str, schema: str) -> str | None:
    """The row's example_id as text; None: it brings none."""
    given = record.get("example_id")
    if given is not None and not (isinstance(given, str | int) and not isinstance(given, bool) and str(given).strip()):
        raise wrong_type("example_id", "a non-empty string", given, where, schema)
    return None if given is None else str(given)


def wrong_type(field: str, wants: str, got: object, where: str, schema: str) -> ConfigError:
    return ConfigError(f"the field {field!r} must be {wants}, not {_kind(got)}", where=where, do=schema)


def _read_exactly(line: bytes, where: str) -> None:
    """What orjson passes over: numbers that it rounds and keys of which it keeps the last."""

    def whole(digits: str) -> int:
        if not _LEAST <= int(digits[:30]) <= _MOST:
            raise ConfigError(
                f"the number {digits[:30]}{'…' if len(digits) > 30 else ''} is beyond 64 bits and would lose digits",
                where=where,
                do='Write it as a text: "…".',
            )
        return int(digits)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice = (
            next((key for n, key in enumerate(keys) if key in keys[:n]), None) if len(set(keys)) < len(keys) else None
        )
        if twice is not None:
            raise ConfigError(
                f"the key {twice!r} comes twice in one object", where=where, do="Keep one of them, or rename one."
            )
        return dict(pairs)

    json.loads(line, parse_int=whole, object_pairs_hook=once)


def _quotes(value: Any) -> int:
    """How many quotation marks the value takes as JSON: fewer than stand in the line where a key was dropped."""
    if isinstance(value, str):
        return 2 + value.count('"')
    if isinstance(value, dict):
        return sum(2 + key.count('"') + _quotes(inner) for key, inner in value.items())
    if isinstance(value, list):
        return sum(map(_quotes, value))
    return 0


def _depth(value: Any) -> int:
    deepest, todo = 0, [(value, 1)]
    while todo:
        inner, depth = todo.pop()
        deepest = max(deepest, depth)
        if isinstance(inner, dict):
            todo += [(v, depth + 1) for v in inner.values()]
        elif isinstance(inner, list):
            todo += [(v, depth + 1) for v in inner]
    return deepest


def _too_deep(where: str) -> ConfigError:
    return ConfigError(
        f"nested more than {DEEPEST} levels deep: it can't be stored",
        where=where,
        do="Flatten `meta`, or leave it out.",
    )


def _kind(value: object) -> str:
    names = {"dict": "an object", "list": "a list", "str": "a string", "NoneType": "null", "bool": "true/false"}
    return names.get(type(value).__name__, f"a number ({value!r})")
