"""`kvt plan`, and what it is told of a config's tasks: names, data sets, and the contexts that were prepared."""

import json
from pathlib import Path

import typer

from kvt_async.contract.command_line.options import (
    ConfigOption,
    FlipRateOption,
    JsonOption,
    MeasuredOption,
    OverrideOption,
    PlaceArgument,
    PrintConfigOption,
    settings_from,
)
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.paths import manifest_path
from kvt_async.contract.planned_task import PlannedTask
from kvt_async.contract.settings import Settings
from kvt_async.contract.visible import visible

app = typer.Typer()


@app.command()
def plan(
    place: PlaceArgument = None,
    config: ConfigOption = None,
    override: OverrideOption = None,
    print_config: PrintConfigOption = False,
    flip_rate: FlipRateOption = None,
    measured: MeasuredOption = None,
    as_json: JsonOption = False,
) -> None:
    """Before a run: what it can prove, the smallest detectable drop, and how many examples a proof needs.

    Noise is what the group's own A/A control measured, where it was analysed; else 10% is assumed. Ends with 3 where a
    task of several can't prove the guard, whatever it answers.

    Example: kvt plan -c submission --measured runs/demo
    """
    from analyzer.stages import plan_stage

    settings = settings_from(config, override, print_config, place)
    tasks, notes = planned_tasks(settings)
    answer = plan_stage(settings, tasks, flip_rate=flip_rate, measured=measured)
    facts = answer.json() | ({"notes": notes} if notes else {})
    lines = [*answer.lines, *(f"  note: {note}" for note in notes)]
    typer.echo(json.dumps(facts, indent=2) if as_json else visible("\n".join(lines)))
    raise typer.Exit(answer.exit_code)


def planned_tasks(settings: Settings) -> tuple[list[PlannedTask], list[str]]:
    """The tasks of a config that its verdict is over (analysis.tasks), and what there is to say of them.

    Raises ConfigError where they can't be named, or where analysis.tasks names another; GuardError where a manifest is
    damaged.
    """
    from kvt_async.data.identity import dataset_id
    from kvt_async.data.sources import binned_by
    from kvt_async.data.tasks import tasks_of

    tasks, chosen = tasks_of(settings), settings.analysis.tasks
    names, notes = [task.name for task in tasks.tasks], list(tasks.notes)
    if unknown := [name for name in chosen or () if name not in names]:
        raise ConfigError(
            f"the config has no task {unknown[0]!r}", where="analysis.tasks", do=f"Its tasks: {', '.join(names)}."
        )
    of_verdict = [task for task in tasks.tasks if chosen is None or task.name in chosen]
    if len(of_verdict) < len(names):
        notes.append(f"{len(of_verdict)} of {len(names)} tasks are planned: those of analysis.tasks")
    planned = []
    for task in of_verdict:
        data = dataset_id(task.settings)
        own, (contexts, turns) = task.settings, _contexts(manifest_path(settings.output.data_dir, data))
        if lengths := binned_by(own):
            binning = own.binning.model_copy(update={"n_bins": len(lengths.lengths), "edges": None})
            own = own.model_copy(update={"binning": binning})
        planned.append(PlannedTask(task.name, own, data, contexts, turns))
    return planned, notes


def _contexts(path: Path) -> tuple[tuple[tuple[str, int], ...], float]:
    """(context, bin) of each entry of a manifest, and how many entries a conversation has on average."""
    from kvt_async.data.manifest import read_entries, read_head

    if not path.is_file():
        return (), 1.0
    head = read_head(path)
    conversations = sum(row.get("conversations", 0) for row in head.bins)
    contexts = tuple((entry.context_sha256, entry.bin_idx) for entry in read_entries(path))
    return contexts, len(contexts) / conversations if conversations else 1.0
