"""JSON templates: any JSON whose strings hold placeholders `{name}`.

A string that is exactly one placeholder becomes the value itself, so a number stays a number; inside other text it
becomes text; `{{` and `}}` are braces. A placeholder without a value drops the key or list item that it stands under.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_.-]+)?)\}")


class _Drop:
    """Stands for a key that must not be sent."""


_DROP = _Drop()


def fill(template: Any, values: Mapping[str, Any]) -> Any:
    """The template with its placeholders filled; None where nothing is left. `{name.key}` looks inside a value."""
    filled = map_strings(template, lambda text: _filled(text, values))
    return None if filled is _DROP else filled


def placeholders(node: Any, at: str = "") -> Iterator[tuple[str, str, bool]]:
    """(name, key where it stands, whether it is a string of its own) of every placeholder; `at`: the template's key."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from placeholders(value, f"{at}.{key}")
    elif isinstance(node, list):
        for idx, value in enumerate(node):
            yield from placeholders(value, f"{at}[{idx}]")
    elif isinstance(node, str):
        for match in _PLACEHOLDER.finditer(node):
            if match.group(1) is not None:
                yield match.group(1), at, match.group(0) == node


def value_at(node: Any, path: str) -> Any:
    """What stands under a dotted path of keys; None where nothing does."""
    for part in path.split("."):
        if type(node) is not dict:
            return None
        node = node.get(part)
    return node


def map_strings(node: Any, change: Callable[[str], Any]) -> Any:
    """The JSON value with `change` of every string in its place."""
    if isinstance(node, dict):
        changed = {key: map_strings(value, change) for key, value in node.items()}
        return {key: value for key, value in changed.items() if value is not _DROP}
    if isinstance(node, list):
        return [value for value in (map_strings(item, change) for item in node) if value is not _DROP]
    return change(node) if isinstance(node, str) else node


def _filled(text: str, values: Mapping[str, Any]) -> Any:
    if "{" not in text and "}" not in text:
        return text
    whole = _PLACEHOLDER.fullmatch(text)
    if whole and whole.group(1):
        value = _look_up(values, whole.group(1))
        return _DROP if value is None else value
    missing = False

    def value_of(match: re.Match[str]) -> str:
        nonlocal missing
        name = match.group(1)
        if name is None:
            return match.group(0)[0]
        value = _look_up(values, name)
        missing |= value is None
        return str(value)

    filled = _PLACEHOLDER.sub(value_of, text)
    return _DROP if missing else filled


def _look_up(values: Mapping[str, Any], name: str) -> Any:
    head, _, rest = name.partition(".")
    value = values.get(head)
    return value_at(value, rest) if rest and isinstance(value, dict) else None if rest else value
