"""Which replies say the same: by their texts and tool calls, whatever the calls' ids."""

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from analyzer.read.same_answer import calls_of, same_answer

F: dict[str, Any] = {"name": "f", "arguments": '{"a": "\\u00e9\\n"}'}
G: dict[str, Any] = {"name": "g", "arguments": "{"}


def asked(one: tuple[str | None, str | None], other: tuple[str | None, str | None]) -> tuple[Any, Any]:
    """Whether two replies (text, tool_calls_json) are the same, and the calls of the first."""
    with closing(sqlite3.connect(":memory:")) as conn:
        conn.execute("CREATE TABLE a (text, tool_calls_json)")
        conn.execute("CREATE TABLE b (text, tool_calls_json)")
        conn.execute("INSERT INTO a VALUES (?, ?)", one)
        conn.execute("INSERT INTO b VALUES (?, ?)", other)
        row: tuple[Any, Any] = conn.execute(f"SELECT {same_answer('a', 'b')}, {calls_of('a')} FROM a, b").fetchone()
        return row


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("x", None), ("x", None), 1),
        (("x", None), ("y", None), 0),
        (("", [F]), ("", [F]), 1),
        (("", [{**F, "id": "1"}, G]), ("", [{**F, "id": "2"}, {**G, "id": "3"}]), 1),
        (("", [F]), ("", [G]), 0),
        (("", [F, G]), ("", [G, F]), 0),
        (("", [F]), ("", None), 0),
        (("", [F]), ("x", [F]), 0),
        (("", None), (None, None), None),
    ],
)
def test_ids_alone_make_no_other_answer(one: Any, other: Any, same: int | None) -> None:
    (a, calls), (b, more) = one, other
    dumped = [None if given is None else json.dumps(given) for given in (calls, more)]
    answer, without = asked((a, dumped[0]), (b, dumped[1]))
    assert answer == same
    wanted = None if calls is None else [{k: v for k, v in call.items() if k != "id"} for call in calls]
    assert (None if without is None else json.loads(without)) == wanted


def test_what_is_no_list_of_calls_harms_nothing() -> None:
    for odd in ("no JSON", '{"unreadable": "x"}', '["x"]', "3"):
        assert asked(("", odd), ("", json.dumps([F])))[0] in (0, 1)
