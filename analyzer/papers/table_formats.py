"""Tables as text: for a terminal, Markdown, LaTeX (booktabs), CSV. Every text in them may come from outside. Pure."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analyzer.results.text_table import Table
from kvt_async.contract.visible import visible

GAP = "  "
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after the end of a row a bracket would be its skip
    "]": "{]}",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "→": r"$\rightarrow$",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "“": "``",
    "”": "''",
    "’": "'",
    "\u00a0": "~",
    "\u2011": "-",
}
_PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class TitledTable:
    """A table under its name and title, for people; `rows`: the values behind it, for programs."""

    name: str
    title: str
    table: Table
    rows: list[dict[str, Any]]


def as_text(titled: TitledTable) -> list[str]:
    """Aligned columns under the title: text to the left, figures to the right."""
    table = titled.table
    cells = [[visible(cell) for cell in row] for row in (table.head, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        GAP.join(
            cell.ljust(width) if at < table.text_columns else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    rule = GAP.join("-" * width for width in widths)
    note = [f"({visible(table.note)})"] if table.note else []
    return [titled.title, "", lines[0], rule, *lines[1:], *note]


def as_markdown(titled: TitledTable) -> list[str]:
    """A table of GitHub's Markdown under a heading."""
    table = titled.table
    marks = ["---" if at < table.text_columns else "---:" for at in range(len(table.head))]
    rows = [_markdown_row(table.head), f"| {' | '.join(marks)} |", *map(_markdown_row, table.rows)]
    return [f"### {_in_markdown(titled.title)}", "", *rows, *(["", _in_markdown(table.note)] if table.note else [])]


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_in_markdown, cells))} |"


def _in_markdown(text: str) -> str:
    """A text that is a cell's and nothing else: no tag, link, code, emphasis or cell's end of its own."""
    line = " ".join(visible(text).split())
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", line).replace("&", "&amp;").replace("<", "&lt;")


def as_latex(titled: TitledTable, caption: str | None = None, label: str | None = None) -> list[str]:
    """A tabular with the rules of booktabs, within a table float; the note stands below it in small print.

    `caption` is LaTeX of the author's own, as is `label`; without a caption the title is it."""
    table = titled.table
    columns = "l" * table.text_columns + "r" * (len(table.head) - table.text_columns)
    head = [_latex_row(table.head), r"\midrule"]
    note = [rf"\par\smallskip\footnotesize {in_latex(table.note)}"] if table.note else []
    return [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{in_latex(titled.title) if caption is None else caption}}}",
        rf"\label{{{label if label is not None else f'tab:{titled.name}'}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        *head,
        *map(_latex_row, table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        *note,
        r"\end{table}",
    ]


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(in_latex, cells)) + r" \\"


def in_latex(text: str) -> str:
    """A text that LaTeX sets as it is, whatever it holds."""
    return "".join(_LATEX.get(char, char) for char in " ".join(visible(text).split()))


def as_csv(rows: Sequence[Mapping[str, Any]]) -> tuple[str, int]:
    """(CSV with a head of all names that any row has, how many texts were guarded). An unknown value is an empty cell.

    A text that a spreadsheet would take for a formula begins with an apostrophe there."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    out, guarded = io.StringIO(), 0
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        safe = {name: _guarded(value) for name, value in row.items()}
        guarded += sum(safe[name] != value for name, value in row.items())
        writer.writerow(safe)
    return out.getvalue(), guarded


def _guarded(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") and value and not _PLAIN_NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def joined(blocks: Iterable[list[str]]) -> list[str]:
    """Tables below each other with an empty line between them."""
    lines: list[str] = []
    for block in blocks:
        lines += [*([""] if lines else []), *block]
    return lines
