"""`kvt export`: answers and figures for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from analyzer.stage_answers import print_answer
from kvt_async.contract.command_line.options import ConfigOption, JsonOption, OverrideOption, settings_from
from kvt_async.contract.command_line.run_folder import place_and


def export(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[DIR] OUT",
            help="A run's folder or database, in place of -c; then FILE.parquet, FILE.csv or FILE.jsonl.",
        ),
    ],
    config: ConfigOption = None,
    override: OverrideOption = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="CSV: texts as they are, also those that a spreadsheet would compute.")
    ] = False,
    with_context: Annotated[
        bool, typer.Option("--with-context", help="The whole context of each row too, not its SHA-256 alone.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write one row per outcome: keys, question, golds, answer, score, metrics.

    In CSV, which spreadsheets open, texts that begin with = + - or @ get an apostrophe in front; --exact leaves them.

    Example: kvt export -c demo outcomes.parquet

    Example: kvt export runs/demo outcomes.csv
    """
    from analyzer.stages import export_stage

    place, out = place_and(words, "OUT", needed=True)
    settings = settings_from(config, override, place=place)
    print_answer(export_stage(settings, Path(out or ""), exact=exact, with_context=with_context), False, as_json)
