"""`kvt`: parse, call one function, print. Analyzer verbs are handed over to analyzer.cli and loaded on use."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from analyzer.cli import app as analyzer_app
from kvt_async.bench.cli import app as bench_app
from kvt_async.contract.command_line.help_order import Command, Sections
from kvt_async.contract.command_line.options import (
    ConfigOption,
    JsonOption,
    OverrideOption,
    PlaceArgument,
    PrintConfigOption,
    QuietOption,
    run_app,
    settings_from,
)
from kvt_async.import_command import app as import_app
from kvt_async.init_command import app as init_app
from kvt_async.planned_tasks import app as plan_app
from kvt_async.sending_commands import ForceOption
from kvt_async.sending_commands import app as sending_app
from viewer.cli import app as view_app


class Commands(Sections):
    """kvt's commands in the order in which they are used."""

    headings: ClassVar[Mapping[str, Sequence[str]]] = {
        "Start": ("demo", "serve", "init"),
        "Before a run": ("validate", "resolve", "tasks", "plan"),
        "Run": ("sweep", "status", "prepare", "run", "merge", "import"),
        "Read": ("all", "view", "score", "analyze", "report", "results", "figures", "show", "export", "compare"),
        "Make sure": ("check", "verify", "upgrade"),
        "Throughput and latency": ("bench",),
    }


app = typer.Typer(
    name="kvt",
    cls=Commands,
    help="How far may the KV cache shrink, at your context lengths, before quality breaks, and how sure are we?",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main() -> None:
    """Entry point of the console script."""
    run_app(app)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"kvt {version('kvt')}")
        raise typer.Exit(0)


