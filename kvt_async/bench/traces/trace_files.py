"""The formats of trace files, read row by row: a file of any size, plain or gzipped, in flat memory.

    mooncake   JSONL: timestamp (ms), input_length, output_length, hash_ids of blocks of 512 tokens
    bailian    JSONL: chat_id, parent_chat_id, timestamp (s), input_length, output_length, hash_ids of blocks of 16
    azure      CSV: TIMESTAMP (date and time), ContextTokens, GeneratedTokens
    burstgpt   CSV: Timestamp (s), Model, Request tokens, Response tokens, Total tokens, Log Type
    csv        CSV: timestamp (s, or date and time), input, output; with or without a header

Sources: kvcache-ai/Mooncake, alibaba-edu/qwen-bailian-usagetraces-anon, Azure/AzurePublicDataset, HPMLL/BurstGPT.
"""

import csv
import gzip
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, cast

import orjson

from kvt_async.bench.traces.trace_rows import TraceRow, Unusable, blocks, length, seconds
from kvt_async.contract.errors import ConfigError

WHERE = "bench.workload.path"
MOST_LINE_BYTES = 64 << 20
FORMATS = ("mooncake", "azure", "burstgpt", "bailian", "csv")
BLOCK_TOKENS = {"mooncake": 512, "bailian": 16}
_BOM = b"\xef\xbb\xbf"
_TEXTS = ("text_input", "messages", "payload", "prompt")  # of other tools: a row that brings its own text
_KEYS = ("timestamp", "input_length", "output_length", "hash_ids")
_TIMES = ("timestamp", "time", "arrival_time", "arrived_at", "timestamp_s")
_INPUTS = ("input", "input_tokens", "input_length", "prompt_tokens", "contexttokens", "request tokens")
_OUTPUTS = ("output", "output_tokens", "output_length", "completion_tokens", "generatedtokens", "response tokens")
_COLUMNS = {  # what the header must name; of the others any of the names above will do
    "azure": ("timestamp", "contexttokens", "generatedtokens"),
    "burstgpt": ("timestamp", "request tokens", "response tokens"),
}


@dataclass(slots=True)
class TraceFile:
    """Rows of a file in its order; `dropped` counts those that are no request, by reason, as far as they were read."""

    path: Path
    format: str = "auto"
    dropped: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Raises ConfigError for a file that isn't there, or whose head is of no known format."""
        if not self.path.is_file():
            raise ConfigError(f"there is no file {str(self.path)!r}", where=WHERE, do="Give a trace: .jsonl or .csv.")
        if self.format == "auto":
            self.format = _recognised(self.path)

    def rows(self) -> Iterator[TraceRow]:
        """Every row that is a request. Raises ConfigError that names file and line for one that can't be read."""
        self.dropped.clear()
        read = self._json_rows if self.format in BLOCK_TOKENS else self._csv_rows
        try:
            yield from read()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ConfigError(
                f"this gzip file is damaged: {error}", where=str(self.path), do="Copy it again."
            ) from None
        except UnicodeDecodeError:
            raise ConfigError("this file is no UTF-8 text", where=str(self.path), do="Save it as UTF-8.") from None

    def _json_rows(self) -> Iterator[TraceRow]:
        unit = 1e-3 if self.format == "mooncake" else 1.0
        with _opened(self.path) as file:
            number = 0
            while line := file.readline(MOST_LINE_BYTES + 1):
                number += 1
                text = line.removeprefix(_BOM) if number == 1 else line
                if not text.strip():
                    continue
                where = f"{self.path}:{number}"
                row = _json(text, where)
                try:
                    yield _of_json(row, number, where, unit)
                except Unusable as reason:
                    self.dropped[str(reason)] += 1

    def _csv_rows(self) -> Iterator[TraceRow]:
        with _opened(self.path) as raw, TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
            lines = csv.reader(text)
            columns: Sequence[int] | None = None
            try:
                for cells in lines:
                    where = f"{self.path}:{lines.line_num}"
                    if not any(cell.strip() for cell in cells):
                        continue
                    if columns is None:
                        columns, is_header = _columns(cells, self.format, where)
                        if is_header:
                            continue
                    try:
                        yield _of_cells(cells, columns, lines.line_num, where)
                    except Unusable as reason:
                        self.dropped[str(reason)] += 1
            except csv.Error as error:
                raise ConfigError(
                    f"not CSV: {error}", where=f"{self.path}:{lines.line_num}", do="Correct it."
                ) from None


