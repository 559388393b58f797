"""The published data sets of files, by the name that `dataset.name` has."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from kvt_async.data.sources import bfcl, gpqa, gsm8k, ifeval, longbench_v2, math_problems, mrcr, scbench
from kvt_async.data.sources.published_source import PublishedSource

_SOURCES: tuple[PublishedSource, ...] = (
    bfcl.SOURCE,
    gsm8k.SOURCE,
    math_problems.MATH500,
    math_problems.AIME24,
    math_problems.AIME25,
    gpqa.SOURCE,
    ifeval.SOURCE,
    longbench_v2.SOURCE,
    mrcr.SOURCE,
    scbench.SOURCE,
)
SHELF: Final[Mapping[str, PublishedSource]] = MappingProxyType({source.name: source for source in _SOURCES})
"""Each module of one data set has its `SOURCE`. Names stand in vocabulary.OUR_SOURCES too; of a source with one task of
its own name also in vocabulary.ONE_TASK_SOURCES."""
