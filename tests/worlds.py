"""The worlds that tests are set in, and what is asked of them: one place for all rooms."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analyzer.metrics import Metric


def metric_of(name: str) -> "Metric":
    """The metric of that name; it is not one of those that are rules over columns."""
    from analyzer.metrics import find

    metric = find(name)
    assert metric is not None, name
    return metric
