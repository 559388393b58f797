"""Pieces of tool calls, as servers send them -> the calls that a reply makes: name, arguments as text, id.

A stream cuts a call wherever it likes. Which pieces belong together is told by `index`; servers that leave it out, or
give every call the same one, are understood by ids and names. Some servers repeat what they sent: the name, the
arguments so far, or a new random id in every piece. Time and memory are linear in the bytes of the pieces.
"""

from typing import Any

import orjson

from kvt_async.engine.reply.deltas import inner_of
from kvt_async.engine.reply.payload import as_text, joined_halves
from kvt_async.records import Json

_JOINED = 256  # pieces of arguments that are joined to see whether they are whole


class _Call:
    """A call that is being put together."""

    __slots__ = ("arguments", "call_id", "name_chars", "names")

    def __init__(self) -> None:
        self.names: list[str] = []
        self.name_chars = 0
        self.arguments = _Arguments()
        self.call_id = ""

    def add(self, name: str, arguments: str, call_id: str) -> None:
        if name and not (len(name) == self.name_chars and name == "".join(self.names)):  # else said once more
            self.names.append(name)
            self.name_chars += len(name)
        if arguments:
            self.arguments.add(arguments)
        self.call_id = self.call_id or call_id

    def is_over(self, name: str, arguments: str, call_id: str) -> bool:
        """Whether a piece that seems to be this call's begins another: it has a name, as this call has, and an id that
        isn't this call's, or arguments that begin where this call's have ended."""
        if not (name and self.names):
            return False
        if call_id and self.call_id:
            return call_id != self.call_id
        so_far = self.arguments
        if not (so_far.n_pieces and arguments.lstrip()[:1] == "{" and so_far.last.rstrip()[-1:] == "}"):
            return False
        return so_far.n_pieces > _JOINED or _is_json(so_far.text())  # `}{` may stand within a text

    def as_json(self) -> Json:
        call = {"name": joined_halves("".join(self.names)), "arguments": joined_halves(self.arguments.whole())}
        return call | {"id": joined_halves(self.call_id)} if self.call_id else call


class _Arguments:
    """The arguments of a call, piece by piece: memory is that of their text, however many pieces it came in."""

    __slots__ = ("_joined", "_pieces", "is_growing", "last", "n_pieces")

    def __init__(self) -> None:
        self._joined: list[str] = []
        self._pieces: list[str] = []
        self.n_pieces = 0
        self.last = ""
        self.is_growing = True  # each begins with the whole one before it

    def add(self, piece: str) -> None:
        self.is_growing = self.is_growing and piece.startswith(self.last)
        self.last = piece
        self.n_pieces += 1
        self._pieces.append(piece)
        if len(self._pieces) >= _JOINED:
            self._joined.append("".join(self._pieces))
            self._pieces = []

    def text(self) -> str:
        return "".join((*self._joined, *self._pieces))

    def whole(self) -> str:
        """Where the pieces make no JSON together, and the last one alone does and begins as all before it, the server
        repeated what it had sent."""
        text, last = self.text(), self.last
        if self.n_pieces < 2 or _is_json(text):
            return text
        is_repeated = len(text) == 2 * len(last) and text.startswith(last)
        return last if (is_repeated or self.is_growing) and _is_json(last) else text


class Assembly:
    """The calls of one reply, which `add` gets piece by piece."""

    __slots__ = ("_at_index", "_by_id", "_calls")

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._at_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}

    def add(self, piece: Json) -> None:
        inner, index, calls = inner_of(piece), _index(piece), self._calls
        name, arguments, call_id = _text(inner.get("name")), _arguments(inner), _text(piece.get("id"))
        if index is not None:
            call = self._at_index.get(index)
        else:
            call = self._by_id.get(call_id) or (calls[-1] if calls else None)
            if call is not None and call_id and call.call_id not in ("", call_id) and not (name or arguments):
                call = None  # the head of another one
        if call is None or call.is_over(name, arguments, call_id):
            call = _Call()
            calls.append(call)
        call.add(name, arguments, call_id)
        if index is not None:
            self._at_index[index] = call
        if call_id:
            self._by_id[call_id] = call

    def calls(self) -> list[Json]:
        """In the order in which they began: {name, arguments, id}, all text; no id where the server gave none.

        `arguments` is the text as it was sent, valid JSON or not; of a server that sends a JSON value, that value as
        text. What has neither name nor arguments is no call.
        """
        return [call.as_json() for call in self._calls if call.names or call.arguments.n_pieces]


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:  # half a surrogate pair, too
        return False
    return True


def _arguments(inner: Json) -> str:
    value = inner.get("arguments")
    if value is None:
        value = inner.get("input")
    return value if isinstance(value, str) else "" if value is None else as_text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _index(piece: Json) -> int | None:
    """None where the server gave none that can be read."""
    index = piece.get("index")
    if isinstance(index, float) and index.is_integer():
        return int(index)
    if isinstance(index, str) and index.isascii() and index.isdecimal() and len(index) < 10:
        return int(index)
    return index if type(index) is int else None
