"""What a reply says, chunk by chunk, and when each chunk came; of a long reply in few bytes."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from msgspec import Struct, field

from kvt_async.engine.reply.deltas import split_content
from kvt_async.engine.reply.packed_output import PackedOutput
from kvt_async.engine.reply.payload import joined_halves

_LONGEST_TOKEN = 16  # bytes without a space in them: few tokens of words, and none of digits, are longer


class ReplyOutput(Struct, gc=False):
    """Text and reasoning, with the instants of what first came when; None where it did not happen."""

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    chunk_ns: list[int] = field(default_factory=list)  # arrival of every chunk of output
    chunk_chars: list[int] = field(default_factory=list)  # and its length
    packed: PackedOutput | None = None  # output that came before what these four hold
    content_chars: int = 0
    first_content_ns: int | None = None
    first_reasoning_ns: int | None = None
    last_delta_ns: int | None = None

    def add_run(self, texts: Sequence[str], arrivals: Sequence[int]) -> None:
        """Pieces of content that were found without reading the whole of their events, and when each came."""
        if not all(texts):
            arrivals = [at_ns for at_ns, text in zip(arrivals, texts, strict=True) if text]
            texts = [text for text in texts if text]
        if texts:
            if self.first_content_ns is None:
                self.first_content_ns = arrivals[0]
            self.last_delta_ns = arrivals[-1]
            self.content += texts
            self.chunk_ns += arrivals
            sizes = [*map(len, texts)]
            self.chunk_chars += sizes
            self.content_chars += sum(sizes)

    @property
    def text(self) -> str:
        return joined_halves(self.whole_content())

    @property
    def has_reasoning(self) -> bool:
        return bool(self.reasoning or (self.packed is not None and self.packed.reasoning))

    @property
    def reasoning_text(self) -> str | None:
        if not self.has_reasoning:
            return None
        text = "".join(self.reasoning)
        return joined_halves(text if self.packed is None else self.packed.reasoning.whole() + text)

    @property
    def n_chunks(self) -> int:
        """Chunks of output so far."""
        return len(self.chunk_ns) + (self.packed.n_chunks if self.packed is not None else 0)

    @property
    def n_chars(self) -> int:
        """Characters of all chunks of output."""
        return sum(self.chunk_chars) + (self.packed.n_chars if self.packed is not None else 0)

    def pack(self, start_ns: int) -> None:
        """Put away all output so far. `start_ns`: of the attempt."""
        if self.packed is None:
            self.packed = PackedOutput(start_ns)
        packed = self.packed
        packed.content.add(self.content)
        packed.reasoning.add(self.reasoning)
        packed.add(self.chunk_ns, self.chunk_chars)
        self.content, self.reasoning, self.chunk_ns, self.chunk_chars = [], [], [], []

    def _unpack(self, packed: PackedOutput) -> None:
        arrivals, chars = packed.chunks()
        self.content = [*packed.content.each(), *self.content]
        self.reasoning = [packed.reasoning.whole(), *self.reasoning] if self.has_reasoning else []
        self.chunk_ns, self.chunk_chars = [*arrivals, *self.chunk_ns], [*chars, *self.chunk_chars]
        self.packed = None

    def whole_content(self) -> str:
        """The text, perhaps with halves of surrogate pairs."""
        text = "".join(self.content)
        return text if self.packed is None else self.packed.content.whole() + text

    def _add_content(self, text: Any, at_ns: int) -> None:
        if type(text) is not str:
            text, thought = split_content(text)
            if thought:
                self._add_thought(thought, at_ns)
            if not text:
                return
        if self.first_content_ns is None:
            self.first_content_ns = at_ns
        self.last_delta_ns = at_ns
        self.content.append(text)
        self.content_chars += len(text)
        self.chunk_ns.append(at_ns)
        self.chunk_chars.append(len(text))

    def _add_thought(self, text: str, at_ns: int) -> None:
        if self.first_reasoning_ns is None:
            self.first_reasoning_ns = at_ns
        self.last_delta_ns = at_ns
        self.reasoning.append(text)
        self.chunk_ns.append(at_ns)
        self.chunk_chars.append(len(text))

    def _came(self, at_ns: int, chars: int) -> None:
        """A chunk of output that is neither text nor reasoning."""
        self.last_delta_ns = at_ns
        self.chunk_ns.append(at_ns)
        self.chunk_chars.append(chars)

    def undo_repeats(self) -> None:
        """Some servers (DashScope's, unless told otherwise) repeat in every chunk all that came before. A reply is read
        like that where each of at least three chunks begins with the whole one before it, and no true reply would:
        tokens do so by chance ("-", "--", "---", "1", "12", "123", indentation), and lines that grow do. So the whole
        must be more than one token could hold, what was added must differ, and no chunk begins a line of its own."""
        if self.packed is not None:
            if not self.packed.content.may_repeat:
                return
            self._unpack(self.packed)
        pieces = self.content
        if not (len(pieces) > 2 and len(pieces[-1]) > len(pieces[0]) and pieces[1].startswith(pieces[0])):
            return
        if len(pieces) != len(self.chunk_ns) or not all(b.startswith(a) for a, b in pairwise(pieces)):
            return
        added = [b[len(a) :] for a, b in pairwise(pieces)]
        first, whole = pieces[0].strip(), pieces[-1].strip()
        is_beyond_a_token = len(whole.encode()) > _LONGEST_TOKEN or len(whole.split()) > 1
        if (
            first
            and pieces[0][0] != "\n"
            and is_beyond_a_token
            and len({part.strip() for part in added} - {"", first}) > 1
        ):
            self.chunk_chars = [len(pieces[0]), *map(len, added)]
            self.content = pieces[-1:]
