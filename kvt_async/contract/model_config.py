"""model.config: the model's config.json, or the directory it lies in, and what a cached token of that model takes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.kv_bytes import bytes_per_token


def token_bytes_of(given: str, *, bits: float | None = None) -> tuple[Path, float]:
    """The file, and the bytes that the keys and values of one token take; `bits` per element, None: the config's dtype.

    Raises ConfigError where it can't be read or doesn't say it.
    """
    path = Path(given).expanduser()
    path = path / "config.json" if path.is_dir() else path
    token_bytes = bytes_per_token(_read(path), bits=bits)
    if token_bytes is None:
        raise ConfigError(
            "model.config doesn't say how many bytes a cached token takes",
            where=str(path),
            do="It needs layers, KV heads, head size and a dtype (or set analysis.serving.cache_bits).",
        )
    return path, token_bytes


def _read(path: Path) -> Mapping[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise ConfigError(
            f"model.config can't be read: {why}", where=str(path), do="Name the model's config.json or its directory."
        ) from None
    if not isinstance(loaded, dict):
        raise ConfigError("model.config is no JSON object", where=str(path), do="Name the model's own config.json.")
    return loaded
