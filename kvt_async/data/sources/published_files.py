"""Files that a data set is published as: found in `dataset.path`, else fetched from the hub at a pinned revision, and
read record by record, whatever their size: JSON lines, a JSON list, Parquet, CSV.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.paths import data_path, raw_dir
from kvt_async.contract.settings import Settings
from kvt_async.data.sources.hub import fetch
from kvt_async.data.sources.json_rows import BOM, MAX_LINE_MB, bounded_lines, json_object
from kvt_async.data.sources.source import file_sha256, unreadable

BLOCK = 1 << 20
PARQUET_BYTES, PARQUET_ROWS = 8 << 20, 1024  # held at once: about so many bytes of rows, and no more than so many rows
SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")
_MARK = re.compile(rb'["{}\[\]]')
_REST_OF_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+"', re.DOTALL)
_BETWEEN = b" \t\r\n,"


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """One file of a data set on the hub: `path` in the data set `repo` at `revision` (40 hex digits).

    `names`: what it may be called in a local folder, beside its path and the last part of it.
    """

    repo: str
    revision: str
    path: str
    names: tuple[str, ...] = ()

    @property
    def advice(self) -> str:
        """What to do where the file is missing. A name in a subfolder is left out where it may stand at the top too."""
        places = (self.path, Path(self.path).name, *self.names)
        others = [
            name
            for name in self.names
            if name not in places[:2] and not any(name.endswith(f"/{shorter}") for shorter in places)
        ]
        also = f" (there also as {', '.join(others)})" if others else ""
        return f"Set dataset.path to a copy of {self.path} from {self.repo}, or to a folder that holds it{also}."

    def local(self, path: Path) -> Path | None:
        """The file itself where `path` is one; in a folder, the file of this path or of one of its names."""
        if not path.is_dir():
            return path if path.is_file() else None
        places = (path / name for name in (self.path, Path(self.path).name, *self.names))
        return next((place for place in places if place.is_file()), None)


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """A file at hand. `pin`: the hub's revision, where it came from there, and its SHA-256."""

    path: Path
    pin: str
    max_line_mb: float = MAX_LINE_MB

    def records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(where, record) of each record, `where` being file:line or file:row. Raises ConfigError naming the place."""
        return records(self.path, self.max_line_mb)


def open_file(file: PublishedFile, settings: Settings) -> OpenedFile:
    """From `dataset.path` where the config names one, else from output.data_dir/raw or the hub.

    Raises ConfigError where the path holds no such file, ServerError where the hub can't be reached.
    """
    dataset, longest = settings.dataset, settings.dataset.params.get("max_line_mb", MAX_LINE_MB)
    if dataset.path is not None:
        given = data_path(dataset.path)
        path, pinned = file.local(given), ""
        if path is None:
            what = "there is no such file or folder"
            if given.exists():
                what = f"it holds no {file.path}" if given.is_dir() else f"beside it lies no {file.path}"
            raise ConfigError(what, where=str(given), do=file.advice)
    else:
        revision = dataset.revision or file.revision
        folder = raw_dir(settings.output.data_dir, file.repo.replace("/", "--")) / revision
        path, pinned = folder / file.path, f"{revision} "
        if not path.is_file():
            path = fetch(file.repo, file.path, revision, folder, file.advice)
    try:
        return OpenedFile(path, f"{pinned}sha256:{file_sha256(path)}", longest)
    except OSError as error:
        raise unreadable(path, error) from None


def records(path: Path, max_line_mb: float = MAX_LINE_MB) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, record) of each record of a file, one after the other. Raises ConfigError naming file and place."""
    match path.suffix:
        case ".parquet":
            yield from _of_parquet(path)
        case ".csv":
            yield from _of_csv(path, max_line_mb)
        case ".json" | ".jsonl":
            with path.open("rb") as file:
                is_list = file.read(BLOCK).removeprefix(BOM).lstrip()[:1] == b"["
                file.seek(0)
                items = list_items(file, str(path), max_line_mb) if is_list else None
                for where, text in items or bounded_lines(file, str(path), max_line_mb):
                    yield where, json_object(text, where, "Each record is one JSON object.")
        case _:
            raise ConfigError(
                f"files that end in {path.suffix or 'nothing'} are not read",
                where=str(path),
                do=f"Known: {', '.join(SUFFIXES)}.",
            )


