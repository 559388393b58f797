"""Jinja over the report's templates, and what makes text from outside safe in them: used by both kinds of report."""

import json
import re
from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup, escape

from kvt_async.contract.visible import visible

_INTERVAL = re.compile(r"(\[[^\]]*\](?: \*)?)")
_MARKS = (("<", "&lt;"), ("![", "!\\["), ("](", "]\\("), ("```", "` ` `"))


def environment(kind: str) -> jinja2.Environment:
    """Jinja2 over analyzer/report/templates; `kind` md or html, which escapes."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analyzer.report", "templates"),
        autoescape=kind == "html",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = _cell
    environment.filters["code"] = _code
    environment.filters["prose"] = prose
    environment.filters["whole"] = _whole
    return environment


def prose(text: str) -> str:
    """A line of Markdown that holds names from outside: no tag, no picture, no link, no line break, no control."""
    for mark, harmless in _MARKS:
        text = text.replace(mark, harmless)
    return " ".join(visible(text).split())


def _cell(text: str) -> str:
    """A Markdown table cell: prose without a pipe."""
    return prose(text).replace("|", "\\|")


def _code(text: str) -> Markup:
    """Text with `code` in backticks, as safe HTML."""
    parts = [Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(text.split("`"))]
    return Markup("").join(parts)


def _whole(text: str) -> Markup:
    """A table cell whose [intervals] are never broken into two lines, as safe HTML."""
    parts = [Markup("<span>{}</span>").format(p) if i % 2 else escape(p) for i, p in enumerate(_INTERVAL.split(text))]
    return Markup("").join(parts)


def in_script(specs: Mapping[str, Any]) -> str:
    """Charts' specs as JSON that is safe inside a script element."""
    text = json.dumps(specs, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
