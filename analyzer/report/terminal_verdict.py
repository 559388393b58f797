"""The verdict for a terminal: the claims of the first screen, in at most twelve lines."""

import textwrap

from analyzer.report.answers import AnswerKey, first_screen
from analyzer.results.results import Results
from kvt_async.contract.settings import Settings

LINES = 12


def verdict_lines(results: Results, settings: Settings, *, width: int = 100) -> list[str]:
    """At most LINES lines of at most `width` columns."""
    screen = first_screen(results, settings)
    paragraphs = [
        *(alarm.line for alarm in screen.alarms),
        screen.headline,
        *screen.claims(AnswerKey.OTHER_SERIES),
        *screen.claims(AnswerKey.BUYS, AnswerKey.APPLIED, AnswerKey.CERTAINTY),
        *screen.caveats,
    ]
    lines = [line for p in paragraphs for line in textwrap.wrap(p, width, subsequent_indent="  ")]
    return lines if len(lines) <= LINES else [*lines[: LINES - 1], "  … the rest is in the report."]
