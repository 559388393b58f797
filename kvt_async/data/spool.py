"""A temporary SQLite file between counting and choosing, so that memory stays flat in the number of examples."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from kvt_async.contract.errors import ConfigError
from kvt_async.data.bins import Candidate
from kvt_async.data.manifest import ManifestEntry, example_json
from kvt_async.records import Example

_SCHEMA = """
PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-16000; PRAGMA temp_store=FILE;
CREATE TABLE rows (example_id TEXT PRIMARY KEY, origin TEXT, token_len INTEGER, context_tokens INTEGER,
    original_tokens INTEGER, truncated INTEGER, prompt_sha256 TEXT, context_sha256 TEXT, body BLOB);
"""


@dataclass(frozen=True, slots=True)
class CountedExample:
    """One example as it will be sent, with its lengths in tokens."""

    example: Example
    where: str
    token_len: int
    context_tokens: int
    original_tokens: int
    truncated: bool
    prompt_sha256: str
    context_sha256: str


class Spool:
    """Filled once, then asked. Raises ConfigError on a second example with the same id, naming both places."""

    def __init__(self, path: Path) -> None:
        self._conn = sqlite3.connect(path, isolation_level=None)
        self._conn.executescript(_SCHEMA)
        self._conn.execute("BEGIN")

    def close(self) -> None:
        self._conn.close()

    def add(self, counted: Sequence[CountedExample]) -> None:
        for c in counted:
            body = orjson.dumps(example_json(c.example))
            row = (c.example.example_id, c.where, c.token_len, c.context_tokens, c.original_tokens, int(c.truncated))
            try:
                self._conn.execute(
                    "INSERT INTO rows VALUES (?,?,?,?,?,?,?,?,?)", (*row, c.prompt_sha256, c.context_sha256, body)
                )
            except sqlite3.IntegrityError:
                raise self._duplicate(c) from None

    def group(self) -> dict[int, int]:
        """Join examples to their contexts; returns length of the context's longest prompt -> number of examples."""
        self._conn.executescript(
            "CREATE TABLE contexts (context_sha256 TEXT PRIMARY KEY, longest INTEGER, n INTEGER) WITHOUT ROWID;"
            "INSERT INTO contexts SELECT context_sha256, MAX(token_len), COUNT(*) FROM rows GROUP BY context_sha256;"
        )
        return dict(self._conn.execute("SELECT longest, SUM(n) FROM contexts GROUP BY longest").fetchall())

    def candidates(self, lo: int, hi: int, without: Iterable[str] = ()) -> Iterator[Candidate]:
        """Examples whose context's longest prompt has lo..hi tokens."""
        taken = set(without)
        query = (
            "SELECT example_id, token_len FROM rows JOIN contexts USING (context_sha256) WHERE longest BETWEEN ? AND ?"
        )
        for example_id, token_len in self._conn.execute(query, (lo, hi)):
            if example_id not in taken:
                yield Candidate(example_id, token_len)

    def items(self, chosen: Iterable[tuple[str, int, int]]) -> Iterator[tuple[ManifestEntry, Example]]:
        """(example_id, bin_idx, version) -> entry and example, in that order."""
        query = (
            "SELECT token_len, context_tokens, original_tokens, truncated, prompt_sha256, context_sha256, body "
            "FROM rows WHERE example_id = ?"
        )
        for example_id, bin_idx, version in chosen:
            token_len, own, original, cut, prompt, context, body = self._conn.execute(query, (example_id,)).fetchone()
            record = orjson.loads(body)
            answers = tuple(record["answers"])
            example = Example(example_id, record["question"], record["context"], answers, record["meta"])
            yield ManifestEntry(example_id, bin_idx, token_len, own, original, cut, prompt, context, version), example

    def _duplicate(self, counted: CountedExample) -> ConfigError:
        example_id = counted.example.example_id
        (first,) = self._conn.execute("SELECT origin FROM rows WHERE example_id = ?", (example_id,)).fetchone()
        return ConfigError(
            f"the example_id {example_id!r} was already used at {first}",
            where=counted.where,
            do="Give each line its own example_id; without one, two lines of equal content have the same id.",
        )
