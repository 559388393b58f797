"""Several models (or LoRA adapters) of one server under one load: `bench.models`."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from kvt_async.contract.config_section import Section


class ModelShare(Section):
    """A model by the name that the server lists it under, and how often it is asked beside the others. A name alone has
    weight 1."""

    name: Annotated[str, Field(min_length=1, max_length=1000)]
    weight: Annotated[float, Field(gt=0, le=1e9)] = 1

    @model_validator(mode="before")
    @classmethod
    def _a_name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


def check_models(models: list[ModelShare]) -> list[ModelShare]:
    """Raises ValueError where a name is there twice."""
    names = [model.name for model in models]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice!r} is there twice: give each model once, with its weight")
    return models
