"""A server's events, JSON by now, read into one transcript.

Reading is lenient about what servers add and strict about what kvt needs: an event is a JSON object; its text is text.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from kvt_async.contract.formulas.finish_reasons import meaning
from kvt_async.engine.reply import failure_shapes
from kvt_async.engine.reply.deltas import reasoning_of, split_content, tool_calls_of, written_chars
from kvt_async.engine.reply.failure_shapes import PLAIN_FIELDS, PLAIN_OBJECTS
from kvt_async.engine.reply.output import ReplyOutput
from kvt_async.engine.reply.payload import UnreadableError, as_evidence
from kvt_async.engine.reply.token_counts import outdoes
from kvt_async.engine.reply.tool_calls import Assembly
from kvt_async.records import Json


class Transcript(ReplyOutput, gc=False):
    """What the events of one reply said, in order, with the instants of what first came when.

    Output is text, reasoning and the arguments of tool calls alike; a role-only, empty or usage-only event is none.
    Instants are None where the thing did not happen. Call `settle` when all events have been added.
    """

    tools: Assembly | None = None  # its tool calls, as far as they have come
    finish_reason: str | None = None  # the last one that ends a reply, as the server wrote it
    last_word: str | None = None  # a finish_reason that ends nothing
    usage: Json | None = None
    timings: Json | None = None  # llama.cpp's
    earlier_usage: list[Json] | None = None  # of a server that counts more than once: those that may still be believed
    n_usages: int = 0
    error: Any = None  # a failure that the server told, whatever else it sent
    complaint: Any = None  # what reads like a failure, unless the reply then ends as replies do
    n_choices: int = 1  # answers that the server gave; more than one: its usage counts them together
    first_tool_ns: int | None = None
    finish_ns: int | None = None
    usage_ns: int | None = None
    _finish_at: int = 0  # chunks of output that had come with the finish_reason
    _contradicted: bool = False  # output came after a final finish_reason, and then another one
    _others: "list[_Other] | None" = None  # events of choices with an index that isn't 0
    _others_from: int = 0  # chunks of output before the first of them

    def add(self, events: Iterable[Any], arrivals: Iterable[int]) -> None:
        """Events of a stream in order, and when each came. Raises UnreadableError for a shape that can't be read."""
        for event, at_ns in zip(events, arrivals):  # noqa: B905 - `strict` would be looked at for every event
            if type(event) is not dict:
                raise UnreadableError("an event is not a JSON object", as_evidence(event))
            choices = event.get("choices")
            usage = event.get("usage")
            if choices:
                choice = choices[0] if type(choices) is list else None
                if type(choice) is not dict:
                    raise UnreadableError("`choices` is not a list of objects", as_evidence(event))
                if len(choices) > 1:
                    choice = self._ours(choices)
                if not choice.get("index"):
                    delta = choice.get("delta")
                    if type(delta) is dict:
                        text = delta.get("content")
                        if text:
                            self._add_content(text, at_ns)
                        others = len(delta) - (text is not None)
                        if others and not (others == 1 and "role" in delta):
                            self._rarer(delta, at_ns)
                    elif delta is not None:
                        raise UnreadableError("`delta` is not an object", as_evidence(choice))
                    elif text := choice.get("text"):
                        self._add_content(text, at_ns)
                    elif type(message := choice.get("message")) is dict:
                        self._message(message, at_ns)
                    reason = choice.get("finish_reason")
                    if reason:
                        self._finish(reason, at_ns)
                    if "error" in choice:
                        self.error = self.error or failure_shapes.told(choice)
                    if usage is None and "usage" in choice:
                        usage = choice["usage"]
                else:
                    self._other(choice, at_ns)
            elif not (PLAIN_FIELDS.issuperset(event) and event.get("object") in PLAIN_OBJECTS):
                self.error = self.error or failure_shapes.told(event)
                self.complaint = self.complaint or failure_shapes.complaint(event)
            if "x_groq" in event or "error" in event or "base_resp" in event or "timings" in event:
                usage = self._beside(event, usage)
            if type(usage) is dict:
                self._count(usage, at_ns)

    def settle(self) -> None:
        """All events are here: which of several choices is ours is known now. Raises UnreadableError."""
        if self._others is not None:
            others, self._others = self._others, None
            self._settle_choices(others)
        self.undo_repeats()

    def add_whole(self, body: Any) -> None:
        """A reply that was not streamed. Raises UnreadableError."""
        body = failure_shapes.unwrapped(body)
        if type(body) is not dict:
            raise UnreadableError("the reply is not a JSON object")
        choices = body.get("choices")
        if not isinstance(choices, list) or not choices or type(choices[0]) is not dict:
            choices = []
        self.error = failure_shapes.told(body) or (None if choices else failure_shapes.complaint(body))
        if self.error is not None:
            return
        if not choices:
            raise UnreadableError("the reply has no `choices`")
        choice = choices[0] if len(choices) == 1 else self._ours(choices) or choices[0]
        self.error = failure_shapes.told(choice)
        message = next((value for name in ("message", "delta") if (value := choice.get(name)) is not None), None)
        if message is None:
            message = {"content": choice.get("text")}
        if type(message) is not dict:
            raise UnreadableError("`message` is not an object")
        text, thought = split_content(message.get("content") or message.get("refusal"))
        self.content.append(text)
        if reasoning := thought + reasoning_of(message):
            self.reasoning.append(reasoning)
        self._called({**call, "index": n} for n, call in enumerate(tool_calls_of(message)))
        if reason := choice.get("finish_reason"):
            self._finish(reason, None)
        elif not (text or self.reasoning or self.tools):
            raise UnreadableError("no text and no finish_reason", as_evidence(choice))
        usage = body.get("usage") or choice.get("usage") or failure_shapes.part(body, "x_groq").get("usage")
        if type(usage) is dict:
            self.usage, self.n_usages = usage, 1
        self.timings = failure_shapes.part(body, "timings") or None

    @property
    def ended(self) -> bool:
        """A final finish_reason came, and nothing after it says that it was none."""
        return self.finish_reason is not None and not self._contradicted and self._finish_at == self.n_chunks

    @property
    def tool_calls(self) -> list[Json] | None:
        """The calls that the reply makes, each {name, arguments, id}; None: it makes none."""
        return self.tools.calls() or None if self.tools is not None else None

    def _message(self, message: Json, at_ns: int) -> None:
        """What some servers send in place of a delta. With the last event it may be the whole reply once more."""
        text = message.get("content")
        whole = text or ""
        if self.n_chunks and type(whole) is str and len(whole) == self.content_chars and whole == self.whole_content():
            return
        if text:
            self._add_content(text, at_ns)
        self._rarer(message, at_ns)

    def _rarer(self, delta: Json, at_ns: int) -> None:
        reasoning = delta.get("reasoning_content")
        if type(reasoning) is not str or not reasoning:
            reasoning = reasoning_of(delta)
        if reasoning:
            self._add_thought(reasoning, at_ns)
        if refusal := delta.get("refusal"):
            self._add_content(refusal, at_ns)
        if ("tool_calls" in delta or "function_call" in delta) and (calls := tool_calls_of(delta)):
            self._called(calls)
            if size := sum(map(written_chars, calls)):
                if self.first_tool_ns is None:
                    self.first_tool_ns = at_ns
                self._came(at_ns, size)
        if "error" in delta:
            self.error = self.error or failure_shapes.told(delta)

    def _called(self, pieces: Iterable[Json]) -> None:
        for piece in pieces:
            if self.tools is None:
                self.tools = Assembly()
            self.tools.add(piece)

    def _count(self, usage: Json, at_ns: int) -> None:
        """A server may count with every chunk, and end on a zero: of earlier counts those stay that are higher."""
        if self.usage is not None:
            earlier = self.earlier_usage = self.earlier_usage or []
            earlier.append(self.usage)
            while earlier and outdoes(usage, earlier[-1]):
                earlier.pop()
        self.usage, self.usage_ns = usage, at_ns
        self.n_usages += 1

    def _beside(self, event: Json, usage: Any) -> Any:
        """What some servers put beside `choices`: a failure, timings. The usage, which may be there too."""
        self.error = self.error or failure_shapes.told(event)
        self.timings = failure_shapes.part(event, "timings") or self.timings
        return failure_shapes.part(event, "x_groq").get("usage") if usage is None else usage

    def _finish(self, reason: Any, at_ns: int | None) -> None:
        kind = meaning(reason) if type(reason) is str else "nothing"
        if kind == "final":
            came = self.n_chunks
            if self.finish_reason is not None and came > self._finish_at:
                self._contradicted = True
            self.finish_reason, self.finish_ns, self._finish_at = reason, at_ns, came
        elif kind == "failed":
            self.error = self.error or f"finish_reason: {reason[:100]}"
        else:
            self.last_word = str(reason)[:100]

    def _ours(self, choices: Sequence[Any]) -> Json:
        """Of several choices that one event brings: the one with index 0; none: nothing of it is ours."""
        self.n_choices = max(self.n_choices, len(choices))
        for choice in choices:
            if type(choice) is dict and not _index(choice):
                return choice if not choice.get("index") else {**choice, "index": 0}
        return {}

    def _other(self, choice: Json, at_ns: int) -> None:
        """A choice alone in its event whose index isn't 0: ours where the index counts tokens, or is always the same;
        another answer where several were asked for. Which it is, only the whole stream tells."""
        index, event = _index(choice), {"choices": [{**choice, "index": 0}]}
        if not index:
            self.add((event,), (at_ns,))
            return
        if self._others is None:
            self._others, self._others_from = [], self.n_chunks
        self._others.append(_Other(index, event, at_ns, after_end=self.finish_reason is not None))

    def _settle_choices(self, others: "Sequence[_Other]") -> None:
        indexes = [other.index for other in others]
        first, came = indexes[0], self._others_from
        alone = came == self.n_chunks and not others[0].after_end  # index 0 said nothing beside them
        counts_tokens = indexes == list(range(first, first + len(others))) and (came == 0 or came == first == 1)
        if alone and counts_tokens:
            ours = others
        elif alone and came == 0:
            ours = [other for other in others if other.index == min(indexes)]
        else:
            ours = []
        if len(ours) < len(others):
            self.n_choices = max(self.n_choices, len({*indexes}) + (not ours))
        late = self.finish_ns if ours else None
        self.add([other.event for other in ours], [other.at_ns for other in ours])
        if late is not None and late >= ours[-1].at_ns:  # the end of the reply came under index 0
            self._finish_at, self._contradicted = self.n_chunks, False


class _Other(Struct, frozen=True, gc=False):
    """An event of a choice that may or may not be ours."""

    index: int
    event: Json
    at_ns: int
    after_end: bool  # our own choice had ended by then


def _index(choice: Json) -> int:
    """Of a choice; 0 where it has none, or one that can't be read."""
    index = choice.get("index")
    if isinstance(index, float) and index.is_integer():
        return int(index)
    if isinstance(index, str) and index.isascii() and index.isdecimal() and len(index) < 10:
        return int(index)
    return index if type(index) is int else 0
