"""model.config: the model's config.json, the directory it lies in, or a GGUF file; and what a cached token takes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.cache_layers import UnknownCacheError, cache_shape
from kvt_async.contract.formulas.kv_bytes import bytes_per_token
from kvt_async.contract.gguf_model import SUFFIX, GgufModel
from kvt_async.contract.packaged_models import packaged_model


@dataclass(frozen=True, slots=True)
class TokenBytes:
    """Bytes that the keys and values of one token take. None: unknown, and `why` says so; `windowed`: an upper bound,
    since some layers stop growing at their window.
    """

    path: Path
    value: float | None
    why: str
    windowed: bool


def token_bytes_of(given: str, *, bits: float | None = None) -> TokenBytes:
    """What a model's config says; `bits` per element, None: the config's dtype.

    Raises ConfigError where it can't be read or lacks what is needed.
    """
    path, config = _config_of(given)
    try:
        shape = cache_shape(config)
    except UnknownCacheError as error:
        return TokenBytes(path, None, str(error), windowed=False)
    value = bytes_per_token(config, bits=bits)
    if value is None or shape is None:
        raise ConfigError(
            "model.config doesn't say how many bytes a cached token takes",
            where=str(path),
            do="It needs layers, KV heads, head size and a dtype (or set analysis.serving.cache_bits).",
        )
    return TokenBytes(path, value, "", shape.windowed)


def cached_layers(given: str) -> int | None:
    """How many layers of the model hold a cache; None where its config doesn't say. Raises ConfigError where it can't
    be read."""
    try:
        shape = cache_shape(_config_of(given)[1])
    except UnknownCacheError:
        return None
    return None if shape is None else shape.layers


def _config_of(given: str) -> tuple[Path, Mapping[str, Any]]:
    path = packaged_model(given) or Path(given).expanduser()
    path = path / "config.json" if path.is_dir() else path
    return path, GgufModel(path).config if path.suffix.lower() == SUFFIX else _read(path)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise ConfigError(
            f"model.config can't be read: {why}", where=str(path), do="Name the model's config.json or its directory."
        ) from None
    if not isinstance(loaded, dict):
        raise ConfigError("model.config is no JSON object", where=str(path), do="Name the model's own config.json.")
    return loaded
