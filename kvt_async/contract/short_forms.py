"""Short forms of a config's sections (`output_tokens: 128`) -> their long ones, before layers are laid over each other.

A section that has short forms says so by a static method `long_form(value, below, default)`.
"""

from typing import Any, get_args

from pydantic import BaseModel


def written_out(layer: Any, below: Any, model: type[BaseModel]) -> Any:
    """A layer of a config with the long forms of its sections. `below`: the values that it will be laid over."""
    if not isinstance(layer, dict):
        return layer
    under = below if isinstance(below, dict) else {}
    written: dict[Any, Any] = {}
    for key, value in layer.items():
        written[key] = value
        field = model.model_fields.get(str(key))
        for inner in (field.annotation, *get_args(field.annotation)) if field is not None else ():
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                if (long_form := getattr(inner, "long_form", None)) is not None:
                    own = getattr(model.model_construct(), str(key), None)
                    default = own.model_dump(mode="json") if isinstance(own, BaseModel) else {}
                    written[key] = long_form(value, under.get(key), default)
                written[key] = written_out(written[key], under.get(key), inner)
    return written
