"""What may make a verdict over several tasks wrong: the tasks' alarms, each once, with the tasks it is about. Pure."""

from collections.abc import Iterable

from analyzer.results import sentences
from analyzer.results.alarms import PARTIAL, Alarm, alarms
from analyzer.results.number_format import listed
from analyzer.results.suite_results import SuiteResults

NAMED = 6  # tasks or sentences that are told one by one


def suite_alarms(suite: SuiteResults) -> list[Alarm]:
    """Pending requests of all tasks together; then what is said of every task once, and else of which; of one task, its
    own alarms."""
    if not suite.is_suite:
        return alarms(suite.first)
    found: dict[Alarm, list[str]] = {}
    for task in suite.tasks:
        for alarm in alarms(task):
            if alarm.name != PARTIAL:
                found.setdefault(alarm, []).append(task.task)
    merged = [_partial(suite)] if suite.partial else []
    for alarm, names in found.items():
        of = "" if len(names) == len(suite.tasks) else f" in {some(names)}"
        merged.append(Alarm(f"{alarm.name}{of}", alarm.says, alarm.short))
    return merged


def suite_note(suite: SuiteResults) -> str:
    """What every chart over the tasks must carry: the alarms in a few words."""
    return " · ".join(alarm.stamp for alarm in suite_alarms(suite))


def some(names: Iterable[str], most: int = NAMED) -> str:
    """Names in a sentence; of many the first and how many more there are."""
    told = list(names)
    return listed(told if len(told) <= most else [*told[: most - 1], f"{len(told) - most + 1} more"])


def _partial(suite: SuiteResults) -> Alarm:
    name, _, says = sentences.partial(suite.pending, suite.requests).partition(": ")
    return Alarm(name, says, f"{suite.pending:,} of {suite.requests:,} requests pending")
