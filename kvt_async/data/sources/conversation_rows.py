"""A jsonl row that holds a conversation: one example a turn that is scored, each with the turns before it.

    {"example_id": "c1", "context": "...", "conversation": [{"question": "...", "answers": ["..."]}, ...]}
    {"conversation": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}, ...]}

`context` is optional. All other fields of the row, `meta` and `tools` among them, are those of every turn, and a turn's
own fields lie over them. A turn has `answers` or `expected_calls`, as a row has. What later turns are told was answered
is its `reply`, else the first of its answers. A turn with `reply` alone, or with `"score": false`, is told to later
turns and not asked by itself. Of messages, an assistant's content is the answer to the user's before it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.conversation import turn_id
from kvt_async.contract.formulas.prompt_text import tool_fields
from kvt_async.data.sources.json_rows import answer_list, given_id, text_field, wrong_type
from kvt_async.data.sources.row_tools import check_tools, expected_calls
from kvt_async.data.sources.source import Row, content_id
from kvt_async.records import Example, Json

SCHEMA = (
    'A conversation is a list of turns, [{"question": "...", "answers": ["..."]}, ...], or of messages, '
    '[{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}, ...].'
)
_OF_THE_ROW = ("example_id", "context", "conversation", "meta")
_OF_A_TURN = ("question", "answers", "reply", "score", "meta")
_MADE_HERE = ("conversation", "turn", "turns")
_CALLS = ("tool_calls", "function_call")


@dataclass(frozen=True, slots=True)
class _Turn:
    question: str
    answers: tuple[str, ...]
    reply: str | None  # what later turns are told was answered; None: nothing is known
    scored: bool
    meta: Json
    where: str


def is_conversation(record: Mapping[str, Any]) -> bool:
    """Whether the row holds a conversation: it has one and asks nothing by itself, or lists turns."""
    given = record.get("conversation")
    return isinstance(given, list) or (given is not None and "question" not in record)


def conversation_rows(record: Json, where: str) -> Iterator[Row]:
    """The scored turns of a row, in order. Raises ConfigError naming the line, the turn and the field."""
    _check_row(record, where)
    context = text_field(record, "context", where, SCHEMA) if "context" in record else ""
    shared = {**_object(record, where), **{key: value for key, value in record.items() if key not in _OF_THE_ROW}}
    turns = [_turn(each, shared, place) for each, place in _turns(record["conversation"], where)]
    name = given_id(record, where, SCHEMA)
    if name is None:
        name = content_id("", context, (), record["conversation"], tool_fields(shared))
    last = max((k for k, turn in enumerate(turns) if turn.scored), default=None)
    if last is None:
        raise ConfigError(
            "no turn of this conversation is scored", where=where, do="Give a turn `answers`, or remove the line."
        )
    history: list[list[str]] = []
    for k, turn in enumerate(turns[: last + 1]):
        if turn.scored:
            meta = {**turn.meta, "conversation": name, "turn": k, "turns": list(history)}
            yield Row(Example(turn_id(name, k), turn.question, context, turn.answers, meta), turn.where)
        if k < last:
            history.append([turn.question, _told(turn)])


def _check_row(record: Json, where: str) -> None:
    given = record["conversation"]
    if not isinstance(given, list):
        raise wrong_type("conversation", "a list", given, where, SCHEMA)
    if not given:
        raise ConfigError("the conversation is empty", where=where, do=SCHEMA)
    for key in ("question", "answers", "expected_calls", "reply"):
        if key in record:
            raise ConfigError(
                f"the row has a conversation and {key!r}", where=where, do=f"{key!r} belongs into a turn. {SCHEMA}"
            )
    _check_made_here(record, ("turn", "turns"), where)


def _check_made_here(meta: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in keys:
        if key in meta:
            raise ConfigError(
                f"the field {key!r} is made from the conversation", where=where, do=f"Leave {key!r} out, or rename it."
            )


def _object(record: Json, where: str) -> Json:
    meta = record.get("meta")
    if meta is not None and not isinstance(meta, dict):
        raise wrong_type("meta", "an object", meta, where, SCHEMA)
    _check_made_here(meta or {}, _MADE_HERE, where)
    return dict(meta or {})


def _turns(given: list[Any], where: str) -> Iterator[tuple[Json, str]]:
    """The turns as objects with a question, whichever way they are written, each with its place."""
    of_messages = isinstance(given[0], dict) and "role" in given[0]
    for at, item in enumerate(given):
        place = f"{where}, conversation[{at}]"
        if not isinstance(item, dict):
            raise ConfigError("a turn is an object", where=place, do=SCHEMA)
        if ("role" in item) != of_messages:
            raise ConfigError("turns and messages are mixed", where=place, do=SCHEMA)
        if of_messages:
            _check_message(item, at, place)
        else:
            yield item, place
    if of_messages and len(given) % 2:
        raise ConfigError(
            "this message has no answer behind it",
            where=f"{where}, conversation[{len(given) - 1}]",
            do="An assistant's message after it gives the gold answer; remove the message where there is none.",
        )
    for at in range(0, len(given) - 1, 2) if of_messages else ():
        user, assistant = ({k: v for k, v in given[at + n].items() if k not in ("role", "content")} for n in (0, 1))
        texts = {"question": given[at]["content"], "answers": [given[at + 1]["content"]]}
        yield {**user, **assistant, **texts}, f"{where}, conversation[{at}]"


def _check_message(message: Json, at: int, place: str) -> None:
    """Raises ConfigError unless user and assistant take turns, in text."""
    role, wanted = message["role"], ("user", "assistant")[at % 2]
    if role in ("system", "developer"):
        raise ConfigError(
            f"a conversation holds no message of the {role}",
            where=place,
            do="prompt.system is sent with every conversation; what is this one's own belongs into `context`.",
        )
    if role in ("tool", "function"):
        raise ConfigError(
            "results of tools can't be replayed as such",
            where=place,
            do='Write turns, [{"question": "...", "answers": [...]}, ...], with the result in the next question.',
        )
    if role != wanted:
        raise ConfigError(f"the role must be {wanted!r} here, not {role!r}", where=place, do=SCHEMA)
    if any(message.get(key) for key in _CALLS):
        raise ConfigError(
            "calls of tools are no text",
            where=place,
            do='Write turns: [{"question": "...", "expected_calls": [{"name": "...", "arguments": {}}]}, ...].',
        )
    if "content" not in message:
        raise ConfigError("the field 'content' is missing", where=place, do=SCHEMA)
    text_field(message, "content", place, SCHEMA)


def _turn(given: Json, shared: Json, where: str) -> _Turn:
    if "question" not in given:
        raise ConfigError("the field 'question' is missing", where=where, do=SCHEMA)
    for key, why in (
        ("context", "All turns share the `context` of the row."),
        ("example_id", "The row's `example_id` names the conversation; turns are numbered."),
        ("metric", "One metric scores all turns: dataset.params.metric."),
    ):
        if key in given:
            raise ConfigError(f"a turn has no {key!r} of its own", where=where, do=why)
    _check_made_here(given, _MADE_HERE, where)
    scored, calls = given.get("score", True), expected_calls(given, where)
    if not isinstance(scored, bool):
        raise wrong_type("score", "true or false", scored, where, SCHEMA)
    reply = text_field(given, "reply", where, SCHEMA) if "reply" in given else None
    answers = calls if calls is not None else answer_list(given.get("answers", []), where, SCHEMA)
    if "answers" not in given and calls is None:
        if reply is None:
            do = 'Without answers it is not scored, and needs a "reply" that later turns are told.'
            raise ConfigError("the field 'answers' is missing", where=where, do=do)
        scored = False
    meta = {**shared, **_object(given, where), **{key: value for key, value in given.items() if key not in _OF_A_TURN}}
    check_tools(meta, where)
    first = _calls(given["expected_calls"]) if calls is not None else next(iter(answers), "")
    return _Turn(text_field(given, "question", where, SCHEMA), answers, reply or first or None, scored, meta, where)


def _calls(expected: list[Any]) -> str:
    """The calls that are right, as a model's own are told to later turns (formulas/own_history.py); empty: none is."""
    first: Any = next(iter(expected), [])
    calls = first if isinstance(first, list) else [first]
    return json.dumps(calls, ensure_ascii=False) if calls else ""


def _told(turn: _Turn) -> str:
    if turn.reply is None:
        raise ConfigError(
            "nothing is known that this turn was answered with, and later turns are told so",
            where=turn.where,
            do='Give it a "reply": the text of the answer, which is not scored.',
        )
    return turn.reply
