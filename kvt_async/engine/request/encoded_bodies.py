"""The payloads of one level's prompts, byte for byte those of `build_payload`, with what they share encoded once.

A body is made with marks in the places of what differs from prompt to prompt, encoded, and cut at the marks. A mark is
a name between NUL bytes; JSON text holds no other NUL, so the cuts can't be wrong. What is left to do for a prompt is
to escape its own text: a fraction of the work, and one copy less of a long one.
"""

from collections.abc import Sequence

import orjson

from kvt_async.contract.formulas.prompt_text import context_messages, halves, plain, render
from kvt_async.contract.formulas.sample_seed import base_seed
from kvt_async.contract.settings import Settings
from kvt_async.engine.request.chat_body import PATHS, assemble, build_payload
from kvt_async.engine.request.kv_fields import (
    NOBODY_COUNTED,
    PromptSize,
    fields_of,
    kv_headers,
    sized_names,
    values_of,
)
from kvt_async.engine.request.seeds import with_seed
from kvt_async.records import Json, Level, Payload

_CONTEXT, _QUESTION, _CHARS, _SEED = "context", "question", "context_chars", "seed"


class LevelPayloads:
    """The payloads of a dataset's examples at one level."""

    def __init__(self, settings: Settings, level: Level, template: str, system: str | None) -> None:
        self._settings, self._level, self._template, self._system = settings, level, template, system
        self._head_chars = len(halves(template)[0])
        self._sized = sized_names(level)  # None: a value is part of a text, where no mark can stand
        self._base_seed = base_seed(settings.decoding)
        marked = with_seed(settings, None if self._base_seed is None else orjson.Fragment(_mark(_SEED)))
        self._pieces = None if self._sized is None else _pieces(marked, level, template, system, self._sized)
        self._path = PATHS[settings.prompt.endpoint]
        self._places = [(at, name.decode()) for at, name in enumerate(self._pieces or ()) if at % 2]

    def __call__(
        self,
        context: str,
        question: str,
        turns: Sequence[Sequence[str]] = (),
        tools: Json | None = None,
        *,
        parts: Sequence[tuple[str, int]] = (),
        size: PromptSize = NOBODY_COUNTED,
        seed: int | None = None,
    ) -> Payload:
        """The payload of one example with its `tool_fields`, to be answered with `seed`; None: the config's. The
        characters of `size` are counted here."""
        n_messages = context_messages(parts, self._system)
        chars = None if parts else self._head_chars + len(context)
        size = PromptSize(size.prompt_tokens, size.context_tokens, chars, n_messages)
        constant = None if turns or tools or parts else self._pieces
        values = None if constant is None else self._sizes(size)
        if constant is None or values is None:
            messages, _ = render(self._template, context, question, turns, self._system, parts)
            return build_payload(with_seed(self._settings, seed), messages, self._level, size, tools)
        if self._base_seed is not None:
            values[_SEED] = b"%d" % (self._base_seed if seed is None else seed)
        values[_CONTEXT] = memoryview(orjson.dumps(context))[1:-1]  # without its quotes, and not copied: it may be long
        values[_QUESTION] = orjson.dumps(question)[1:-1]
        pieces: list[bytes | memoryview] = [*constant]
        for at, name in self._places:
            pieces[at] = values[name]
        return Payload(self._path, b"".join(pieces), kv_headers(self._level, size))

    def _sizes(self, size: PromptSize) -> dict[str, bytes | memoryview] | None:
        """What the level's fields say of a prompt's size; None: something has no value, and its key must go."""
        if not self._sized:
            return {}
        if self._sized == {_CHARS} and size.context_chars is not None:
            return {_CHARS: b"%d" % size.context_chars}
        values = values_of(self._level, size)
        if any(values[name] is None for name in self._sized):
            return None
        return {name: orjson.dumps(values[name]) for name in self._sized}


def _pieces(settings: Settings, level: Level, template: str, system: str | None, sized: frozenset[str]) -> list[bytes]:
    """An encoded body cut at its marks: constant bytes and names in turns."""
    head, rest = halves(template)
    user = _escaped(head) + _mark(_CONTEXT) + _mark(_QUESTION).join(_escaped(part) for part in rest.split("{question}"))
    messages, _ = render(template, "{context}", "{question}", (), system)  # its own text stands for the user's
    if settings.prompt.endpoint == "chat":
        content = orjson.Fragment(b'"' + user + b'"')
        prompt_fields: Json = {"messages": [*messages[:-1], {**messages[-1], "content": content}]}
    else:
        lead = plain(messages).removesuffix(template)
        prompt_fields = {"prompt": orjson.Fragment(b'"' + _escaped(lead) + user + b'"')}
    values = values_of(level, PromptSize()) | {name: orjson.Fragment(_mark(name)) for name in sized}
    return orjson.dumps(assemble(settings, prompt_fields, level, fields_of(level, values))).split(b"\0")


def _escaped(text: str) -> bytes:
    return orjson.dumps(text)[1:-1]


def _mark(name: str) -> bytes:
    return b"\0%s\0" % name.encode()
