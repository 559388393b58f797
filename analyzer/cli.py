"""The analyzer's verbs: parse, call one function, print. No network; everything heavy is imported on use."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analyzer.export_command import app as export_app
from analyzer.papers.commands import app as papers_app
from analyzer.stage_answers import print_answer
from kvt_async.contract.command_line.options import (
    ConfigOption,
    FlipRateOption,
    JsonOption,
    MeasuredOption,
    OverrideOption,
    PlaceArgument,
    PrintConfigOption,
    QuietOption,
    run_app,
    settings_from,
)
from kvt_async.contract.command_line.run_folder import database_of, place_and
from kvt_async.contract.errors import ConfigError

if TYPE_CHECKING:
    pass

app = typer.Typer(
    name="analyzer",
    help="Facts in SQLite to scores, statistics, charts and the report.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


RunIdOption = Annotated[str | None, typer.Option("--run-id", help="Only this run.")]
PartialOption = Annotated[
    bool, typer.Option("--partial", help="Go on with requests or scores missing; everything is marked PARTIAL.")
]
MetricOption = Annotated[
    str | None,
    typer.Option(
        "--metric", metavar="NAME", help="Score the stored answers by another metric: analysis.metric, in short."
    ),
]
RecomputeOption = Annotated[
    bool, typer.Option("--recompute", help="Make everything again, whatever is stored already.")
]


app.registered_commands += [*papers_app.registered_commands, *export_app.registered_commands]


def main() -> None:
    """Entry point of `python -m analyzer`. Its `plan` knows one task and what was run of it; that of `kvt` knows how
    the runner names and counts tasks, so it takes this one's place there."""
    app.command("plan")(_plan)
    run_app(app)


def _plan(
    place: PlaceArgument = None,
    config: ConfigOption = None,
    override: OverrideOption = None,
    print_config: PrintConfigOption = False,
    flip_rate: FlipRateOption = None,
    measured: MeasuredOption = None,
    as_json: JsonOption = False,
) -> None:
    """Before a run of one task: the smallest detectable drop, and how many examples a proof needs.

    Example: python -m analyzer plan -c submission --measured runs/demo
    """
    from analyzer.stages import plan_stage

    settings = settings_from(config, override, print_config, place)
    if settings.tasks or not isinstance(settings.dataset.task, str):
        raise ConfigError("this plans one task, and the config has several", do="Use `kvt plan -c CONFIG`.")
    print_answer(plan_stage(settings, flip_rate=flip_rate, measured=measured), False, as_json)


