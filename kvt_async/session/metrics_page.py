"""A server's /metrics page: Prometheus text, read by the official client library's parser."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvt_async.contract.formulas.metric_samples import grown
from kvt_async.contract.formulas.server_figures import CACHE_COUNTERS

if TYPE_CHECKING:
    from prometheus_client import Metric

_TELLING = re.compile(r"(cache|prefix|config_info|requests|tokens)", re.IGNORECASE)
_SILENT = re.compile(r"config_info|_bucket$|_created$")
MAX_SAMPLES = 60


@dataclass(frozen=True, slots=True)
class Sample:
    name: str
    labels: Mapping[str, str]
    value: float

    @property
    def text(self) -> str:
        """As the page writes it: name{label="value"}."""
        inner = ",".join(f'{key}="{value}"' for key, value in self.labels.items())
        return self.name + (f"{{{inner}}}" if inner else "")


@dataclass(frozen=True, slots=True)
class Page:
    samples: Sequence[Sample]

    def find(self, name: str, labels: Mapping[str, str]) -> Sample | None:
        """The first sample of that name that has all of `labels`."""
        return next((s for s in self.samples if s.name == name and labels.items() <= s.labels.items()), None)

    def about_load(self) -> dict[str, float]:
        """Samples that tell about caches and load, histograms left out."""
        telling = [s for s in self.samples if _TELLING.search(s.name) and not _SILENT.search(s.name)]
        telling.sort(key=lambda s: "prefix" not in s.name and "cache" not in s.name)  # first what flags need
        return {sample.text: sample.value for sample in telling[:MAX_SAMPLES]}

    def cache_config(self) -> dict[str, str]:
        """The labels of vllm:cache_config_info or its like."""
        info = next((s for s in self.samples if s.name.endswith("cache_config_info")), None)
        return dict(info.labels) if info else {}


def families(text: str) -> "list[Metric]":
    """What a page holds, as the official parser reads it. Raises ValueError for what is no metrics page."""
    from prometheus_client.parser import text_string_to_metric_families

    try:
        return list(text_string_to_metric_families(text))
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:  # the parser's own, on odd text
        raise ValueError(str(error)) from error


def read(text: str) -> Page:
    """The page's samples; none where it isn't one."""
    try:
        return Page([Sample(s.name, s.labels, float(s.value)) for family in families(text) for s in family.samples])
    except (ValueError, TypeError, OverflowError):
        return Page([])


def prefix_hits(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, float] | None:
    """What a server's prefix cache answered between two `about_load`: {hits, queries}; None: it counts nothing."""
    for names in CACHE_COUNTERS:
        if (hits := grown(before, after, names.hits)) is not None:
            return {"hits": hits, "queries": sum(grown(before, after, name) or 0.0 for name in names.queries)}
    return None
