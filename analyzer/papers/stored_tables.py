"""What is stored of a config's group -> the tables that were asked for; nothing is computed anew or written."""

from contextlib import closing

from analyzer.papers.result_tables import KINDS, sweep_tables
from analyzer.papers.table_files import TableOrder, TablesAnswer
from analyzer.read.group_connection import open_group
from analyzer.read.runs import benched, newest_generation
from analyzer.read.snapshot import snapshot
from analyzer.results.results import refuse_older
from analyzer.results.suite_alarms import suite_alarms
from analyzer.results.suite_results import read_suite
from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError
from kvt_async.contract.paths import run_paths
from kvt_async.contract.settings import Settings


def stored_tables(settings: Settings, order: TableOrder) -> TablesAnswer:
    """The tables of the config's group, swept or benched.

    Raises MissingPrerequisiteError before its first analysis, ConfigError for a table that this kind of group lacks.
    """
    group = settings.experiment.exp_group_id
    paths = run_paths(settings.output.runs_dir, group, settings.db.path)
    with closing(open_group(paths.db)) as group_conn, snapshot(group_conn) as conn:
        if benched(conn, group):
            from analyzer.papers.load_tables import bench_result_tables, held, measured_loads

            points = measured_loads(group_conn, group, settings.analysis.alpha)
            tables = bench_result_tables(points, order.what)
            return TablesAnswer(order, group, newest_generation(conn, group), tables, held(points))
        suite = read_suite(conn, group)
    if order.what not in (*KINDS, "all"):
        raise ConfigError(
            f"a sweep has no table {order.what!r}: it has budgets and no loads",
            where="--what",
            do=f"One of: {', '.join(KINDS)}, all.",
        )
    if not any(task.stats for task in suite.tasks):
        raise MissingPrerequisiteError("nothing was analysed yet", where=group, do="Run `kvt all -c CONFIG` first.")
    for task in suite.tasks:
        refuse_older(task)
    alarms = tuple(alarm.line for alarm in suite_alarms(suite))
    tables = sweep_tables(suite, settings, order.what, order.task)
    return TablesAnswer(order, group, suite.first.generation, tables, alarms)
