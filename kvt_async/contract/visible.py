"""Text from outside, made fit to be printed: what a terminal would obey is shown as an escape instead."""

import re

# C0 and C1 controls but for tab and line feed, DEL, and the marks that turn the direction of a line round.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""The text with every control character as `\x1b`, `\u202e`; tabs and line feeds stay."""
    return _OBEYED.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
