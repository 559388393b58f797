"""The score that another tool gave an answer, as it came with it: of groups that `kvt import` made."""

from collections.abc import Sequence

from analyzer.metrics import Meta, metric_of_given_scores
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.metric_needs import GIVEN_SCORE


@metric_of_given_scores(GIVEN_SCORE)
def given_score(given: str, golds: Sequence[str], meta: Meta) -> float:
    """The number that `given` is; '' (no answer) is 0. Raises ConfigError for an answer that came without a score."""
    try:
        return float(given or 0)
    except ValueError:
        raise ConfigError(
            "this answer came without the score of another tool",
            where=f"metric {GIVEN_SCORE}",
            details=(f"answer: {given[:200]!r}",),
            do="It is the metric of groups that `kvt import` made; choose another one (`kvt tasks`).",
        ) from None
