"""Prometheus text for /metrics: vLLM's names where the meaning is the same, `kvt:` where it is ours."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# fmt: off
TTFT_BUCKETS = (.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1., 2.5, 5., 7.5, 10., 20., 40., 80., 160.)
E2E_BUCKETS = (.005, .01, .025, .05, .1, .3, .5, .8, 1., 1.5, 2., 2.5, 5., 10., 15., 20., 30., 60., 120., 240.)
ITL_BUCKETS = (.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .075, .1, .15, .2, .3, .5, 1., 2.5)
# fmt: on


class Family(Protocol):
    def lines(self) -> Iterable[str]: ...


class Counter:
    """A number that only grows, per value of one optional label."""

    def __init__(self, name: str, text: str, labels: Mapping[str, str], by: str = "") -> None:
        self._name, self._text, self._labels, self._by = name, text, labels, by
        self._values: dict[str, float] = {} if by else {"": 0.0}

    def add(self, amount: float = 1.0, label: str = "") -> None:
        self._values[label] = self._values.get(label, 0.0) + amount

    def lines(self) -> Iterable[str]:
        yield from _head(self._name, self._text, "counter")
        for label, value in sorted(self._values.items()):
            extra = {self._by: label} if self._by else {}
            yield f"{self._name}{_labels({**self._labels, **extra})} {_number(value)}"


class Reading:
    """A gauge or counter whose value is asked for when the page is read."""

    def __init__(
        self, name: str, text: str, labels: Mapping[str, str], read: Callable[[], float], kind: str = "gauge"
    ) -> None:
        self._name, self._text, self._labels, self._read, self._kind = name, text, labels, read, kind

    def lines(self) -> Iterable[str]:
        yield from _head(self._name, self._text, self._kind)
        yield f"{self._name}{_labels(self._labels)} {_number(self._read())}"


class Histogram:
    """Counts of observations up to each bound, their sum and their number."""

    def __init__(self, name: str, text: str, labels: Mapping[str, str], bounds: tuple[float, ...]) -> None:
        self._name, self._text, self._labels, self._bounds = name, text, labels, bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self) -> Iterable[str]:
        yield from _head(self._name, self._text, "histogram")
        below = 0
        for bound, count in zip([*map(_number, self._bounds), "+Inf"], self._counts, strict=True):
            below += count
            yield f"{self._name}_bucket{_labels({**self._labels, 'le': bound})} {below}"
        yield f"{self._name}_sum{_labels(self._labels)} {_number(self._sum)}"
        yield f"{self._name}_count{_labels(self._labels)} {below}"


def page(families: Iterable[Family]) -> str:
    """The whole exposition, families in the order given."""
    return "\n".join(line for family in families for line in family.lines()) + "\n"


def _head(name: str, text: str, kind: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _labels(labels: Mapping[str, str]) -> str:
    escaped = ((k, v.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for k, v in labels.items())
    return "{" + ",".join(f'{k}="{v}"' for k, v in escaped) + "}"


def _number(value: float) -> str:
    return repr(float(value))