def list_items(file: IO[bytes], name: str, max_mb: float) -> Iterator[tuple[str, bytes]]:
    """(file:item, text) of the objects of one JSON list; a longer one than the limit is never held.

    Raises ConfigError for an item that is no object or too long, and for a list that does not end.
    """
    data, most, number = bytearray(file.read(BLOCK)), int(max_mb * 1_000_000), 0
    del data[: data.index(b"[") + 1]
    while True:
        while not (rest := data.lstrip(_BETWEEN)):
            data = bytearray(_more(file, name, number))
        data = rest
        if data[:1] == b"]":
            if data[1:].strip() or any(block.strip() for block in iter(lambda: file.read(BLOCK), b"")):
                raise ConfigError(
                    "something follows the list", where=f"{name}:item {number}", do="The file is one list of objects."
                )
            return
        number += 1
        where = f"{name}:item {number}"
        if data[:1] != b"{":
            raise ConfigError("an item of the list is no JSON object", where=where, do="It is a list of objects.")
        while (end := _end_of_item(data)) is None:
            if len(data) > most:
                raise ConfigError(
                    f"this item is longer than {max_mb:g} MB",
                    where=where,
                    do="Raise dataset.params.max_line_mb: an example takes about five times its size in memory.",
                )
            data += _more(file, name, number, len(data))
        yield where, bytes(data[:end])
        del data[:end]


def _more(file: IO[bytes], name: str, number: int, least: int = 0) -> bytes:
    """The next block; longer the longer the item is, so that looking for its end again stays cheap."""
    if not (block := file.read(max(BLOCK, least))):
        raise ConfigError("the list does not end", where=f"{name}:item {number}", do="The file is cut: get it again.")
    return block


def _end_of_item(data: bytearray) -> int | None:
    """Behind the bracket that closes the object at the start of `data`; None: it closes later."""
    depth, pos = 0, 0
    while (mark := _MARK.search(data, pos)) is not None:
        pos = mark.end()
        match mark.group():
            case b'"':
                if (string := _REST_OF_STRING.match(data, pos)) is None:
                    return None
                pos = string.end()
            case b"{" | b"[":
                depth += 1
            case _:
                depth -= 1
                if depth == 0:
                    return pos
    return None


def _of_parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    row = 0
    try:
        # not a whole row group beforehand: one may hold all rows; what must be held is the largest page
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=BLOCK) as file:
            each = sum(file.metadata.row_group(n).total_byte_size for n in range(file.num_row_groups)) // max(
                1, file.metadata.num_rows
            )
            n_rows = min(max(1, PARQUET_BYTES // max(1, each)), PARQUET_ROWS)
            for batch in file.iter_batches(batch_size=n_rows, use_threads=False):
                for record in batch.to_pylist():
                    row += 1
                    yield f"{path}:row {row}", {name: _as_json(value) for name, value in record.items()}
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, OSError) as error:
        raise unreadable(path, error) from None


def _as_json(value: Any) -> Any:
    """A value of a table as JSON can hold it: decimals and spans of time as text, bytes as the text they are in UTF-8,
    null where they are none. Dates are written by whoever writes the JSON."""
    match value:
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                return None
        case Decimal() | timedelta():
            return str(value)
        case dict():
            return {str(name): _as_json(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_as_json(inner) for inner in value]
    return value


def _of_csv(path: Path, max_line_mb: float) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(int(max_line_mb * 1_000_000))
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            names = list(reader.fieldnames or ())
            if twice := [name for name in names if names.count(name) > 1]:
                raise ConfigError(f"two columns are called {twice[0]!r}", where=str(path), do="Rename or remove one.")
            for record in reader:
                where = f"{path}:{reader.line_num}"
                if None in record or None in record.values():
                    raise ConfigError("this row has another number of fields than the first line", where=where)
                yield where, dict(record)
    except (csv.Error, UnicodeDecodeError) as error:
        raise unreadable(path, error) from None
