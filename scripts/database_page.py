"""The tables and views in docs/DATABASE.md, written from kvt_async/contract/schema.sql, whose comments they are.

    python scripts/database_page.py [--check]

`--check` writes nothing and exits with 1 where the page is not true. What stands outside of the two marks is kept.
"""

import re
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from kvt_async.contract.schema_tables import DERIVED_TABLES, FACT_TABLES, SINCE, schema_sql  # noqa: E402 - the root is on it now

PAGE = ROOT / "docs/DATABASE.md"
BEGIN, END = "<!-- tables: scripts/database_page.py writes what follows -->\n", "<!-- tables end -->\n"
_TABLE = re.compile(r"^CREATE TABLE IF NOT EXISTS (\w+) \( +-- ([^\n]*)\n(.*?)^\) STRICT;$", re.M | re.S)
_VIEW = re.compile(r"^CREATE VIEW IF NOT EXISTS (\w+) AS +-- ([^\n]*)\n.*?;$\n((?:--[^\n]*\n)*)", re.M | re.S)
_LISTED = re.compile(r"^--   ([^\s,]+(?:, [^\s,]+)*) +(\S.*)$", re.M)
_COLUMN = re.compile(r'^    "?(\w+)"? +(?:TEXT|INTEGER|REAL|BLOB)\b[^\n]*?(?:-- ([^\n]*))?$')


@dataclass(frozen=True)
class Part:
    """A table or view: its name, what the schema says of it, and of each column; `below`: the lines after a view."""

    name: str
    is_view: bool
    says: str
    columns: dict[str, str]
    below: str


def page() -> str:
    """The page as it should be. ValueError: it has lost its marks."""
    before, begin, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} has lost its marks")
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


def tables() -> str:
    """Facts, views and derived tables, each with its columns."""
    parts = parts_of(schema_sql())
    with closing(sqlite3.connect(":memory:")) as conn:
        conn.executescript(schema_sql())
        said = {name: text for part in parts.values() for name, text in part.columns.items() if text}
        titles = {
            "Facts": [parts[name] for name in FACT_TABLES],
            "Views": [part for part in parts.values() if part.is_view],
            "Derived tables": [parts[name] for name in DERIVED_TABLES],
        }
        return "\n".join(
            line
            for title, chosen in titles.items()
            for line in (f"## {title}", "", *(line for part in chosen for line in section(conn, part, said)))
        )


def parts_of(schema: str) -> dict[str, Part]:
    """Every table and view of the schema, by name."""
    tables = [Part(name, False, says, columns_in(body), "") for name, says, body in _TABLE.findall(schema)]
    views = [
        Part(name, True, says, dict(_LISTED.findall(below)), text_of(_LISTED.sub("", below)))
        for name, says, below in _VIEW.findall(schema)
    ]
    return {part.name: part for part in [*tables, *views]}


def columns_in(body: str) -> dict[str, str]:
    """Name -> comment of a table's columns; a comment goes on in lines of its own."""
    columns: dict[str, str] = {}
    for line in body.splitlines():
        if column := _COLUMN.match(line):
            name = column[1]
            columns[name] = column[2] or ""
        elif (more := line.strip()).startswith("--") and columns:
            columns[name] += f" {more[2:].strip()}"
    return columns


def text_of(comment: str) -> str:
    return " ".join(comment.replace("--", " ").split())


def everywhere(schema: str) -> dict[str, str]:
    """What the head of the schema says of columns of many tables: pattern -> text."""
    listed = _LISTED.findall(schema.partition("CREATE TABLE")[0])
    told = {pattern: text for names, text in listed for pattern in names.split(", ")}
    return told | {"*_at": "time of day", "*_ns": "monotonic nanoseconds", "*_s": "seconds", "*_json": "JSON"}


def section(conn: sqlite3.Connection, part: Part, said: dict[str, str]) -> list[str]:
    """A table or view, as Markdown."""
    info = conn.execute(f"PRAGMA table_info({part.name})").fetchall()
    key = ", ".join(f"`{row[1]}`" for row in sorted(info, key=lambda row: row[5]) if row[5])
    first = part.says if part.says.startswith("docs/") else part.says[:1].upper() + part.says[1:]
    lines = [f"### {part.name}", "", f"{first}.{since(part.name)}", ""]
    if part.below:
        lines += [part.below, ""]
    if key:
        parents = sorted({row[2] for row in conn.execute(f"PRAGMA foreign_key_list({part.name})")})
        refers = f" Refers to {', '.join(f'[{name}](#{name})' for name in parents)}." if parents else ""
        lines += [f"Key: {key}.{refers}", ""]
    lines += ["| column | what |", "|---|---|"] if part.is_view else ["| column | type | what |", "|---|---|---|"]
    for row in info:
        text = part.columns.get(row[1]) or of_all(row[1]) or said.get(row[1], "")
        cells = [f"`{row[1]}`", *([] if part.is_view else [type_of(row)]), text.replace("|", "\\|")]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def type_of(column: tuple[object, ...]) -> str:
    """Its type, and whether it may be NULL, from a row of PRAGMA table_info."""
    _, _, kind, not_null, _, in_key = column
    return f"{kind} NULL" if not (not_null or in_key) else str(kind)


def since(table: str) -> str:
    return f" Since schema version {SINCE[table]}." if table in SINCE else ""


def of_all(name: str) -> str:
    """What is said of a column of this name once for all tables."""
    return next((text for pattern, text in everywhere(schema_sql()).items() if fnmatch(name, pattern)), "")


def main() -> int:
    text = page()
    is_true = PAGE.read_text("utf-8") == text
    if "--check" in sys.argv[1:]:
        if not is_true:
            print(f"{PAGE.relative_to(ROOT)} shows another schema than there is. Run: python scripts/database_page.py")
        return 0 if is_true else 1
    if not is_true:
        PAGE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
