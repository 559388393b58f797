"""The door for notebooks and programs: what was measured and derived of a group, as typed rows. See docs/API.md."""

from contextlib import closing
from pathlib import Path

from analyzer.read import runs
from analyzer.read.snapshot import held
from analyzer.results.results import Results, read_results
from kvt_async.contract.command_line.run_folder import database_of
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.schema import connect_for_reading

__all__ = ["Results", "open_group"]


def open_group(place: str | Path, group: str | None = None, *, volumes: bool = False) -> Results:
    """Read a group's newest generation: its runs, and every row that `kvt analyze` stored of them.

    `place` is a run's folder or a database in it; `group` an experiment.exp_group_id, by default the one that was run
    last. Nothing is written, and nothing that the folder holds is executed. All rows show one state of the database,
    also while a sweep goes on. Before the first `kvt analyze`, runs and their counts are there and the derived rows are
    empty. `volumes` (requests, tokens and seconds of each session) reads every response, so it is left out unless asked
    for.

    Raises ConfigError where `place` is neither folder nor database, or the group was benched (its figures are rows of
    bench_points and bench_stats); MissingPrerequisiteError where nothing was run there, or not this group; GuardError
    where a link would lead out of the folder.
    """
    with closing(held(connect_for_reading(database_of(Path(place))))) as conn:
        name = group if group is not None else runs.newest_group(conn)[0]
        results = read_results(conn, name, volumes=volumes)
        if runs.benched(conn, name):
            raise ConfigError(
                f"the group {name!r} was benched: it has loads and no budgets to judge",
                where=str(place),
                do="Read its tables bench_points and bench_stats, or the --json of `kvt bench report`.",
            )
        return results
