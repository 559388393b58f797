"""YAML as a config may hold it: text, numbers, true, false, null, lists and mappings, no more than a config needs.

A few lines of YAML unfold to gigabytes, contain themselves, or are nested deeper than Python reads: what is too much is
refused before it is built.
"""

from typing import Any

import yaml

from kvt_async.contract.errors import ConfigError

MOST_BYTES = 256 << 10
MOST_VALUES = 10_000  # with everything that references repeat
DEEPEST = 50  # levels
_QUOTES = "Put it in quotes if it is meant as a text."


class TooMuchError(yaml.YAMLError):
    """More, or deeper, than a config is."""


class _Loader(yaml.SafeLoader):
    """Counts values and levels while they are composed, and what references unfold to before it is built."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values, self._depth = 0, 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._values += 1
        self._depth += 1
        _check_depth(self._depth)
        _check_values(self._values)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            values, depth = _unfolded(node, {})
            _check_depth(depth)
            _check_values(values)
        return node


def _check_depth(depth: int) -> None:
    if depth > DEEPEST:
        raise TooMuchError(f"it is nested more than {DEEPEST} levels deep, or contains itself")


def _check_values(values: int) -> None:
    if values > MOST_VALUES:
        raise TooMuchError(f"it holds more than {MOST_VALUES:,} values")


def _unfolded(node: yaml.Node, sizes_of: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """(values, levels) of a node with what its references repeat; each node is looked at once."""
    if id(node) in sizes_of:
        size = sizes_of[id(node)]
        if size is None:  # not done with yet: a reference to what it lies in
            _check_depth(DEEPEST + 1)
        return size or (1, 1)
    sizes_of[id(node)] = None
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        inner = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        inner = node.value
    sizes = [_unfolded(part, sizes_of) for part in inner]
    size = 1 + sum(values for values, _ in sizes), 1 + max((depth for _, depth in sizes), default=0)
    sizes_of[id(node)] = size
    return size


def check_size(size: int) -> None:
    """Raises TooMuchError for more bytes, or characters, than a config has."""
    if size > MOST_BYTES:
        raise TooMuchError(f"it is larger than {MOST_BYTES >> 10} KiB")


def read_yaml(text: str) -> Any:
    """What a YAML text holds. Raises yaml.YAMLError: TooMuchError, or what is wrong with a text that is no YAML."""
    check_size(len(text))
    try:
        return yaml.load(text, _Loader)
    except (ValueError, OverflowError, RecursionError, TypeError, KeyError, AttributeError) as error:
        # A date without such a day, a number of too many digits, a tag on what doesn't fit it.
        raise yaml.YAMLError(f"{error}" or type(error).__name__) from None


def plain(value: Any, where: str, at: tuple[str, ...] = ()) -> Any:
    """A copy in which nothing is shared. Raises ConfigError for a type that JSON doesn't have, for a key that is no
    text, and for too many levels.
    """
    key = ".".join(at)
    if len(at) > DEEPEST:
        raise ConfigError(f"{'.'.join(at[:3])}... is nested more than {DEEPEST} levels deep", where=where)
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                inside = f"in {key}, " if key else ""
                raise ConfigError(
                    f"{inside}the key {str(name)[:100]} is {_kind(name)}, not a text", where=where, do=_QUOTES
                )
        return {name: plain(inner, where, (*at, name)) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner, where, (*at, str(n))) for n, inner in enumerate(value)]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ConfigError(f"{key} is {_kind(value)}, which no config takes", where=where, do=_QUOTES)


def _kind(value: object) -> str:
    kinds = {"bytes": "binary data", "date": "a date", "datetime": "a date", "set": "a set", "tuple": "a list"}
    kinds |= {"int": "a number", "float": "a number", "NoneType": "null"}
    kinds |= {"bool": "true or false, as on, off, yes and no are"}
    return kinds.get(type(value).__name__, f"of type {type(value).__name__}")
