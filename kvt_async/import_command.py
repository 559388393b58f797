"""`kvt import`: runs that lm-evaluation-harness, inspect or others made, taken into a group, to be judged."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from kvt_async.contract.command_line.options import JsonOption, QuietOption
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.visible import visible
from kvt_async.contract.vocabulary import FULL, Unit

if TYPE_CHECKING:  # the program starts without them
    from kvt_async.imports.foreign_log import LogChoice
    from kvt_async.imports.imported_group import ImportedRun
    from kvt_async.records import Level

app = typer.Typer()
_LEVEL = re.compile(r"(?:(?P<series>[^:=#]+):)?(?P<budget>full|[0-9.]+)(?:#(?P<repeat>[0-9]+))?")
_FORM = "Write LEVEL=PATH: full=DIR, 0.5=DIR, snapkv:0.2=FILE; full#1=DIR is full cache once more."


@app.command("import")
def import_(
    levels: Annotated[
        list[str], typer.Argument(metavar="LEVEL=PATH...", help="full=DIR, 0.5=DIR, snapkv:0.2=FILE, full#1=DIR.")
    ],
    group: Annotated[str, typer.Option("--group", metavar="NAME", help="Of the run folder that is made.")],
    task: Annotated[str | None, typer.Option(metavar="NAME", help="Only this task of the files.")] = None,
    metric: Annotated[
        str | None, typer.Option(metavar="NAME", help="Metric or scorer, where there are several.")
    ] = None,
    filter_: Annotated[str | None, typer.Option("--filter", metavar="NAME", help="lm-eval: filter of answers.")] = None,
    unit: Annotated[Unit, typer.Option(help="What the budgets count.")] = Unit.FRACTION,
    margin: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="The loss you would accept, decided before you look.")
    ] = None,
    runs_dir: Annotated[str, typer.Option(metavar="DIR", help="Where run folders lie.")] = "runs",
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take in runs that other tools made, one file or folder a level, so that `kvt all` judges them.

    Reads lm-eval's samples_*.jsonl (--log_samples), inspect's .eval, and instances of Every Eval Ever.

    Example: kvt import full=out_full 0.5=out_half --group mine && kvt all runs/mine
    """
    from kvt_async.imports.foreign_log import LogChoice

    facts = imported(levels, group, LogChoice(task, metric, filter_), Terms(unit, margin, runs_dir))
    if as_json:
        typer.echo(orjson.dumps(facts, option=orjson.OPT_INDENT_2).decode())
    elif not quiet:
        typer.echo("\n".join(visible(line) for line in facts["lines"]))


@dataclass(frozen=True, slots=True)
class Terms:
    """What the files don't say: what budgets count, the loss that is accepted (None: kvt's default), and where the run
    folder lies."""

    unit: Unit
    margin: float | None
    runs_dir: str


def imported(levels: Sequence[str], group: str, wanted: "LogChoice", terms: Terms) -> dict[str, Any]:
    """Read and write; what came of it, with `lines` for a person. Raises ConfigError and ContractMismatchError."""
    from kvt_async.contract.load import load_settings
    from kvt_async.imports.imported_group import import_logs
    from kvt_async.imports.log_files import logs_of

    given = sorted(
        ((_level(word, terms.unit), _path(word)) for word in levels),
        key=lambda one: (not one[0].is_full, one[0].repeat_idx),
    )
    labels = [level.label for level, _ in given]
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise ConfigError(f"the level {twice} is given twice", where="kvt import", do=_FORM)
    if not given[0][0].is_full or given[0][0].repeat_idx:
        raise ConfigError(
            "full cache is missing: a loss is one against it", where="kvt import", do=f"Add full=PATH. {_FORM}"
        )
    logs = [(level, logs_of(path, wanted)) for level, path in given]
    overrides = [
        f"experiment.exp_group_id={orjson.dumps(group).decode()}",
        f"output.runs_dir={orjson.dumps(terms.runs_dir).decode()}",
        f"model.name={orjson.dumps(logs[0][1][0].model).decode()}",
        *([] if terms.margin is None else [f"analysis.margin={terms.margin}"]),
    ]
    settings = load_settings(None, overrides, environ={})
    notes: list[str] = []
    done = import_logs(settings, logs, notes.append)
    notes += [f"note: {note}" for note in dict.fromkeys(n for _, own in logs for log in own for n in log.notes)]
    folder = Path(terms.runs_dir) / group
    return {
        "group": group,
        "folder": str(folder),
        "runs": [asdict(run) | {"agrees": run.agrees} for run in done],
        "notes": notes,
        "lines": [*notes, *map(_sentence, done), *_afterwards(folder, labels)],
    }


def _path(word: str) -> Path:
    return Path(word.partition("=")[2])


def _level(word: str, unit: Unit) -> "Level":
    """The level of `LEVEL=PATH`. Raises ConfigError for another form, and for a fraction that is none."""
    from kvt_async.ways.budget_label import level_as_stated

    name, _, path = word.partition("=")
    parts = _LEVEL.fullmatch(name.strip())
    if parts is None or not path:
        raise ConfigError(f"{word!r} is no level and its file", where="kvt import", do=_FORM)
    repeat = int(parts["repeat"] or 0)
    is_full = parts["budget"] == FULL or (unit == Unit.FRACTION and float(parts["budget"]) == 1)
    if repeat and not is_full:
        raise ConfigError(f"{name} is no full cache: only that is repeated", where="kvt import", do=_FORM)
    budget = 1.0 if is_full else float(parts["budget"])
    if budget <= 0 or (unit == Unit.FRACTION and budget > 1):
        raise ConfigError(
            f"{budget:g} is no fraction of the cache that is kept",
            where="kvt import",
            do="Give a number above 0 and up to 1, or say with --unit tokens or --unit bits what it counts.",
        )
    series = FULL if is_full else (parts["series"] or "imported").strip()
    return level_as_stated(series, budget, Unit.FRACTION if is_full else unit, repeat)


def _sentence(run: "ImportedRun") -> str:
    """What was taken at one level, and whether the mean is the one that the tool prints."""
    state = "" if run.is_new else ", there already"
    failed = f", {run.n_failed} without an answer score 0" if run.n_failed else ""
    own = ""
    if run.own_mean is not None:
        own = ", as the tool itself prints" if run.agrees else f"; the tool itself prints {run.own_mean:.4g}"
    return f"{run.task}, {run.level}: {run.n:,} answers{state}, mean {run.measure} {run.mean:.4g}{own}{failed}"


def _afterwards(folder: Path, labels: Sequence[str]) -> list[str]:
    lines = [f"Judge them: kvt all {folder}"]
    if not any(label.startswith(f"{FULL} (") for label in labels):
        lines.append(
            "Nothing here shows how much answers change by chance: a second run of full cache does (full#1=PATH)."
        )
    return lines
