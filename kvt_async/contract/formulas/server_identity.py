"""Who served: which parts of a server's description say so, and what changed between two of them.

The runner compares at a session's start and refuses to go on with another server; the analyzer compares the stored
snapshots and refuses what was served by two.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Identity = Mapping[str, Any]

# What must not change within a group. Of `models`, the ids that a server lists, only the one that serves us counts, and
# `entry` is what the list says of it.
STABLE = ("models", "entry", "model", "version", "server", "cache_config")
# Inside them, what counts, ages or is sized by the memory that was free: it changes without changing answers.
PROGRAM_FIELDS = ("version", "build_info", "chat_template", "quantization")  # of `model`: the same at every level
_VOLATILE = re.compile(
    r"(created|uptime|started|time|pid|requests?|_blocks(_override)?$|memory|bytes|utili[sz]ation|size_tokens|concurrency|"
    r"swap|permission)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A stored description: `key` is what must stay one server (a launched level, else an endpoint); `model`: the name
    that it was asked for."""

    key: str
    session_id: str
    identity: Identity
    model: str


@dataclass(frozen=True, slots=True)
class Drift:
    """A change, and the session that saw it: its requests were served by both, or by the second."""

    key: str
    session_id: str
    what: str


def drift(before: Identity, now: Identity, model: str) -> list[str]:
    """What about the server of `model` changed, as sentences. What one side doesn't know is no change."""
    changes = []
    for key in STABLE:
        if key == "models":
            old, new = _serving(before, model), _serving(now, model)
            if old is not None and new is not None and old != new:
                changes.append(f"the server's model changed from {_short(old)} to {_short(new)}")
        elif key in before and key in now:
            old, new = lasting(before[key]), lasting(now[key])
            if old != new:
                old_shown, new_shown = _differing(old, new)
                changes.append(f"the server's {key} changed from {old_shown} to {new_shown}")
    return changes


def _serving(identity: Identity, model: str) -> str | None:
    """The listed model that serves requests for `model`; None where the list can't tell.

    Other models come and go beside it: adapters, a hosted provider's catalogue. A server that takes any name, or an
    alias that it doesn't list, is known by its list only where that holds one model.
    """
    listed = identity.get("models") or []
    if model in listed:
        return model
    return str(listed[0]) if len(listed) == 1 else None


def known(snapshots: Iterable[Identity]) -> dict[str, Any]:
    """The newest value of every part, from descriptions in the order they were taken."""
    newest: dict[str, Any] = {}
    for identity in snapshots:
        newest |= identity
    return newest


def drifts(snapshots: Iterable[Snapshot]) -> list[Drift]:
    """Every change between consecutive snapshots of one key, in the order they were taken."""
    last: dict[str, dict[str, Any]] = {}
    changes = []
    for snapshot in snapshots:
        before = last.setdefault(snapshot.key, {})
        seen = drift(before, snapshot.identity, snapshot.model)
        changes += [Drift(snapshot.key, snapshot.session_id, what) for what in seen]
        last[snapshot.key] = before | dict(snapshot.identity)
    return changes


def between(snapshots: Iterable[Snapshot]) -> list[Drift]:
    """Where a level's server differs from the first one in more than the budget: its version, its build, its model.

    Cache settings are left out, because they are how a level is made; paths are too, because hosts mount as they like.
    """
    of_key: dict[str, list[Snapshot]] = {}
    for snapshot in snapshots:
        of_key.setdefault(snapshot.key, []).append(snapshot)
    servers = [(key, taken[-1], known(snapshot.identity for snapshot in taken)) for key, taken in of_key.items()]
    changes = []
    for key, last, identity in servers[1:]:
        first_key, _, first = servers[0]
        differences = drift(_program(first), _program(identity), last.model)
        changes += [
            Drift(key, last.session_id, f"{what.replace('changed', 'differs')} ({first_key} and {key})")
            for what in differences
        ]
    return changes


def _program(identity: Identity) -> dict[str, Any]:
    """The parts of an identity that say which program serves, without how a level is set up."""
    kept = {key: identity[key] for key in ("models", "version", "server") if key in identity}
    model = {key: value for key, value in (identity.get("model") or {}).items() if key in PROGRAM_FIELDS}
    return kept | ({"model": model} if model else {})


def lasting(value: Any) -> Any:
    """What of a description doesn't count, age or depend on free memory."""
    if isinstance(value, Mapping):
        return {key: lasting(inner) for key, inner in sorted(value.items()) if not _VOLATILE.search(str(key))}
    if isinstance(value, list):
        return sorted((lasting(inner) for inner in value), key=str)
    return value


def _differing(old: Any, new: Any) -> tuple[str, str]:
    """Both sides as text; of two mappings, the entries that differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
        old, new = {key: old.get(key) for key in keys}, {key: new.get(key) for key in keys}
    return _short(old), _short(new)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        text = ", ".join(f"{key}={inner}" for key, inner in value.items())
    elif isinstance(value, list):
        text = ", ".join(map(str, value))
    else:
        text = str(value)
    return text if len(text) <= 120 else text[:117] + "..."
