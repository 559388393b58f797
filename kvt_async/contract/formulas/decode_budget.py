"""When a budget that applies while an answer is generated is felt at all. Pure numbers.

The server looks at its cache after every `interval` tokens that it has read since the last look, as kvpress'
DecodingPress and the reference server do. A cap in tokens is felt once more is held than the cap; a share of the tokens
seen at the first look. The first token of an answer comes from the prompt alone, so an answer of c tokens has been read
up to its (c - 1)th: it needs more tokens than the first look comes after.
"""

from collections.abc import Mapping
from typing import Any

from kvt_async.contract.vocabulary import Unit, When

INTERVAL = "compression_interval"  # of kv.params, in tokens
USUAL_INTERVAL = 512  # where a level names none: kvpress 0.5.5, the reference server


def interval_of(params: Mapping[str, Any]) -> int | None:
    """kv.params.compression_interval; None: the level leaves it to the server."""
    value = params.get(INTERVAL)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and value >= 1 else None


def first_compression(budget: float, unit: str, when: str, interval: int, prompt_tokens: int) -> int:
    """Tokens of an answer after which the cache is compressed for the first time since the prompt was read: an answer
    has to be longer. `interval` is 1 or more."""
    if unit != Unit.TOKENS:
        return interval
    held = min(prompt_tokens, int(budget)) if when == When.BOTH else prompt_tokens
    return interval * max(1, (int(budget) - held) // interval + 1)
