"""`kvt bench`: options over the `bench` section of a config, then one call. Loaded with the program: keep it light."""

import sys
from typing import Annotated, Any

import typer

from kvt_async.bench import option_texts, rival_keys
from kvt_async.bench.workload_file import workload_overrides
from kvt_async.contract.bench_output import schema_text, stamped
from kvt_async.contract.command_line.options import (
    ConfigOption,
    JsonOption,
    OverrideOption,
    PrintConfigOption,
    QuietOption,
)
from kvt_async.contract.errors import CheckFailedError, ConfigError, FailuresStandError, KvtError

app = typer.Typer(
    help="Measure throughput and latency of a server under a load of known shape, and say who was the bottleneck.\n\n"
    "Example: kvt bench -c bench --sweep-rate 1,2,4,8 --repeats 3 --slo ttft_p99_ms=500",
    invoke_without_command=True,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
LENGTHS = "N|N1,N2,..|{..}"
AsOption = Annotated[
    str | None,
    typer.Option("--as", metavar="TOOL", help="Also under its formulas: vllm, aiperf, guidellm, sglang, evalscope."),
]


@app.callback()
def bench(
    context: typer.Context,
    config: ConfigOption = None,
    override: OverrideOption = None,
    print_config: PrintConfigOption = False,
    rate: Annotated[float | None, typer.Option("--rate", help="Open loop: requests a second.")] = None,
    concurrency: Annotated[int | None, typer.Option("--concurrency", help="Closed loop: requests in flight.")] = None,
    sweep_rate: Annotated[str | None, typer.Option("--sweep-rate", metavar="R1,R2,..|auto")] = None,
    sweep_concurrency: Annotated[str | None, typer.Option("--sweep-concurrency", metavar="C1,C2,..|auto")] = None,
    search_rate: Annotated[
        bool, typer.Option("--search-rate", help="Find the highest rate that keeps the objectives of --slo.")
    ] = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Send a trace (workload.kind: trace) by its own timestamps.")
    ] = False,
    sweep_speed: Annotated[
        str | None, typer.Option("--sweep-speed", metavar="X1,X2,..", help="Replays, so many times as fast.")
    ] = None,
    ramp_rate: Annotated[
        str | None, typer.Option("--ramp-rate", metavar="FROM:TO", help="Open loop: grows over --duration.")
    ] = None,
    ramp_concurrency: Annotated[
        str | None, typer.Option("--ramp-concurrency", metavar="FROM:TO", help="Closed loop: the same.")
    ] = None,
    step_rate: Annotated[
        str | None, typer.Option("--step-rate", metavar="R1:S1,R2:S2,..", help="Rates in a row, seconds each.")
    ] = None,
    step_concurrency: Annotated[
        str | None, typer.Option("--step-concurrency", metavar="C1:S1,..", help="The same in a closed loop.")
    ] = None,
    requests: Annotated[int | None, typer.Option("--requests", help="Measured requests of each stage.")] = None,
    duration: Annotated[
        float | None, typer.Option("--duration", metavar="S", help="Or seconds; decides where both are given.")
    ] = None,
    repeats: Annotated[int | None, typer.Option("--repeats", help="Of each load, for intervals.")] = None,
    arrival: Annotated[str | None, typer.Option("--arrival", metavar="constant|poisson|gamma")] = None,
    burstiness: Annotated[float | None, typer.Option("--burstiness", help="gamma: below 1 burstier.")] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", metavar="NAME[=WEIGHT]", help="Several share the requests.")
    ] = None,
    workload: Annotated[
        str | None, typer.Option("--workload", metavar="FILE", help="Prompts of a file; its kind is seen.")
    ] = None,
    input_tokens: Annotated[
        str | None, typer.Option("--input-tokens", metavar=LENGTHS, help="Of each prompt, synthetic ones.")
    ] = None,
    output_tokens: Annotated[
        str | None, typer.Option("--output-tokens", metavar=LENGTHS, help="To ask for of each reply.")
    ] = None,
    slo: Annotated[list[str] | None, typer.Option("--slo", metavar="ttft_p99_ms=500", help="May be repeated.")] = None,
    levels: Annotated[bool, typer.Option("--levels", help="Bench every KV level of the config.")] = False,
    as_tool: AsOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Go beyond this client's ceiling; a new generation where the plan differs.")
    ] = False,
    allow_dead_knob: Annotated[
        bool, typer.Option("--allow-dead-knob", help="Bench --levels although no budget changes an answer.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent; create and send nothing.")
    ] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a server under load. Run it again to resume; the report lies beside the database.

    An option takes the place of what the config says in its stead. Exit code 1: an objective of --slo is proven missed
    at a load that was asked for.

    Example: kvt bench -c bench --sweep-rate 1,2,4,8 --repeats 3 --slo ttft_p99_ms=500
    """
    if context.invoked_subcommand is not None:
        return
    shapes = [
        *option_texts.ramp("rate", ramp_rate),
        *option_texts.ramp("concurrency", ramp_concurrency),
        *option_texts.steps("rate", step_rate),
        *option_texts.steps("concurrency", step_concurrency),
    ]
    loads = (rate, concurrency, sweep_rate, sweep_concurrency, search_rate, replay, sweep_speed, shapes)
    if config is None and not override and not any(loads):
        typer.echo(context.get_help())
        raise typer.Exit(2)
    _check_tool(as_tool)
    options = [
        *option_texts.given(
            rate=rate,
            concurrency=concurrency,
            sweep_rate=option_texts.listed(sweep_rate, "--sweep-rate"),
            sweep_concurrency=option_texts.listed(sweep_concurrency, "--sweep-concurrency"),
            search_rate=search_rate or None,
            replay=replay or None,
            sweep_speed=option_texts.listed(sweep_speed, "--sweep-speed"),
            requests=requests,
            duration_s=duration,
            repeats=repeats,
            arrival=arrival,
            burstiness=burstiness,
            levels=levels or None,
        ),
        *shapes,
        *option_texts.models(model or []),
        *(workload_overrides(workload) if workload is not None else []),
        *option_texts.lengths(input_tokens=input_tokens, output_tokens=output_tokens),
        *(option_texts.objective(text) for text in slo or []),
    ]
    settings = _settings(config, rival_keys.settled([*(override or []), *options]), print_config)
    if requests is not None and duration is not None and not quiet:
        typer.echo("warning: --duration says when a stage ends; --requests is not used beside it", err=True)
    from kvt_async.bench.bench import BenchOptions, execute

    report = execute(settings, BenchOptions(force, allow_dead_knob, dry_run, quiet, as_json))
    answer, lines = report.as_json(), report.lines()
    code = report.exit_code
    if report.plan is None:
        try:
            answer["analysis"] = analysis = _analysis(settings, as_tool, settings.bench.slo)
            lines += analysis.pop("lines", [])
            if analysis["missed"] and code in (0, FailuresStandError.exit_code):
                code = answer["exit_code"] = CheckFailedError.exit_code
        except KvtError as error:
            if report.exit_code not in (0, 4):  # stopped before anything could be analysed: that is the news
                lines.append(str(error))
            else:
                raise
    _answer(answer, as_json, [] if quiet else lines)
    raise typer.Exit(code)


@app.command()
def calibrate(
    config: ConfigOption = None,
    override: OverrideOption = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what is known already.")] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure what this machine's client can do at most, against a server that does nothing; about 15 seconds.

    Example: kvt bench calibrate --fresh
    """
    from kvt_async.bench import client_ceiling
    from kvt_async.bench.calibrate import calibrate as measure

    settings = _settings(config, override or [], False)
    cached = None if fresh else client_ceiling.cached(settings)
    say = (lambda _: None) if quiet or as_json else (lambda line: typer.echo(line, err=True))
    ceilings = cached if cached is not None else measure(settings, say)
    floor, is_least = ceilings["ttft_floor_ms"], ceilings["streams_is_least"]
    measured = f"measured {ceilings['measured_at']}, {ceilings['transport']}, {ceilings['loop']} loop"
    lines = [
        f"client ceiling here ({measured}):",
        f"  {ceilings['requests_per_s']:.0f} requests/s, {ceilings['output_events_per_s']:.0f} events/s, "
        f"{ceilings['streams']} streams{' or more' if is_least else ''} at "
        f"{ceilings['events_per_stream_s']:.0f} events/s each",
        f"  TTFT floor {floor['p50']:.2f} ms (p99 {floor['p99']:.2f} ms)",
        "  above half of it kvt bench warns, above it refuses",
    ]
    _answer(ceilings, as_json, [] if quiet else lines)