@app.command()
def score(
    place: PlaceArgument = None,
    config: ConfigOption = None,
    override: OverrideOption = None,
    print_config: PrintConfigOption = False,
    run_id: RunIdOption = None,
    metric: MetricOption = None,
    recompute: RecomputeOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Score finished requests; what is scored already is skipped.

    Example: kvt score -c demo

    Example: kvt score runs/demo --metric squad_f1
    """
    from analyzer.stages import score_stage

    settings = settings_from(config, _with_metric(override, metric), print_config, place)
    print_answer(score_stage(settings, run_id=run_id, recompute=recompute), quiet, as_json)


@app.command()
def analyze(
    place: PlaceArgument = None,
    config: ConfigOption = None,
    override: OverrideOption = None,
    print_config: PrintConfigOption = False,
    run_id: RunIdOption = None,
    partial: PartialOption = False,
    metric: MetricOption = None,
    recompute: RecomputeOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Aggregate, bootstrap, test, find the transition zone, draw the charts.

    Example: kvt analyze -c demo
    """
    from analyzer.stages import analyze_stage

    settings = settings_from(config, _with_metric(override, metric), print_config, place)
    print_answer(analyze_stage(settings, run_id=run_id, partial=partial, recompute=recompute), quiet, as_json)


@app.command()
def report(
    place: PlaceArgument = None,
    config: ConfigOption = None,
    override: OverrideOption = None,
    print_config: PrintConfigOption = False,
    partial: PartialOption = False,
    recompute: RecomputeOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write report.md and report.html from what analyze stored.

    Example: kvt report -c demo
    """
    from analyzer.stages import report_stage

    print_answer(
        report_stage(settings_from(config, override, print_config, place), partial=partial, recompute=recompute),
        quiet,
        as_json,
    )


@app.command(name="all")
def all_stages(
    place: PlaceArgument = None,
    config: ConfigOption = None,
    override: OverrideOption = None,
    print_config: PrintConfigOption = False,
    run_id: RunIdOption = None,
    partial: PartialOption = False,
    metric: MetricOption = None,
    recompute: RecomputeOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the verdict, and errors.")] = False,
    as_json: JsonOption = False,
) -> None:
    """score, analyze, report; then the verdict in a few lines.

    Example: kvt all -c demo
    """
    from analyzer.stages import every_stage

    settings = settings_from(config, _with_metric(override, metric), print_config, place)
    answer = every_stage(settings, run_id=run_id, partial=partial, recompute=recompute)
    print_answer(answer, False, as_json, lines=answer.verdict if quiet else None)


@app.command()
def verify(
    place: PlaceArgument = None,
    config: ConfigOption = None,
    override: OverrideOption = None,
    print_config: PrintConfigOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make every derived number again from the facts and compare; writes nothing. Exit 1: a difference, 3: unchecked.

    Example: kvt verify -c demo
    """
    from analyzer.stages import verify_stage
    from analyzer.verify.findings import verified

    say = _progress(quiet or as_json)
    if place is not None and config is None and not print_config:  # what is checked needs no config
        answer = verified(database_of(place), progress=say)
    else:
        answer = verify_stage(settings_from(config, override, print_config, place), say)
    print_answer(answer, quiet, as_json)


@app.command()
def check(
    place: PlaceArgument = None,
    config: ConfigOption = None,
    override: OverrideOption = None,
    print_config: PrintConfigOption = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail also on what cannot be told.")] = False,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Also as JUnit XML, for build servers.")
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """The config's assertions of a sweep or a bench; exit 1 when one is proven missed.

    Example: kvt check -c sanity

    Example: kvt check -c bench --strict --junit check.xml
    """
    from analyzer.stages import check_stage

    answer = check_stage(settings_from(config, override, print_config, place), strict=strict)
    if junit is not None:
        from kvt_async.contract.files import write_whole

        write_whole(junit, answer.junit().encode())
    print_answer(answer, quiet, as_json)


@app.command()
def show(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DIR] [EXAMPLE_ID]", help="A run's folder or database, in place of -c; an example."),
    ] = None,
    config: ConfigOption = None,
    override: OverrideOption = None,
    sample: Annotated[
        int | None, typer.Option("--sample", min=1, help="Show N examples drawn with the analysis seed.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="Of this task alone.")] = None,
    run_id: RunIdOption = None,
    full: Annotated[bool, typer.Option("--full", help="Whole prompts instead of their beginning and end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """One example: rendered prompt, golds, every budget's answer and score.

    Example: kvt show -c demo --sample 3

    Example: kvt show runs/demo retrieval-00042
    """
    from analyzer.stages import show_stage

    place, example_id = place_and(words, "EXAMPLE_ID")
    settings = settings_from(config, override, place=place)
    print_answer(show_stage(settings, example_id, sample=sample, task=task, run_id=run_id, full=full), False, as_json)


@app.command()
def compare(
    groups: Annotated[list[Path], typer.Argument(metavar="A B [C ...]", help="Run folders or databases, two or more.")],
    allow_drift: Annotated[
        bool, typer.Option("--allow-drift", help="Go on although a group's server became another one; says DRIFT.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Also as a page: FILE.html, FILE.md or FILE.csv.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Experiment groups side by side, task by task, paired where examples match.

    Example: kvt compare runs/model_a runs/model_b

    Example: kvt compare runs/monday runs/tuesday runs/today --out week.html
    """
    from analyzer.stages import compare_stage

    print_answer(compare_stage(groups, allow_drift=allow_drift, out=out), False, as_json)


def _with_metric(override: list[str] | None, metric: str | None) -> list[str] | None:
    """The overrides, and the one that --metric stands for."""
    return override if metric is None else [*(override or []), f"analysis.metric={json.dumps(metric)}"]


def _progress(quiet: bool) -> Callable[[str], None]:
    """A line on stderr that is written over, where a person watches."""
    import sys

    if quiet or not sys.stderr.isatty():
        return lambda _: None
    return lambda what: typer.echo(f"\r\x1b[K{f'checking {what}' if what else ''}\r", nl=False, err=True)
