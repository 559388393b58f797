"""How a level's server is started: kv.apply.command, env and health_url with their placeholders filled."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import FULL, Unit
from kvt_async.records import Level

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.]*)\}")


@dataclass(frozen=True, slots=True)
class LaunchCommand:
    """The words to run, the variables to set, and the URL that answers once the server is ready."""

    words: tuple[str, ...]
    environment: dict[str, str]
    health_url: str

    @classmethod
    def of_level(cls, settings: Settings, level: Level) -> "LaunchCommand":
        """Raises ConfigError naming a placeholder that has no value at this level."""
        apply, values = settings.kv.apply, _values(settings, level)

        def filled(text: str, key: str) -> str:
            return _fill(text, values, f"kv.apply.{key}", level)

        return cls(
            tuple(filled(word, "command") for word in shlex.split(apply.command or "")),
            {name: filled(text, f"env.{name}") for name, text in apply.env.items()},
            filled(apply.health_url or "{base_url}/models", "health_url"),
        )


def port_of(url: str) -> int:
    """The port that a URL names or means."""
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def _values(settings: Settings, level: Level) -> dict[str, Any]:
    """What each placeholder stands for; None: it has no value at this level."""
    base, evicts = level.endpoints[0], not level.serves_full
    removed = float(f"{1 - level.budget:.12g}") if evicts else 0.0
    return {
        "policy": level.policy if evicts else FULL,
        "budget": level.budget if evicts else 1.0,
        "compression_ratio": None if evicts and level.unit != Unit.FRACTION else removed,
        "keep_tokens": int(level.budget) if evicts and level.unit == Unit.TOKENS else None,
        "mode": level.mode,
        "when": level.when,
        "model": settings.model.name,
        "base_url": base,
        "host": urlsplit(base).hostname,
        "port": port_of(base),
        **{f"params.{key}": value for key, value in level.params.items()},
    }


def _fill(text: str, values: Mapping[str, Any], where: str, level: Level) -> str:
    def value_of(match: re.Match[str]) -> str:
        value = values.get(match.group(1))
        if value is None:
            names = (f"{{{name}}}" for name, other in values.items() if other is not None)
            raise ConfigError(
                f"{{{match.group(1)}}} has no value at level {level.label}",
                where=where,
                do=f"Known here: {', '.join(names)}.",
            )
        return str(value)

    return _PLACEHOLDER.sub(value_of, text)
