"""The verdict for a terminal: the claims of the first screen, in at most twelve lines."""

import textwrap
from collections.abc import Sequence

from analyzer.report.answers import AnswerKey, FirstScreen, first_screen
from analyzer.results.results import Results
from kvt_async.contract.settings import Settings

LINES = 12


def verdict_lines(results: Results, settings: Settings, *, width: int = 100) -> list[str]:
    """At most LINES lines of at most `width` columns."""
    return screen_lines(first_screen(results, settings), width)


def screen_lines(screen: FirstScreen, width: int = 100) -> list[str]:
    """The same of a first screen, over one task or several; however many alarms there are, the verdict is said."""
    headline = _wrapped([screen.headline], width)
    alarms = _wrapped([alarm.line for alarm in screen.alarms], width)
    room = LINES - 1 - len(headline)
    if len(alarms) > room:
        alarms = [*alarms[: max(0, room - 1)], "  … more that may make the verdict wrong is in the report."]
    paragraphs = [
        *(screen.claims(AnswerKey.CHANGED) if screen.claims(AnswerKey.WORST_TASK, AnswerKey.FIRST_TO_BREAK) else ()),
        *screen.claims(AnswerKey.FIRST_TO_BREAK, AnswerKey.WORST_TASK, AnswerKey.EVERYWHERE, AnswerKey.NOTHING),
        *screen.claims(AnswerKey.OTHER_SERIES),
        *screen.claims(AnswerKey.BUYS, AnswerKey.APPLIED, AnswerKey.CERTAINTY),
        *screen.caveats,
    ]
    lines = [*alarms, *headline, *_wrapped(paragraphs, width)]
    return lines if len(lines) <= LINES else [*lines[: LINES - 1], "  … the rest is in the report."]


def _wrapped(paragraphs: Sequence[str], width: int) -> list[str]:
    return [line for paragraph in paragraphs for line in textwrap.wrap(paragraph, width, subsequent_indent="  ")]
