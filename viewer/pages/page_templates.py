"""Pages from templates, the report's own tables among them. Text from outside is escaped and made visible."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from analyzer.report.html import environment
from kvt_async.contract.visible import visible


def rendered(template: str, values: Mapping[str, Any]) -> str:
    """A whole page."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> jinja2.Environment:
    made = environment("html")
    assert made.loader is not None
    made.loader = jinja2.ChoiceLoader([jinja2.PackageLoader("viewer.pages", "templates"), made.loader])
    made.finalize = _visible
    return made


def _visible(value: Any) -> Any:
    if isinstance(value, Markup):
        return Markup(visible(str(value)))
    return visible(value) if isinstance(value, str) else value
