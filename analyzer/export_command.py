"""`kvt export`: answers and figures for other programs."""

from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from analyzer.stage_answers import StageAnswer, print_answer
from kvt_async.contract.command_line.options import ConfigOption, JsonOption, OverrideOption, settings_from
from kvt_async.contract.command_line.run_folder import place_and
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.paths import run_paths

app = typer.Typer()


class ExportFormat(StrEnum):
    """What is written. A table's kind is told by its file's suffix."""

    TABLE = "table"
    EEE = "eee"
    MLFLOW = "mlflow"


@app.command()
def export(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DIR] [OUT]",
            help="A run's folder or database, in place of -c; then FILE.parquet, FILE.csv or FILE.jsonl, "
            "or the folder of --format eee.",
        ),
    ] = None,
    config: ConfigOption = None,
    override: OverrideOption = None,
    format_: Annotated[
        ExportFormat,
        typer.Option(
            "--format", help="table: a row for each answer; eee: Every Eval Ever 0.3.0; mlflow: a run of MLflow."
        ),
    ] = ExportFormat.TABLE,
    out: Annotated[Path | None, typer.Option("--out", metavar="PATH", help="The same as OUT.")] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="CSV: texts as they are, also those that a spreadsheet would compute.")
    ] = False,
    with_context: Annotated[
        bool, typer.Option("--with-context", help="The whole context of each row too, not its SHA-256 alone.")
    ] = False,
    organization: Annotated[
        str, typer.Option("--organization", metavar="NAME", help="eee: who ran the evaluation.")
    ] = "unknown",
    tracking_uri: Annotated[
        str | None, typer.Option("--tracking-uri", metavar="URI", help="mlflow: where it tracks.")
    ] = None,
    experiment: Annotated[
        str, typer.Option("--experiment", metavar="NAME", help="mlflow: the experiment, made where it is missing.")
    ] = "kvt",
    as_json: JsonOption = False,
) -> None:
    """Write what was answered and found in a form that other programs read.

    In CSV, which spreadsheets open, texts that begin with = + - or @ get an apostrophe in front; --exact leaves them.

    Example: kvt export -c demo outcomes.parquet

    Example: kvt export runs/demo outcomes.csv

    Example: kvt export runs/demo --format eee --out published

    Example: kvt export runs/demo --format mlflow --tracking-uri http://127.0.0.1:5000
    """
    from analyzer.read.group_connection import open_group
    from analyzer.stages import export_stage
    from analyzer.verbs.eee_export import export_eee
    from analyzer.verbs.mlflow_export import export_mlflow

    has_place = bool(words) and (out is not None or format_ is ExportFormat.MLFLOW)
    place, word = place_and(words, "OUT", needed=not has_place)
    target = out or (Path(word) if word else None)
    if target is None and format_ is not ExportFormat.MLFLOW:
        raise ConfigError("there is no word where to write", where="kvt export", do="Name a file, or --out PATH.")
    if tracking_uri is None and format_ is ExportFormat.MLFLOW:
        raise ConfigError("there is no word where MLflow tracks", where="kvt export", do="Pass --tracking-uri URI.")
    settings = settings_from(config, override, place=place)
    if target is not None and format_ is ExportFormat.TABLE:
        answer: StageAnswer = export_stage(settings, target, exact=exact, with_context=with_context)
    else:
        paths = run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path)
        with closing(open_group(paths.db)) as conn:
            if target is not None and format_ is ExportFormat.EEE:
                answer = export_eee(conn, settings, target, organization=organization, with_context=with_context)
            else:
                answer = export_mlflow(conn, settings, paths, tracking_uri or "", experiment)
    print_answer(answer, False, as_json)