def _opened(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path, "rb")) if packed else path.open("rb")


def _recognised(path: Path) -> str:
    """The format of a file by its first line. Raises ConfigError where it is none that we know."""
    try:
        with _opened(path) as file:
            head = b""
            while line := file.readline(MOST_LINE_BYTES):
                head = line.removeprefix(_BOM).strip()
                if head:
                    break
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ConfigError(f"this gzip file is damaged: {error}", where=str(path), do="Copy it again.") from None
    if not head:
        raise ConfigError("this trace is empty", where=str(path), do="Give a file with a request a line.")
    if head.startswith(b"{"):
        row = _json(head, f"{path}:1")
        return "bailian" if isinstance(row, dict) and "parent_chat_id" in row else "mooncake"
    if head.startswith(b"["):
        raise ConfigError("this is a JSON array", where=str(path), do="Write one JSON object a line (jq -c '.[]').")
    cells = [cell.strip().lower() for cell in next(csv.reader([head.decode("utf-8", "replace")]), [])]
    for name, columns in _COLUMNS.items():
        if all(column in cells for column in columns):
            return name
    _columns(cells, "csv", f"{path}:1")
    return "csv"


def _json(text: bytes, where: str) -> Any:
    if len(text) > MOST_LINE_BYTES:
        raise ConfigError(f"this line is longer than {MOST_LINE_BYTES >> 20} MiB", where=where, do="One row a line.")
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"not JSON: {error.msg}", where=where, do="One JSON object a line.") from None


def _of_json(row: Any, number: int, where: str, unit: float) -> TraceRow:
    if not isinstance(row, dict):
        raise ConfigError(
            "this line is no JSON object", where=where, do='Write {"timestamp": 0, "input_length": 100, ...}.'
        )
    if not any(key in row for key in (*_KEYS, *_TEXTS, "session_id", "delay")):
        raise ConfigError(f"this line has none of {', '.join(_KEYS)}", where=where, do="Is this file a trace?")
    if row.get("input_length") is None:
        if any(key in row for key in _TEXTS):
            raise Unusable("bring their own text and no input_length (kind: jsonl and conversations send text)")
        raise Unusable("have no input_length")
    output = row.get("output_length")
    return _checked(
        TraceRow(
            number,
            seconds(row.get("timestamp"), "timestamp", where, unit),
            length(row["input_length"], "input_length", where),
            None if output is None else length(output, "output_length", where),
            blocks(row.get("hash_ids"), where),
        )
    )


def _columns(cells: Sequence[str], form: str, where: str) -> tuple[Sequence[int], bool]:
    """(Where timestamp, input and output stand, whether this line is a header). Raises ConfigError."""
    names = [cell.strip().lower() for cell in cells]
    at = [next((names.index(name) for name in known if name in names), None) for known in (_TIMES, _INPUTS, _OUTPUTS)]
    whole = [index for index in at if index is not None]
    if len(whole) == len(at):
        return whole, True
    if not whole and len(cells) == len(at) and form == "csv" and all(name[:1].isdigit() for name in names):
        return range(len(at)), False
    raise ConfigError(
        f"no columns of a trace are found in the header: {', '.join(cells[:8])}",
        where=where,
        do="Name them timestamp,input,output, or give bench.workload.format: " + ", ".join(FORMATS) + ".",
    )


def _of_cells(cells: Sequence[str], columns: Sequence[int], number: int, where: str) -> TraceRow:
    if len(cells) <= max(columns):
        raise ConfigError(f"this row has {len(cells)} fields, fewer than the header", where=where, do="Complete it.")
    at, given, made = (cells[index].strip() for index in columns)
    if not given:
        raise Unusable("have no input length")
    return _checked(
        TraceRow(
            number,
            seconds(at, "timestamp", where),
            length(given, "input", where),
            length(made, "output", where) if made else None,
        )
    )


def _checked(row: TraceRow) -> TraceRow:
    if row.input_tokens == 0:
        raise Unusable("have a prompt of 0 tokens")
    if row.output_tokens == 0:
        raise Unusable("have a reply of 0 tokens (they failed when they were recorded)")
    return row
