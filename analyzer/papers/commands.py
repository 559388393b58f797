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


@app.command()
def figures(
    place: PlaceArgument = None,
    config: ConfigOption = None,
    override: OverrideOption = None,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the files go.")] = Path("figures"),
    format: Annotated[str, typer.Option("--format", help="pdf, svg or png (300 dpi).")] = "pdf",
    width: Annotated[str, typer.Option("--width", help="Of the whole figure: 3.3in, 84mm, 240pt, 320px.")] = "6in",
    height: Annotated[str | None, typer.Option("--height", help="Of the whole; default: as the chart has it.")] = None,
    titles: Annotated[
        bool, typer.Option("--titles/--no-titles", help="Without: the words are printed, for the caption.")
    ] = True,
    chosen: Annotated[
        str | None,
        typer.Option(
            "--figures",
            metavar="NAMES",
            help="verdict, accuracy, lengths, heatmap, kept, loss, cost, latency, failures; of a suite tasks, map. "
            "With commas; default: those that show something.",
        ),
    ] = None,
    task: TaskOption = None,
    as_json: JsonOption = False,
) -> None:
    """The report's charts as files for a paper: PDF, SVG or PNG of the width of a column.

    Example: kvt figures runs/demo --figures accuracy,loss --width 3.3in --no-titles --out figures
    """
    from analyzer.papers.paper_figures import FigureOrder, draw_figures
    from analyzer.papers.paper_size import PaperSize, inches

    size = PaperSize(inches(width, "--width"), None if height is None else inches(height, "--height"))
    names = tuple(name.strip() for name in (chosen or "").split(",") if name.strip())
    answer = draw_figures(
        settings_from(config, override, place=place), FigureOrder(out, format, size, titles, names, task)
    )
    typer.echo(json.dumps(answer.json(), indent=2, ensure_ascii=False) if as_json else "\n".join(answer.lines))
