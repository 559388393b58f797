"""What every section of the config is made of: its base class, and the bounds that several of them share."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from kvt_async.contract.checked_text import valid_path, valid_url

Positive = Annotated[float, Field(gt=0, le=1e9)]
Seconds = Annotated[float, Field(gt=0, le=365 * 86_400)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Url = Annotated[str, AfterValidator(valid_url)]
PathText = Annotated[str, AfterValidator(valid_path)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class Written(dict[str, Any]):
    """A config as it was written. Any two are equal: settings are what they say, however they came to be written."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Written)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None
