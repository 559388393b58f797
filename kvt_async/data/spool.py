"""A temporary SQLite file between counting and choosing, so that memory stays flat in the number of examples."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.conversation import turn_of
from kvt_async.data.bins import Candidate
from kvt_async.data.manifest import ManifestEntry, example_json
from kvt_async.records import Example

_SCHEMA = """
PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-16000; PRAGMA temp_store=FILE;
CREATE TABLE rows (example_id TEXT PRIMARY KEY, origin TEXT, token_len INTEGER, context_tokens INTEGER,
    original_tokens INTEGER, truncated INTEGER, prompt_sha256 TEXT, context_sha256 TEXT, conversation TEXT,
    opens INTEGER, body BLOB);  -- what lies behind a long body is read through all of its pages
CREATE TABLE conversations (conversation TEXT PRIMARY KEY, origin TEXT) WITHOUT ROWID;
"""
_INSERT = {
    "rows": "INSERT INTO rows VALUES (?,?,?,?,?,?,?,?,?,?,?)",
    "conversations": "INSERT INTO conversations VALUES (?,?)",
}


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


@dataclass(frozen=True, slots=True)
class CountsByLength:
    """How many there are of each length, that of the longest prompt of their context. `units` are what is chosen as
    one: a conversation, or an example that is no turn of any."""

    units: dict[int, int]
    examples: dict[int, int]


class Spool:
    """Filled once, then asked. Raises ConfigError on a second example or conversation with the same id, naming both
    places. `n_conversations`: how many there are."""

    def __init__(self, path: Path) -> None:
        self.n_conversations = 0
        self._open: str | None = None  # the conversation whose turns are coming
        self._conn = sqlite3.connect(path, isolation_level=None)
        self._conn.executescript(_SCHEMA)
        self._conn.execute("BEGIN")

    def close(self) -> None:
        self._conn.close()

    def add(self, counted: Sequence[CountedExample]) -> None:
        for c in counted:
            body = orjson.dumps(example_json(c.example))
            row = (c.example.example_id, c.where, c.token_len, c.context_tokens, c.original_tokens, int(c.truncated))
            turn = turn_of(c.example.meta)
            conversation = None if turn is None else turn.conversation
            opens = conversation is None or conversation != self._open
            self._open = conversation
            if conversation is not None and opens:
                self._insert("conversations", conversation, c.where)
                self.n_conversations += 1
            hashes = (c.prompt_sha256, c.context_sha256)
            self._insert("rows", *row, *hashes, conversation, int(opens), body)

    def group(self) -> CountsByLength:
        """Join examples to their contexts, and turns to their conversations."""
        self._conn.executescript(
            "CREATE TABLE contexts (context_sha256 TEXT PRIMARY KEY, longest INTEGER, n INTEGER, units INTEGER)"
            " WITHOUT ROWID;"
            "INSERT INTO contexts SELECT context_sha256, MAX(token_len), COUNT(*), SUM(opens) FROM rows"
            " GROUP BY context_sha256;"
            "CREATE INDEX turns ON rows (conversation) WHERE conversation IS NOT NULL;"
        )
        namesake = self._conn.execute(
            "SELECT c.conversation, c.origin, r.origin FROM conversations c"
            " JOIN rows r ON r.example_id = c.conversation WHERE r.conversation IS NOT c.conversation LIMIT 1"
        ).fetchone()
        if namesake is not None:
            raise _used_twice("conversation", *namesake)
        both = self._conn.execute("SELECT longest, SUM(units), SUM(n) FROM contexts GROUP BY longest").fetchall()
        return CountsByLength({row[0]: row[1] for row in both}, {row[0]: row[2] for row in both})

    def candidates(self, lo: int, hi: int, without: Iterable[str] = ()) -> Iterator[Candidate]:
        """Examples whose context's longest prompt has lo..hi tokens; of a conversation one for all its turns, by its
        own longest prompt."""
        taken = set(without)
        of_context = "FROM rows JOIN contexts USING (context_sha256) WHERE longest BETWEEN ? AND ? AND conversation IS"
        queries = [f"SELECT example_id, token_len {of_context} NULL"]
        if self.n_conversations:
            queries.append(f"SELECT conversation, MAX(token_len) {of_context} NOT NULL GROUP BY conversation")
        for query in queries:
            for unit, token_len in self._conn.execute(query, (lo, hi)):
                if unit not in taken:
                    yield Candidate(unit, token_len)

    def examples_of(self, unit: Candidate) -> list[Candidate]:
        """The turns of a conversation in their order, each with its own length; an example that is none by itself."""
        if not self.n_conversations:
            return [unit]
        query = "SELECT example_id, token_len FROM rows WHERE conversation = ? ORDER BY rowid"
        return [Candidate(*row) for row in self._conn.execute(query, (unit.example_id,))] or [unit]

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

    def _insert(self, table: str, *values: object) -> None:
        """A row; the first two values are its name and where it came from."""
        try:
            self._conn.execute(_INSERT[table], values)
        except sqlite3.IntegrityError:
            name, origin = map(str, values[:2])
            column = {"rows": "example_id", "conversations": "conversation"}[table]
            query = f"SELECT origin FROM {table} WHERE {column} = ?"
            raise _used_twice(column, name, self._conn.execute(query, (name,)).fetchone()[0], origin) from None


def _used_twice(kind: str, name: str, first: str, again: str) -> ConfigError:
    return ConfigError(
        f"the {kind} {name!r} was already used at {first}",
        where=again,
        do="Give each line its own example_id; without one, two lines of equal content have the same id.",
    )
