"""The commands `kvt results` and `kvt figures`. What they run is loaded when they are called."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from kvt_async.contract.command_line.options import (
    ConfigOption,
    JsonOption,
    OverrideOption,
    PlaceArgument,
    settings_from,
)

app = typer.Typer()

TaskOption = Annotated[str | None, typer.Option("--task", metavar="TASK", help="Of this task alone.")]


@app.command()
def results(
    place: PlaceArgument = None,
    config: ConfigOption = None,
    override: OverrideOption = None,
    format: Annotated[
        str | None, typer.Option("--format", help="table, csv, json, latex or markdown; default: as --out ends.")
    ] = None,
    what: Annotated[
        str,
        typer.Option(
            "--what",
            help="accuracy, drops, verdicts, bins, cost, comparisons or changes; of a bench loads or latencies; all.",
        ),
    ] = "all",
    task: TaskOption = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write it there.")] = None,
    caption: Annotated[str | None, typer.Option("--caption", help="LaTeX: of the table, as LaTeX.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="LaTeX: of the table.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Every number of the report as tables: for the terminal, sheets, LaTeX, Markdown and programs.

    Example: kvt results runs/demo --what drops

    Example: kvt results runs/demo --what accuracy --out accuracy.tex --label tab:kv
    """
    from analyzer.papers.stored_tables import stored_tables
    from analyzer.papers.table_files import SUFFIXES, TableOrder

    ending = SUFFIXES.get(out.suffix, "table") if out is not None else "table"
    order = TableOrder(what, format or ("json" if as_json else ending), task, out, caption, label)
    answer = stored_tables(settings_from(config, override, place=place), order)
    answer.write()
    if out is not None and as_json:
        typer.echo(json.dumps({"file": str(out), "tables": [table.name for table in answer.tables]}, indent=2))
    elif out is not None:
        typer.echo("\n".join(answer.lines))
    else:
        sys.stdout.write(answer.text)
