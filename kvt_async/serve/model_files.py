"""Where a model's files come from: a Hugging Face folder as people have them, or one GGUF file."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.gguf_model import SUFFIX, GgufModel
from kvt_async.contract.packaged_models import PACKAGED_MODELS

Weight = npt.NDArray[np.float32]
_ONE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_MOST_HEADER = 100 << 20  # bytes: the format's own bound


class ModelFiles(Protocol):
    """The files of one model, whatever they lie in."""

    path: Path

    def read(self, name: str) -> bytes | None:
        """A file of the folder; None: it has none of that name. Raises ConfigError where it can't be read."""
        ...

    def tensors(self) -> Iterator[tuple[str, Weight]]:
        """(name, float32 array) of each weight. Raises ConfigError naming the file that is missing or broken."""
        ...


def model_files(path: Path) -> ModelFiles:
    """Raises ConfigError for a path that is neither a folder nor a GGUF file."""
    if path.is_dir():
        return FolderFiles(path)
    if path.suffix.lower() == SUFFIX and path.is_file():
        return GgufModel(path)
    raise ConfigError(
        "there is no such folder or GGUF file" if not path.exists() else "this is neither a folder nor a GGUF file",
        where=f"--model {path}",
        do="Name a folder with config.json, tokenizer.json and safetensors weights, or a .gguf file. "
        f"Models that come as packages: {', '.join(PACKAGED_MODELS)}. A name on the hub takes --backend kvpress.",
    )


class FolderFiles:
    """A Hugging Face folder: weights in one safetensors file or in several with an index."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str) -> bytes | None:
        file = self.path / name
        if not file.is_file():
            return None
        try:
            return file.read_bytes()
        except OSError as error:
            raise ConfigError(f"can't be read: {error.strerror}", where=str(file)) from None

    def tensors(self) -> Iterator[tuple[str, Weight]]:
        for name in self._weight_files():
            yield from _tensors_of(self.path / name)

    def _weight_files(self) -> list[str]:
        if (self.path / _ONE).is_file():
            return [_ONE]
        if (index := self.read(_INDEX)) is None:
            raise ConfigError(
                "it holds no safetensors weights",
                where=str(self.path),
                do=f"It needs {_ONE}, or {_INDEX} and its parts.",
            )
        try:
            return sorted(set(json.loads(index)["weight_map"].values()))
        except (ValueError, KeyError, AttributeError):
            raise ConfigError("it has no weight_map", where=str(self.path / _INDEX), do="Download it again.") from None


def _tensors_of(path: Path) -> Iterator[tuple[str, Weight]]:
    """The weights of one safetensors file, each widened as it is read: numpy has no bfloat16.

    Layout: https://github.com/huggingface/safetensors#format
    """
    try:
        data = np.memmap(path, dtype=np.uint8, mode="r")
        (length,) = struct.unpack("<Q", data[:8].tobytes())
        if not 2 <= length <= min(_MOST_HEADER, len(data) - 8):
            raise ValueError("its header is longer than the file")
        header: dict[str, dict[str, Any]] = json.loads(data[8 : 8 + length].tobytes())
        header.pop("__metadata__", None)
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            yield name, _widened(data[8 + length + start : 8 + length + end], entry["dtype"]).reshape(entry["shape"])
    except FileNotFoundError:
        raise ConfigError("no such file", where=str(path), do="Download the folder again, whole.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ConfigError(f"can't be read: {error}", where=str(path), do="Download the folder again, whole.") from None


def _widened(raw: Any, dtype: str) -> Weight:
    match dtype:
        case "F32":
            widened: Weight = raw.view(np.float32).astype(np.float32)
        case "F16":
            widened = raw.view(np.float16).astype(np.float32)
        case "BF16":
            widened = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        case _:
            raise ValueError(f"weights of type {dtype} are not run here; float32, float16 and bfloat16 are")
    return widened