@app.callback()
def _root(
    _show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def validate(
    config: ConfigOption = None,
    override: OverrideOption = None,
    print_config: PrintConfigOption = False,
    deep: Annotated[bool, typer.Option("--deep", help="Also prove that manifest.json and the database agree.")] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check a config without creating or sending anything.

    Example: kvt validate -c configs/experiments/demo.yaml --deep
    """
    from kvt_async.validate import valid_lines
    from kvt_async.validate import validate as check

    settings = settings_from(config, override, print_config)
    facts = check(settings, deep=deep)
    _answer(facts, as_json, [] if quiet else valid_lines(str(config), facts))


@app.command()
def resolve(
    place: PlaceArgument = None,
    config: ConfigOption = None,
    override: OverrideOption = None,
    print_config: PrintConfigOption = False,
    as_json: JsonOption = False,
) -> None:
    """Print where an experiment's files lie, or the config of a run (--print-config). Creates nothing.

    Example: kvt resolve -c demo

    Example: kvt resolve runs/demo --print-config
    """
    from kvt_async.validate import path_lines, resolved_paths

    paths = resolved_paths(settings_from(config, override, print_config, place), of_database=place is not None)
    _answer(paths, as_json, path_lines(paths))


@app.command()
def tasks(
    name: Annotated[str | None, typer.Argument(help="longbench, longbench_e, ruler, kvtext, jsonl, a plugin's")] = None,
    config: ConfigOption = None,
    path: Annotated[str | None, typer.Option("--path", help="A local data.zip or folder.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List a dataset's tasks, with the exact keys that dataset.task takes; without a name, the datasets.

    Example: kvt tasks longbench --path data.zip
    """
    from kvt_async.validate import dataset_tasks, datasets

    if config is not None:
        settings_from(config, None)  # for its plugins
    rows = dataset_tasks(name, path, report=lambda line: typer.echo(line, err=True)) if name else datasets()
    _answer(dict(rows), as_json, [f"{key:24} {text}" for key, text in rows])


@app.command()
def prepare(
    config: ConfigOption = None,
    override: OverrideOption = None,
    print_config: PrintConfigOption = False,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Choose examples, count tokens, bin, write manifest.json and the database.

    Example: kvt prepare -c configs/experiments/sanity.yaml
    """
    from kvt_async.sweep.sweep import prepare_group

    settings = settings_from(config, override, print_config)
    facts = prepare_group(settings, force=force, quiet=quiet or as_json)
    _answer(facts, as_json, [])


@app.command()
def status(
    place: PlaceArgument = None,
    config: ConfigOption = None,
    override: OverrideOption = None,
    print_config: PrintConfigOption = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Print again every 2 s until nothing is pending or running.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Progress, failures and invariants of a group, also while another terminal runs it.

    Example: kvt status -c demo --watch
    """
    from kvt_async.status import show_status

    raise typer.Exit(show_status(settings_from(config, override, print_config, place), watch=watch, as_json=as_json))


@app.command()
def upgrade(
    places: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Runs' folders, or databases.")],
    as_json: JsonOption = False,
) -> None:
    """Bring runs of an earlier kvt to today's schema, so that they can be continued. The old database stays beside.

    Example: kvt upgrade runs/demo
    """
    from kvt_async.upgrade import show_upgrades

    raise typer.Exit(show_upgrades(places, as_json=as_json))


_SERVED = "A folder or a .gguf file of a Llama-like model; default: the shipped one. kvpress: or a hub name."


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 chooses a free one and prints it.")] = 8000,
    prefill_cache_mb: Annotated[
        int, typer.Option(min=0, help="Memory for prefills kept for their other budgets.")
    ] = 1024,
    prefix_block: Annotated[
        int, typer.Option(min=0, metavar="N", help="Reuse prompts' beginnings in blocks of N tokens; 0: whole prompts.")
    ] = 0,
    max_queue: Annotated[int, typer.Option(min=1, help="Requests that may wait; more get 429.")] = 4096,
    backend: Annotated[
        str, typer.Option(metavar="NAME", help="numpy, or kvpress: any causal LM under any press (extra kvpress).")
    ] = "numpy",
    model: Annotated[str | None, typer.Option("--model", "--model-dir", metavar="PATH", help=_SERVED)] = None,
    press: Annotated[
        str | None, typer.Option(metavar="NAME", help="kvpress: the policy of requests that name none.")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="kvpress: auto, cpu, cuda, cuda:0.")] = None,
    dtype: Annotated[
        str | None, typer.Option(metavar="NAME", help="kvpress: auto, float32, float16, bfloat16.")
    ] = None,
    plugin: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="A Python file with policies of your own; may be repeated.")
    ] = None,
) -> None:
    """Serve the reference model, or one of yours: an OpenAI-compatible API with a KV cache that really evicts.

    Example: kvt serve --port 8000

    Example: kvt serve --model SmolLM2-135M-Instruct.gguf

    Example: kvt serve --backend kvpress --model meta-llama/Llama-3.1-8B-Instruct
    """
    from kvt_async.serve import ServerRoom, chosen_backend, launch

    chosen = chosen_backend(backend, model, press, device, dtype)
    room = ServerRoom(prefill_cache_mb, prefix_block, max_queue)
    launch(host, port, model=model, kvpress=chosen, plugins=plugin or [], room=room)


@app.command()
def demo(
    config: Annotated[
        str | None, typer.Option("-c", "--config", metavar="FILE", help="Another experiment for the reference server.")
    ] = None,
    llm: Annotated[bool, typer.Option("--llm", help="A real LLM (SmolLM2-135M) on RULER's needles: minutes.")] = False,
    model: Annotated[str | None, typer.Option(metavar="PATH", help="Serve this model: a folder or .gguf file.")] = None,
    override: OverrideOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Start the reference server, sweep the demo grid, analyze, print the verdict and where the report is.

    Example: kvt demo --llm
    """
    from kvt_async.contract.packaged_models import SMOLLM2
    from kvt_async.demo import run_demo

    config, model = config or ("demo-llm" if llm else "demo"), model or (SMOLLM2 if llm else None)
    code, facts = run_demo(config, override or [], model=model, quiet=quiet or as_json)
    lines = facts.pop("lines", [])
    _answer(facts, as_json, [] if quiet else lines)
    raise typer.Exit(code)


def _answer(data: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    if as_json:
        import orjson

        sys.stdout.write(orjson.dumps(data, option=orjson.OPT_INDENT_2, default=str).decode() + "\n")
    else:
        for line in lines:
            typer.echo(line)


for commands in (sending_app, init_app, import_app, analyzer_app, plan_app, view_app):
    app.registered_commands += commands.registered_commands
app.add_typer(bench_app, name="bench")
for command in (*app.registered_commands, *bench_app.registered_commands):
    command.cls = Command
