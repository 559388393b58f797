"""What the report reckons costs with: `analysis.prices` and `analysis.serving`."""

from typing import Annotated

from pydantic import Field

from kvt_async.contract.config_section import Count, Positive, Section


class Prices(Section):
    """Cost per million tokens, in any one currency."""

    prompt_per_mtok: Annotated[float, Field(ge=0, le=1e12)]
    completion_per_mtok: Annotated[float, Field(ge=0, le=1e12)]
    currency: str = "USD"


class Serving(Section):
    """The load whose KV cache the report reckons: prompt length, requests at once, bits per element of the cache."""

    context_tokens: Count
    batch: Count = 1
    cache_bits: Positive | None = None  # null: the dtype of the model's config.json