@app.command()
def report(
    config: ConfigOption = None,
    override: OverrideOption = None,
    as_tool: AsOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Analyse again what is stored, and print it; nothing is sent.

    Example: kvt bench report -c bench --as vllm
    """
    analysis = _analysis(_settings(config, override or [], False), as_tool)
    lines = analysis.pop("lines", [])
    _answer(analysis, as_json, [] if quiet else lines)


@app.command()
def compare(
    a: Annotated[
        str, typer.Argument(metavar="A", help="A bench group: its name under runs/, its folder or its database.")
    ],
    b: Annotated[str, typer.Argument(metavar="B")],
    as_json: JsonOption = False,
) -> None:
    """Two bench groups side by side, paired where their schedules match.

    Example: kvt bench compare vllm-fp16 vllm-fp8
    """
    from importlib import import_module

    comparison: dict[str, Any] = import_module("analyzer.bench.comparison").compare(a, b)
    lines = comparison.pop("lines", [])
    _answer(comparison, as_json, lines)


@app.command()
def quick(
    url: Annotated[str, typer.Argument(metavar="URL", help="http://HOST:PORT, with or without /v1.")],
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="Where it serves several.")] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option("--tokenizer", metavar="FILE", help="Makes lengths exact; else by the server's counts."),
    ] = None,
    input_tokens: Annotated[int, typer.Option("--input-tokens", min=1, help="Of each prompt.")] = 256,
    output_tokens: Annotated[int, typer.Option("--output-tokens", min=1, help="To ask for of each reply.")] = 64,
    api_key_env: Annotated[
        str | None, typer.Option("--api-key-env", metavar="VARIABLE", help="Which holds the key; OPENAI_API_KEY.")
    ] = None,
    within: Annotated[float, typer.Option("--within", metavar="S", min=1, help="Seconds for the loads.")] = 80,
    override: OverrideOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """A first answer about a server, without a file, in under two minutes: 1, 4, 16, ... in flight until output levels
    off. What it found is kept as a config beside the answer.

    Example: kvt bench quick http://localhost:8000
    """
    from kvt_async.bench.first_look import Wish
    from kvt_async.bench.quick import quick as bench_quickly
    from kvt_async.session.invocation import sayer

    wish = Wish(url, model, tokenizer, input_tokens, output_tokens, api_key_env, tuple(override or ()))
    done = bench_quickly(wish, within, sayer(quiet or as_json), quiet=quiet, as_json=as_json)
    answer, lines = done.report.as_json(), done.report.lines()
    if any(stage["answered"] for stage in done.report.stages):
        answer["analysis"] = analysis = _analysis(done.settings, None)
        lines += ["", *analysis.pop("lines", []), "", "to make it precise, with repeats:", f"  {done.next_command()}"]
    answer["quick"] = done.as_json()
    _answer(answer, as_json, [] if quiet else lines)
    raise typer.Exit(done.report.exit_code)


@app.command(name="export")
def export_files(
    place: Annotated[str, typer.Argument(metavar="GROUP", help="Its name under runs/, its folder or its database.")],
    format_name: Annotated[str, typer.Option("--format", metavar="vllm|llm-d|csv", help="Whose files.")],
    load: Annotated[str | None, typer.Option("--load", metavar="LABEL", help="This load alone: 'rate 4/s'.")] = None,
    out: Annotated[str | None, typer.Option("--out", metavar="PATH", help="A folder, or the one file.")] = None,
    requests: Annotated[bool, typer.Option("--requests", help="csv: a row a request.")] = False,
    texts: Annotated[bool, typer.Option("--texts", help="vllm: with the replies.")] = False,
    metadata: Annotated[
        list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="vllm: more keys; may be repeated.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """A stored bench as files that other tools read: a file a stage, in export/ beside the database.

    Example: kvt bench export bench_reference --format vllm --metadata gpu=H200
    """
    from importlib import import_module

    bench_export = import_module("analyzer.bench.bench_export")
    more = bench_export.metadata_of(metadata or [])
    order = bench_export.ExportOrder(format_name, out, load, texts, requests, more)
    answer: dict[str, Any] = bench_export.export_bench(place, order)
    lines = answer.pop("lines")
    _answer(answer, as_json, lines)


@app.command()
def schema() -> None:
    """Print the JSON Schema of what `kvt bench --json` prints.

    Example: kvt bench schema > kvt.bench.schema.json
    """
    typer.echo(schema_text(), nl=False)


def _check_tool(name: str | None) -> None:
    """Raises ConfigError for a tool that isn't known: the analyzer would find it out only after everything was sent."""
    from kvt_async.contract.bench_settings import TOOLS

    if name is not None and name not in TOOLS:
        raise ConfigError(f"no formulas of {name!r} are known", where="--as", do=f"One of: {', '.join(TOOLS)}.")


def _analysis(settings: Any, as_tool: str | None, asked: dict[str, float] | None = None) -> dict[str, Any]:
    """The analyzer's answer; it is loaded here, after everything has been sent. `asked`: objectives to judge by."""
    from importlib import import_module

    stages: dict[str, Any] = import_module("analyzer.bench.bench_analysis").bench_stages(
        settings, as_tool=as_tool, asked=asked
    )
    return stages


def _settings(config: str | None, overrides: list[str], print_config: bool) -> Any:
    """Load the settings. Unlike other commands a bench needs no config: the defaults and a load will do."""
    from kvt_async.contract.command_line import masked_output
    from kvt_async.contract.command_line.options import find_config, with_plugins
    from kvt_async.contract.load import dump_yaml, known_secrets, load_settings

    settings = load_settings(None if config is None else find_config(config), overrides)
    masked_output.hide(known_secrets(settings))
    if print_config:
        typer.echo(dump_yaml(settings), nl=False)
        raise typer.Exit(0)
    return with_plugins(settings)


def _answer(data: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    if as_json:
        import orjson

        text = orjson.dumps(stamped(data), option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY, default=str)
        sys.stdout.write(text.decode() + "\n")
    else:
        for line in lines:
            typer.echo(line)
