"""manifest.json: the portable, complete record of what will be sent. Written once, streamed both ways.

One JSON object, one key a line; `entries` and `examples` hold one item a line, in the same order, so both are read and
written line by line in flat memory. The last key, `sha256`, is the SHA-256 of every byte before its line:

    head -n -2 manifest.json | sha256sum

There is no date in it: the same data, tokenizer and config give the same bytes.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from kvt_async.contract.errors import GuardError, MissingPrerequisiteError
from kvt_async.contract.files import hold_scratch
from kvt_async.records import Example

FORMAT = "kvt-manifest-1"
_ENTRIES, _EXAMPLES, _CLOSE, _SHA = b'"entries": [', b'"examples": [', b"],", b'"sha256": '


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One example at its place; fields as in `manifest_entries` (seq is the place in the list)."""

    example_id: str
    bin_idx: int
    token_len: int
    context_tokens: int
    original_tokens: int
    prompt_truncated: int
    prompt_sha256: str
    context_sha256: str  # of the context before any cut
    version: int = 1


@dataclass(frozen=True, slots=True)
class ManifestHead:
    """Everything in a manifest but its entries and examples. Keys of the file, in this order."""

    dataset_id: str
    name: str
    task: str
    source_revision: str
    metric: str
    tokenizer_name: str
    tokenizer_sha256: str
    prompt: dict[str, Any]
    selection: dict[str, Any]
    n_bins: int
    n_per_bin: int
    bin_edges: list[int]
    bins: list[dict[str, int]]  # bin_idx, lo_tokens, hi_tokens, n (entries), n_available (examples in the source); of
    # data with conversations also `conversations` that were taken and `conversations_available`; a plain row is one
    n_source: int  # examples in the source
    n_entries: int
    version: int = 1
    earlier: list[dict[str, Any]] = field(default_factory=list)  # version, n_entries, sha256 of each version before
    format: str = FORMAT
    sha256: str = ""  # of the file; not among its other keys


def write_manifest(path: Path, head: ManifestHead, items: Iterable[tuple[ManifestEntry, Example]]) -> str:
    """Write atomically and return the sha256. `items` is streamed once; examples wait in a file beside.

    Two runs at once can't mix: each writes its own temporary files, and the last rename wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    whole, later = (path.with_name(f".{path.name}.{os.getpid()}.{part}") for part in ("new", "examples"))
    digest = hashlib.sha256()
    try:
        with whole.open("wb") as out, later.open("w+b") as examples:
            for file in (out, examples):
                hold_scratch(file.fileno())

            def put(data: bytes) -> None:
                digest.update(data)
                out.write(data)

            put(b"{\n")
            for key, value in _head_json(head).items():
                put(b'"%s": %s,\n' % (key.encode(), orjson.dumps(value)))
            put(_ENTRIES)
            for idx, (entry, example) in enumerate(items):
                put((b",\n" if idx else b"\n") + orjson.dumps(entry))
                examples.write((b",\n" if idx else b"\n") + orjson.dumps(example_json(example)))
            put(b"\n" + _CLOSE + b"\n" + _EXAMPLES)
            examples.seek(0)
            while block := examples.read(1 << 20):
                put(block)
            put(b"\n" + _CLOSE + b"\n")
            out.write(_SHA + orjson.dumps(digest.hexdigest()) + b"\n}\n")
            out.flush()
            os.fsync(out.fileno())
        whole.replace(path)
    finally:
        whole.unlink(missing_ok=True)
        later.unlink(missing_ok=True)
    return digest.hexdigest()


def read_head(path: Path, *, verify: bool = True) -> ManifestHead:
    """Read the head and, with `verify`, hash the whole file (streamed).

    Raises MissingPrerequisiteError where there is none, GuardError where it was edited, cut short or is another format.
    """
    try:
        with path.open("rb") as file:
            keys = _head_keys(file, path)
        sha256 = _stored_sha256(path)
        if verify and sha256 != _actual_sha256(path):
            raise _damaged(path, "its content does not match its sha256")
    except FileNotFoundError:
        raise MissingPrerequisiteError(
            "this dataset is not prepared", where=str(path), do="Run `kvt prepare -c CONFIG` first."
        ) from None
    try:
        return ManifestHead(**keys, sha256=sha256)
    except TypeError:
        raise _damaged(path, "keys are missing or unknown") from None


def read_entries(path: Path) -> Iterator[ManifestEntry]:
    """Stream entries without their examples. Trusts the file: read_head verifies it."""
    with path.open("rb") as entries:
        for line in _block(entries, _ENTRIES):
            yield ManifestEntry(**orjson.loads(line))


def read_items(path: Path) -> Iterator[tuple[ManifestEntry, Example]]:
    """Stream entries with their examples, in manifest order. Trusts the file: read_head verifies it."""
    with path.open("rb") as entries, path.open("rb") as examples:
        for line, text in zip(_block(entries, _ENTRIES), _block(examples, _EXAMPLES), strict=True):
            record = orjson.loads(text)
            answers = tuple(record["answers"])
            example = Example(record["example_id"], record["question"], record["context"], answers, record["meta"])
            yield ManifestEntry(**orjson.loads(line)), example


def example_json(example: Example) -> dict[str, Any]:
    return {
        "example_id": example.example_id,
        "question": example.question,
        "context": example.context,
        "answers": list(example.answers),
        "meta": example.meta,
    }


def _head_json(head: ManifestHead) -> dict[str, Any]:
    keys = asdict(head)
    del keys["sha256"]
    return {"format": keys.pop("format"), **keys}


def _head_keys(file: BinaryIO, path: Path) -> dict[str, Any]:
    parts = []
    for line in file:
        if line.rstrip() == _ENTRIES:
            break
        parts.append(line)
    try:
        keys = orjson.loads(b"".join(parts).rstrip().removesuffix(b",") + b"}")
    except orjson.JSONDecodeError:
        raise _damaged(path, "it can't be read as written by kvt") from None
    if keys.get("format") != FORMAT:
        raise _damaged(path, f"its format is {keys.get('format')!r}, this kvt reads {FORMAT!r}")
    return dict(keys)


def _block(file: BinaryIO, opening: bytes) -> Iterator[bytes]:
    lines = iter(file)
    for line in lines:
        if line.rstrip() == opening:
            break
    for line in lines:
        if line.rstrip() == _CLOSE:
            return
        yield line.rstrip(b"\n").removesuffix(b",")


def _stored_sha256(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 200))
        last = file.read().rpartition(_SHA)[2]
    return last.strip(b'"}\n ').decode("ascii", "replace")


def _actual_sha256(path: Path) -> str:
    """The SHA-256 of every byte before the last line that opens with the sha256 key."""
    tail = len(_SHA) + 64 + 2 + len(b"\n}\n")
    left, digest = path.stat().st_size - tail, hashlib.sha256()
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def _damaged(path: Path, why: str) -> GuardError:
    return GuardError(
        f"this manifest was changed or cut short: {why}",
        where=str(path),
        do="Restore it, or move it away and run `kvt prepare` again.",
    )
