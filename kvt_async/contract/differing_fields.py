"""Two JSON objects, field by field: what refusals of another contract, level or manifest show."""

from typing import Any

import orjson

from kvt_async.contract.secrets import matches

Json = dict[str, Any]


def flat(value: Json, at: str = "") -> Json:
    """Nested objects as one, their keys joined with dots."""
    whole: Json = {}
    for key, inner in value.items():
        name = f"{at}.{key}" if at else str(key)
        if isinstance(inner, dict) and inner:
            whole.update(flat(inner, name))
        else:
            whole[name] = inner
    return whole


def difference(stored: Json, wanted: Json, *, sides: tuple[str, str] = ("stored", "asked")) -> tuple[str, ...]:
    """The fields that differ, one to a line, aligned; `sides`: what the two are called."""
    names = [n for n in sorted({*stored, *wanted}) if not matches(wanted.get(n), stored.get(n))]
    width, (one, other) = max((len(n) for n in names), default=0), sides
    return tuple(f"{n:{width}}   {one} {_show(stored.get(n))}   {other} {_show(wanted.get(n))}" for n in names)


def _show(value: object) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= 80 else text[:40] + "..." + text[-20:]
