"""Command-line pieces both programs use: the config options, loading them, and turning errors into exit codes."""

import difflib
import sys
from collections.abc import Callable
from glob import escape, glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kvt_async.contract.command_line import masked_output
from kvt_async.contract.errors import ConfigError, InterruptedByUserError, KvtError, StoreError
from kvt_async.contract.local_faults import explained
from kvt_async.contract.paths import shipped_configs
from kvt_async.contract.visible import visible

if TYPE_CHECKING:
    from kvt_async.contract.settings import Settings


def config_names(incomplete: str) -> list[str]:
    """What a shell offers after -c: shipped experiments, then files. Where none fits, it offers folders itself."""
    shipped = sorted(path.stem for path in (shipped_configs() / "experiments").glob("*.yaml"))
    files = sorted(name for name in glob(f"{escape(incomplete)}*") if name.endswith((".yaml", ".yml")))
    return [*(name for name in shipped if name.startswith(incomplete)), *files]


ConfigOption = Annotated[
    str | None,
    typer.Option(
        "-c",
        "--config",
        metavar="FILE",
        help="Experiment YAML, or the name of a shipped one (demo, sanity, ...).",
        autocompletion=config_names,
    ),
]
OverrideOption = Annotated[
    list[str] | None,
    typer.Option("--override", metavar="a.b=c", help="Set one key, YAML value; may be repeated."),
]
PrintConfigOption = Annotated[
    bool, typer.Option("--print-config", help="Print the merged config, secrets redacted, and stop.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Only errors.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
FlipRateOption = Annotated[
    float | None, typer.Option("--flip-rate", min=0, max=1, help="Assume this share of answers to flip by noise.")
]
MeasuredOption = Annotated[
    Path | None, typer.Option("--measured", help="Take it from the A/A control of this run directory or database.")
]

UNREAD = "What was done is kept; run the same command again with room for its answer."

PlaceArgument = Annotated[
    Path | None,
    typer.Argument(metavar="[DIR]", help="A run's folder or database, in place of -c.", show_default=False),
]


def settings_from(
    config: str | None, override: list[str] | None, print_config: bool = False, place: Path | None = None
) -> "Settings":
    """Load the config and its plugins, or the config of the run in `place`, which loads none; with `print_config` print
    it and exit 0. Raises ConfigError."""
    from kvt_async.contract.load import dump_yaml, known_secrets, load_settings, plain_yaml

    if place is not None:
        if config is not None:
            raise ConfigError(f"both a config and {place} are given", do="A run's folder brings its own config: no -c.")
        from kvt_async.contract.command_line.run_folder import stored_settings, stored_yaml

        settings = stored_settings(place, override or [])
        masked_output.hide(known_secrets(settings))
        text = plain_yaml(stored_yaml(place), where=str(place)) if print_config else ""
    else:
        settings = load_settings(find_config(config), override or [])
        masked_output.hide(known_secrets(settings))
        text = dump_yaml(settings) if print_config else ""
    if print_config:
        from kvt_async.contract.command_line.config_comments import commented

        typer.echo(commented(text), nl=False)
        raise typer.Exit(0)
    return settings if place is not None else with_plugins(settings)


def with_plugins(settings: "Settings") -> "Settings":
    """Load the plugins of a config that -c gave, and print what is loaded: a file of the user's runs from here on."""
    from kvt_async.contract import plugin_files

    return plugin_files.with_plugins(settings, lambda line: typer.echo(visible(line), err=True))


def find_config(config: str | None) -> Path | None:
    """A path that exists, or the shipped experiment of that name. None stays None: the defaults."""
    if config is None:
        raise ConfigError(
            "no config given", do="Pass -c FILE.yaml, the name of a shipped experiment (-c demo), or a run's folder."
        )
    path = Path(config)
    if path.is_file() or path.suffix or "/" in config:
        return path
    shipped = shipped_configs() / "experiments"
    for folder in (Path("configs/experiments"), shipped):
        if (folder / f"{config}.yaml").is_file():
            return folder / f"{config}.yaml"
    if path.is_dir():
        advice = f"{config} is a folder: to read the run in it, leave out -c."
    else:
        names = {_folded(p.stem): p.stem for p in sorted(shipped.glob("*.yaml"))}
        close = difflib.get_close_matches(_folded(config), list(names), n=1, cutoff=0.7)
        advice = (f"Did you mean {names[close[0]]}? " if close else "") + f"Shipped: {', '.join(names.values())}."
    raise ConfigError(f"there is no file and no shipped experiment named {config!r}", where="--config", do=advice)


def _folded(name: str) -> str:
    return name.lower().replace("_", "-")


def run_app(app: Callable[..., Any]) -> None:
    """Run a typer app and exit: a KvtError becomes its text on stderr and its exit code, never a traceback. So does
    what this machine lacks. What can't be printed changes no exit code but that of an answer that nobody got: 3."""
    masked_output.install()
    if sys.flags.optimize > 1:  # the charts' library makes its classes from docstrings
        sys.exit(_refused(ConfigError("kvt needs docstrings, which -OO removes", do="Run it without -OO.")))
    try:
        app()
        code: object = 0
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        code = _interrupted()
    except Exception as error:
        if "KeyboardInterrupt" in str(error):  # pydantic makes an error of its own of a Ctrl-C that meets it
            code = _interrupted()
        elif (fault := explained(error)) is None:
            raise
        else:
            code = _refused(fault)
    if (lost := masked_output.unread()) is not None and not code:
        code = _refused(StoreError(f"the answer can't be written: {lost.strerror}", where="stdout", do=UNREAD))
    sys.stderr.flush()
    sys.exit(code)  # type: ignore[arg-type]


def _refused(error: KvtError) -> int:
    print(visible(f"error: {error}"), file=sys.stderr)
    return error.exit_code


def _interrupted() -> int:
    print("interrupted", file=sys.stderr)
    return InterruptedByUserError.exit_code
