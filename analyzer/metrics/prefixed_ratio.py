"""OpenAI MRCR: how alike an answer and the text that was to be repeated are. Source: the data set's card (2025)."""

from collections.abc import Sequence

from analyzer.metrics import Meta, metric
from analyzer.metrics.matching_blocks import ratio


@metric("mrcr", needs_meta=("random_string_to_prepend",))
def mrcr(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """difflib's ratio of answer and gold without the random string that both begin with; 0 where the answer does not
    begin with it, be it by a space. Without golds 0.

    Quirk kept: of golds of 200 characters and more difflib searches for rare characters alone, so an answer with a few
    typing errors may score far below 1.
    """
    prefix = meta.get("random_string_to_prepend")
    if not golds or not isinstance(prefix, str) or not prediction.startswith(prefix):
        return 0.0
    return max(ratio(prediction.removeprefix(prefix), gold.removeprefix(prefix)) for gold in golds)
