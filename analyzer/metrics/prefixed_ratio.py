"""OpenAI MRCR: how alike an answer and the text that was to be repeated are. Source: the data set's card (2025)."""

from collections.abc import Sequence

from analyzer.metrics import Meta, metric
from analyzer.metrics.matching_blocks import ratio


def begins_as_asked(prediction: str, meta: Meta) -> bool:
    """Whether an answer begins with the example's random string."""
    prefix = meta.get("random_string_to_prepend")
    return isinstance(prefix, str) and prediction.startswith(prefix)


@metric("mrcr", format_ok=begins_as_asked, needs_meta=("random_string_to_prepend",))
def mrcr(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """difflib's ratio of answer and gold without the random string that both begin with; 0 where the answer does not
    begin with it, be it by a space. Without golds 0.

    Quirk kept: of golds of 200 characters and more difflib searches for rare characters alone, so an answer with a few
    typing errors may score far below 1.
    """
    if not golds or not begins_as_asked(prediction, meta):
        return 0.0
    prefix = meta["random_string_to_prepend"]
    return max(ratio(prediction.removeprefix(prefix), gold.removeprefix(prefix)) for gold in golds)
