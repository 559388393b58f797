"""`kvt results`: tables in the format that was asked for, on the screen or in a file."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analyzer.papers.load_tables import KINDS as OF_BENCH
from analyzer.papers.result_tables import KINDS as OF_SWEEP
from analyzer.papers.table_formats import TitledTable, as_csv, as_latex, as_markdown, as_text, joined
from analyzer.stage_answers import Json, StageAnswer
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.files import write_whole

FORMATS = ("table", "csv", "json", "latex", "markdown")
SUFFIXES = {".csv": "csv", ".json": "json", ".tex": "latex", ".md": "markdown", ".txt": "table"}
WHAT = (*OF_SWEEP, *OF_BENCH, "all")
SCHEMA = "kvt.results/1"


@dataclass(frozen=True)
class TableOrder:
    """What is to be written. caption, label: of LaTeX, of the first table where there are several; None: our own."""

    what: str = "all"
    format: str = "table"
    task: str | None = None
    out: Path | None = None
    caption: str | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ConfigError(f"no format {self.format!r}", where="--format", do=f"One of: {', '.join(FORMATS)}.")
        if self.what not in WHAT:
            raise ConfigError(f"no table {self.what!r}", where="--what", do=f"One of: {', '.join(WHAT)}.")
        if self.format != "latex" and (self.caption is not None or self.label is not None):
            raise ConfigError("--caption and --label are LaTeX's", do="Add --format latex, or leave them out.")


@dataclass(frozen=True)
class TablesAnswer(StageAnswer):
    """The tables of a group. `alarms`: what speaks against its numbers."""

    order: TableOrder
    group: str
    generation: int
    tables: list[TitledTable]
    alarms: tuple[str, ...] = ()
    guarded: int = field(init=False)
    text: str = field(init=False)

    def __post_init__(self) -> None:
        text, guarded = _written(self)
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "guarded", guarded)

    @property
    def lines(self) -> list[str]:
        if self.order.out is None:
            return self.text.splitlines()
        n = len({id(table) for table in self.tables})
        lines = [f"{n} {'table' if n == 1 else 'tables'} in {self.order.out}"]
        if self.guarded:
            lines.append(f"{self.guarded} texts that a spreadsheet would take for formulas begin with ' there")
        return lines

    def write(self) -> None:
        """Write the file that was asked for."""
        if self.order.out is not None:
            write_whole(self.order.out, self.text)

    def json(self) -> Json:
        tables = {table.name: [_json_row(row) for row in table.rows] for table in self.tables}
        return {
            "schema": SCHEMA,
            "exp_group_id": self.group,
            "generation": self.generation,
            "alarms": list(self.alarms),
            "tables": tables,
        }


def _written(answer: TablesAnswer) -> tuple[str, int]:
    """(the text, how many of its cells were guarded against spreadsheets)."""
    tables, order = answer.tables, answer.order
    if order.format == "json":
        return json.dumps(answer.json(), indent=1, ensure_ascii=False, allow_nan=False, default=str) + "\n", 0
    if order.format == "csv":
        distinct = {id(table.rows): table for table in reversed(tables)}.values()  # of tables with one set of rows, one
        mark = len(distinct) > 1
        rows = [
            ({"table": t.name} if mark else {}) | _json_row(row) for t in reversed(list(distinct)) for row in t.rows
        ]
        return as_csv(rows)
    if order.format == "latex":
        blocks = [
            as_latex(table, *((order.caption, order.label) if n == 0 else (None, None)))
            for n, table in enumerate(tables)
        ]
        first = ["% needs \\usepackage{booktabs}", *(f"% {' '.join(alarm.split())}" for alarm in answer.alarms)]
        return "\n".join([*first, *joined(blocks)]) + "\n", 0
    make = as_markdown if order.format == "markdown" else as_text
    head = [[alarm] for alarm in answer.alarms]
    return "\n".join(joined([*head, *(make(table) for table in tables)])) + "\n", 0


def _json_row(row: dict[str, Any]) -> dict[str, Any]:
    """Numbers that JSON doesn't have are unknown."""
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()}
