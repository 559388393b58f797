"""`kvt sweep` and `kvt run`, which send a group, whole or in shards, and `kvt merge`, which makes one of shards."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kvt_async.contract.command_line.options import (
    ConfigOption,
    JsonOption,
    OverrideOption,
    PrintConfigOption,
    QuietOption,
    settings_from,
)

if TYPE_CHECKING:  # the program starts without it
    from kvt_async.contract.settings import Settings
    from kvt_async.contract.shards.shard import Shard

app = typer.Typer()

ForceOption = Annotated[
    bool, typer.Option("--force", help="Where the contract differs, start a new generation beside the old one.")
]

LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N examples of each bin.")]
RetryFailedOption = Annotated[bool, typer.Option("--retry-failed", help="Open a new try series for failed requests.")]
DeadKnobOption = Annotated[
    bool, typer.Option("--allow-dead-knob", help="Go on when the server ignores the budget: budgets become labels.")
]
ShardOption = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Send part I of N of the entries, into a database of its own."),
]
ShardLevelsOption = Annotated[
    str | None,
    typer.Option("--shard-levels", metavar="I/N", help="The same with part I of N of the levels: launches are dear."),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Prepare, then print requests, tokens, expected time and cost; send nothing.")
]


@app.command()
def run(
    config: ConfigOption = None,
    override: OverrideOption = None,
    print_config: PrintConfigOption = False,
    limit: LimitOption = None,
    shard: ShardOption = None,
    shard_levels: ShardLevelsOption = None,
    retry_failed: RetryFailedOption = False,
    force: ForceOption = False,
    allow_dead_knob: DeadKnobOption = False,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Send every level of a prepared manifest; what is answered already is skipped.

    Example: kvt run -c configs/experiments/demo.yaml --limit 2
    """
    _sweep(
        settings_from(config, override, print_config),
        prepare_first=False,
        config=config,
        limit=limit,
        shard=_shard(shard, shard_levels),
        retry_failed=retry_failed,
        force=force,
        allow_dead_knob=allow_dead_knob,
        dry_run=dry_run,
        quiet=quiet,
        as_json=as_json,
    )


@app.command()
def sweep(
    config: ConfigOption = None,
    override: OverrideOption = None,
    print_config: PrintConfigOption = False,
    limit: LimitOption = None,
    shard: ShardOption = None,
    shard_levels: ShardLevelsOption = None,
    retry_failed: RetryFailedOption = False,
    force: ForceOption = False,
    allow_dead_knob: DeadKnobOption = False,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Prepare if needed, then send every example at every KV budget. Run it again to resume.

    Example: kvt sweep -c configs/experiments/submission.yaml --override engine.base_url=http://127.0.0.1:8000/v1
    """
    _sweep(
        settings_from(config, override, print_config),
        prepare_first=True,
        config=config,
        limit=limit,
        shard=_shard(shard, shard_levels),
        retry_failed=retry_failed,
        force=force,
        allow_dead_knob=allow_dead_knob,
        dry_run=dry_run,
        quiet=quiet,
        as_json=as_json,
    )


def _shard(by_entries: str | None, by_levels: str | None) -> "Shard | None":
    """The part that one of the two options names. Raises ConfigError where both are given, or what is given is none."""
    from kvt_async.contract.errors import ConfigError
    from kvt_async.contract.shards.shard import shard_from

    if by_entries is not None and by_levels is not None:
        raise ConfigError("--shard and --shard-levels are two ways of splitting a group", do="Pass one of them.")
    if by_levels is not None:
        return shard_from(by_levels, "--shard-levels", "levels")
    return None if by_entries is None else shard_from(by_entries, "--shard", "entries")


def _sweep(settings: "Settings", **options: Any) -> None:
    from kvt_async.sweep.sweep import SweepOptions, execute

    chosen = SweepOptions(**options)
    if settings.cluster is None or chosen.shard is not None or chosen.dry_run:
        raise typer.Exit(execute(settings, chosen))
    from kvt_async.cluster.cluster_sweep import execute_on_cluster
    from kvt_async.contract.travelling_config import travelling_yaml

    raise typer.Exit(execute_on_cluster(settings, travelling_yaml(settings), chosen))


@app.command()
def merge(
    place: Annotated[Path, typer.Argument(metavar="GROUP", help="The group's folder or database; may be new.")],
    shards: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[SHARD]...", help="Databases or run folders of the same group; default: its shards."),
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take shards, or runs of a group from other machines, into its own database. Again: only what is new.

    Example: kvt merge runs/demo

    Example: kvt merge runs/demo /mnt/node2/runs/demo
    """
    from kvt_async.merge import show_merge

    raise typer.Exit(show_merge(place, shards or [], quiet=quiet, as_json=as_json))
