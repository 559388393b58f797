"""The requests of a trace by their number: kept rows in the file's order, and from the start again at its end."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from kvt_async.bench.traces.seen_prefixes import SeenPrefixes
from kvt_async.bench.traces.trace_files import BLOCK_TOKENS, TraceFile
from kvt_async.bench.traces.trace_rows import TraceRow
from kvt_async.contract.bench_settings import WorkloadSettings
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.paths import data_path

HEAD = 256  # rows kept in memory: what warms up, asks first or comes again and again
_BLOCK = 512  # of hash_ids in a file whose format has none of its own


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """A row as it is to be sent: lengths scaled, its place on the trace's clock, and what it shares."""

    line: int
    at_s: float  # since the trace's first request that is sent; never earlier than the one before
    input_tokens: int
    output_tokens: int | None
    blocks: Sequence[int | str] | None
    shared_tokens: int | None  # of the prompt's first ones, those that an earlier request began with
    is_early: bool = False  # its row is earlier than the one before: it is due with that one
    pass_idx: int = 0  # how often the whole trace came before


@dataclass(frozen=True, slots=True)
class Edges:
    """Where the blocks of a scaled trace end: block k is [edges(k), edges(k + 1)), so that scaling moves no share."""

    block_tokens: int
    scale: float

    def __call__(self, n_blocks: int) -> int:
        return round(n_blocks * self.block_tokens * self.scale)


class TraceSource:
    """Reads forward: asking for rising numbers costs one pass. Not thread-safe."""

    def __init__(self, work: WorkloadSettings, *, timed: bool, has_outputs: bool) -> None:
        """`timed`: rows without a timestamp can't be sent; `has_outputs`: nor those without a reply's length, unless
        the config says it. Raises ConfigError for a file that can't be read or has no request."""
        assert work.path is not None
        self._path = data_path(work.path)
        self._file = TraceFile(self._path, work.format)
        self.format = self._file.format
        self.edges = Edges(work.block_tokens or BLOCK_TOKENS.get(self.format, _BLOCK), work.length_scale)
        self._work, self._timed, self._has_outputs = work, timed, has_outputs
        self.size: int | None = None  # requests of the whole trace; None: its end has not been seen
        self._begin()
        self.head: list[TraceRequest] = []
        for request in self.pass_over():
            self.head.append(request)
            if len(self.head) == HEAD:
                break
        if not self.head:
            dropped = "; ".join(f"{n:,} {reason}" for reason, n in self.dropped.items())
            raise ConfigError("this trace has no request to send", where=str(work.path), details=(dropped,))

    @property
    def dropped(self) -> dict[str, int]:
        """Rows left out so far in the newest pass, by reason."""
        return dict(self._file.dropped)

    @cached_property
    def sha256(self) -> str:
        """Of the file as it lies there."""
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def at(self, seq: int) -> TraceRequest:
        """The request of this number."""
        index, round_idx = seq, 0
        if self.size is not None:
            round_idx, index = divmod(seq, self.size)
        if index < len(self.head):
            return _again(self.head[index], round_idx)
        if index < self._next:
            self._begin()
        for request in self._rows:
            self._next += 1
            if self._next == index + 1:
                return _again(request, round_idx)
        self.size = self._next
        return self.at(seq)

    def _begin(self) -> None:
        self._rows, self._next = self.pass_over(), 0

    def pass_over(self) -> Iterator[TraceRequest]:
        """Every request, from the first row on."""
        seen, begun, newest = SeenPrefixes(self.edges), math.nan, 0.0
        work, edges = self._work, self.edges
        for row in self._file.rows():
            if (reason := self._useless(row)) is not None:
                self._file.dropped[reason] += 1
                continue
            tokens = max(1, round(row.input_tokens * work.length_scale))
            if work.max_input_tokens is not None and tokens > work.max_input_tokens:
                self._file.dropped[f"are longer than max_input_tokens {work.max_input_tokens:,}"] += 1
                continue
            begun = (row.at_s or 0.0) if math.isnan(begun) else begun
            at_s = (row.at_s if row.at_s is not None else begun) - begun
            is_early, newest = at_s < newest, max(at_s, newest)
            ids = None if row.blocks is None else row.blocks[: _n_blocks(tokens, edges)]
            made = row.output_tokens
            yield TraceRequest(
                line=row.line,
                at_s=newest,
                input_tokens=tokens,
                output_tokens=None if made is None else max(1, round(made * work.length_scale)),
                blocks=ids,
                shared_tokens=None if ids is None else seen.shared(ids, tokens),
                is_early=is_early,
            )

    def _useless(self, row: TraceRow) -> str | None:
        if self._timed and row.at_s is None:
            return "have no timestamp (turns that follow their session's last, as kind: conversations sends them)"
        if not self._has_outputs and row.output_tokens is None:
            return "have no output length (bench.workload.output_tokens gives one)"
        return None


def _n_blocks(tokens: int, edges: Edges) -> int:
    """How many blocks a prompt of so many tokens has, the last one in part."""
    n = math.ceil(tokens / (edges.block_tokens * edges.scale))
    while n > 0 and edges(n - 1) >= tokens:
        n -= 1
    while edges(n) < tokens:
        n += 1
    return n


def _again(request: TraceRequest, pass_idx: int) -> TraceRequest:
    if pass_idx == 0:
        return request
    return replace(request, pass_idx=pass_idx)
