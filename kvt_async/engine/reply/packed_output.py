"""The output of a long reply, put away while the reply still runs: few bytes a token, and nothing of it lost.

A stream of tokens is held as a text and two numbers a token, which take twenty times the bytes of what they say. Here
texts are joined, and arrivals are what `telemetry.chunks` will hold of them. All is kept in portions that Python's own
allocator takes (512 bytes): larger ones would lie scattered over the heap of reads, which could not give holes back.
"""

from array import array
from collections.abc import Sequence

from kvt_async.contract.formulas.chunk_encoding import ChunkEncoder, decode_chunks

PORTION_BYTES = 448
PORTION_CHARS = 224  # of text, two bytes each


class PackedOutput:
    """Chunks of output, oldest first, as far as they are put away."""

    __slots__ = (
        "_encoded",
        "_encoder",
        "content",
        "first_ns",
        "n_chars",
        "n_chunks",
        "reasoning",
        "second_ns",
        "start_ns",
    )

    def __init__(self, start_ns: int) -> None:
        """`start_ns`: of the attempt, from where arrivals are counted."""
        self.start_ns = start_ns
        self.content = PackedTexts()
        self.reasoning = PackedTexts(may_repeat=False)
        self.n_chunks = self.n_chars = 0
        self.first_ns = self.second_ns = 0  # arrivals of the first two chunks
        self._encoded: list[bytes] = []
        self._encoder = ChunkEncoder()

    def add(self, arrivals: Sequence[int], chars: Sequence[int]) -> None:
        """Arrivals and lengths of the next chunks; their texts go to `content` and `reasoning`."""
        if not arrivals:
            return
        if not self.n_chunks:
            self.first_ns, *rest = arrivals[:2]
            self.second_ns = rest[0] if rest else 0
        elif self.n_chunks == 1:
            self.second_ns = arrivals[0]
        self.n_chunks += len(arrivals)
        self.n_chars += sum(chars)
        self._encoder.add([(at_ns - self.start_ns) // 1000 for at_ns in arrivals], chars)
        out = self._encoder.out
        whole = len(out) - len(out) % PORTION_BYTES
        self._encoded += [bytes(out[at : at + PORTION_BYTES]) for at in range(0, whole, PORTION_BYTES)]
        del out[:whole]

    def encoded(self) -> bytes:
        """`telemetry.chunks` of these chunks."""
        return b"".join((*self._encoded, self._encoder.out))

    def chunks(self) -> tuple[list[int], list[int]]:
        """Arrivals, to the microsecond but for the first two, and lengths."""
        pairs = decode_chunks(self.encoded())
        exact = [self.first_ns, self.second_ns][: len(pairs)]
        return [*exact, *(self.start_ns + at_us * 1000 for at_us, _ in pairs[2:])], [chars for _, chars in pairs]


class PackedTexts:
    """Texts of chunks. While each begins with the whole one before it (a server may repeat all that came before, and
    only the end of its reply tells), the last one and all lengths say what they were; then they are joined."""

    __slots__ = ("_joined", "_last", "_lengths")

    def __init__(self, *, may_repeat: bool = True) -> None:
        self._joined: list[str] = []
        self._last = ""
        self._lengths = array("Q") if may_repeat else None  # None: some text did not begin with the one before it

    @property
    def may_repeat(self) -> bool:
        return self._lengths is not None

    def add(self, texts: Sequence[str]) -> None:
        if self._lengths is not None:
            last = self._last
            for text in texts:
                if not text.startswith(last):
                    break
                last = text
            else:
                self._lengths.extend(map(len, texts))
                self._last = last
                return
            before = self.whole()
            self._lengths, self._last = None, ""
            self.add([before])
        text = "".join(texts)
        self._joined += [text[at : at + PORTION_CHARS] for at in range(0, len(text), PORTION_CHARS)]

    def __bool__(self) -> bool:
        return bool(self._joined or self._lengths)

    def each(self) -> list[str]:
        """The single texts. Raises ValueError where they are no longer known."""
        if self._lengths is None:
            raise ValueError("the texts are joined")
        return [self._last[:n] for n in self._lengths]

    def whole(self) -> str:
        """All of them, joined."""
        return "".join(self.each() if self._lengths is not None else self._joined)
