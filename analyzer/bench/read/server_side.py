"""What the server says of a stage, beside what was seen here: where the TTFT went, its load, its caches, its drafts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from analyzer.bench.read.server_series import (
    ServerHistogram,
    cache_growth,
    figure_growth,
    gauge,
    histogram,
    position_growth,
    restarts,
    spans,
)
from analyzer.bench.read.stage_facts import StageFacts
from kvt_async.contract.formulas.server_figures import FIGURES, FigureKind, engine_of

FULL_KV = 0.99  # a cache that is as full as this has no room: requests wait for it, or lose theirs
FEWEST_OF_OTHERS = 3  # requests: less is what a page may lag behind
FEWEST_TOKENS_OF_OTHERS = 50
SHARE_OF_OTHERS = 0.01


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Mean time to first token in seconds, in parts that add up to what the client saw. NaN: the server doesn't say.

    `beyond`: client's mean minus server's mean: network, the server's HTTP side, and the client's own delay.
    """

    client: float
    server: float
    queue: float
    prefill: float
    beyond: float

    @property
    def other(self) -> float:
        """The part of the server's own time that is neither queue nor prefill."""
        return self.server - self.queue - self.prefill


@dataclass(frozen=True, slots=True)
class GaugeSpan:
    """A gauge over a stage's readings."""

    mean: float
    maximum: float


@dataclass(frozen=True, slots=True)
class Drafting:
    """Speculative decoding over a stage. NaN: nobody says.

    acceptance: accepted / drafted tokens. accepted_length: tokens that a draft brings, the model's own next one
    included, as vLLM and SGLang count it: 1 + accepted tokens / drafts. draft_length: drafted tokens / drafts.
    by_position: share of the drafts whose first, second, ... token was accepted. source: counters | gauges | replies.
    """

    acceptance: float
    accepted_length: float
    draft_length: float
    by_position: tuple[float, ...]
    source: str


@dataclass(frozen=True, slots=True)
class ServerSide:
    """All that the servers of a stage say of it.

    histograms, gauges and counters are by their names in the table of figures; one that is not there is one that no
    server says, and a counter of 0 is there and stood still. of_others: requests that the servers answered and that
    were not ours; None: they don't count requests. tokens_of_others: tokens that they generated and that no reply of
    ours holds; None: they don't count tokens, or some of ours are not known.
    """

    engine: str | None
    histograms: Mapping[str, ServerHistogram]
    gauges: Mapping[str, GaugeSpan]
    counters: Mapping[str, float]
    cached_share: float  # prompt tokens from the prefix cache / those that came; NaN: the servers don't count both
    drafting: Drafting | None
    n_restarts: int
    of_others: int | None
    tokens_of_others: int | None

    @property
    def kv_is_full(self) -> bool:
        """Whether its KV cache had no room left at some reading."""
        usage = self.gauges.get("kv_usage")
        return usage is not None and usage.maximum >= FULL_KV

    @property
    def took_back(self) -> float:
        """Running requests that lost their KV cache; of an engine that doesn't count them, the most at one reading."""
        paused = self.gauges.get("paused")
        return self.counters.get("preemptions", paused.maximum if paused is not None else 0.0)


@dataclass(frozen=True, slots=True)
class RepliesDrafts:
    """Drafted and accepted tokens as replies themselves count them; 0: none does."""

    drafted: int = 0
    accepted: int = 0


def server_side(stage: StageFacts, frame: pl.DataFrame, told: RepliesDrafts) -> ServerSide | None:
    """What the pages and the replies say; None: there is no page, and no reply speaks of drafts."""
    histograms, gauges, counters = {}, {}, {}
    for name, figure in FIGURES.items():
        if figure.kind == FigureKind.HISTOGRAM:
            if (seen := histogram(stage, figure)) is not None:
                histograms[name] = seen
        elif figure.kind == FigureKind.COUNTER:
            if (grown := figure_growth(stage, figure)) is not None:
                counters[name] = grown
        elif values := [value for _, _, value in gauge(stage, figure)]:
            gauges[name] = GaugeSpan(float(np.mean(values)), max(values))
    drafting = _drafting(stage, counters, gauges, histograms) or _as_told(told)
    pages = [reading.metrics for read in spans(stage) for reading in read]
    engines = [engine for page in pages if (engine := engine_of(page)) is not None]
    if not pages and drafting is None:
        return None
    cached = cache_growth(stage)
    return ServerSide(
        engine=engines[0] if engines else None,
        histograms=histograms,
        gauges=gauges,
        counters=counters,
        cached_share=math.nan if cached is None else cached[0] / cached[1],
        drafting=drafting,
        n_restarts=restarts(stage),
        of_others=_of_others(histograms, frame),
        tokens_of_others=_tokens_of_others(counters.get("generation_tokens"), frame),
    )


def breakdown(side: ServerSide | None, frame: pl.DataFrame) -> Breakdown | None:
    """The parts of TTFT; None where the server has no histogram of its own time to first token."""
    served = side.histograms.get("ttft") if side is not None else None
    seen: Any = frame.filter(pl.col("state") == "response")["ttft_s"].mean()
    if side is None or served is None or seen is None:
        return None
    queue, prefill = side.histograms.get("queue"), side.histograms.get("prefill")
    return Breakdown(
        client=float(seen),
        server=served.mean,
        queue=queue.mean if queue else math.nan,
        prefill=prefill.mean if prefill else math.nan,
        beyond=float(seen) - served.mean,
    )


def _drafting(
    stage: StageFacts,
    counters: Mapping[str, float],
    gauges: Mapping[str, GaugeSpan],
    histograms: Mapping[str, ServerHistogram],
) -> Drafting | None:
    """By the counters of the whole stage where there are some, else by the gauges of what happened lately."""
    drafts, drafted = counters.get("drafts", 0.0), counters.get("draft_tokens", 0.0)
    rate, length = gauges.get("accept_rate"), gauges.get("accept_length")
    if not drafts and not drafted:
        if length is None or length.maximum <= 0:
            return None
        acceptance = rate.mean if rate is not None else math.nan
        return Drafting(acceptance, length.mean, math.nan, (), "gauges")
    accepted, generated = counters.get("accepted_tokens"), counters.get("generation_tokens")
    accepted_length = length.mean if length is not None else math.nan
    if drafts and accepted is not None:
        accepted_length = 1 + accepted / drafts
    elif drafts and generated and "ttft" in histograms:  # what no draft brought are the first tokens
        accepted_length = (generated - histograms["ttft"].count) / drafts
    acceptance = accepted / drafted if drafted and accepted is not None else rate.mean if rate is not None else math.nan
    places = position_growth(stage, FIGURES["accepted_per_position"])
    return Drafting(
        acceptance=acceptance,
        accepted_length=accepted_length,
        draft_length=drafted / drafts if drafts and drafted else math.nan,
        by_position=tuple(place / drafts for place in places) if drafts else (),
        source="counters",
    )


def _as_told(told: RepliesDrafts) -> Drafting | None:
    if not told.drafted:
        return None
    return Drafting(told.accepted / told.drafted, math.nan, math.nan, (), "replies")


def _of_others(histograms: Mapping[str, ServerHistogram], frame: pl.DataFrame) -> int | None:
    counted = histograms.get("e2e") or histograms.get("ttft")
    if counted is None:
        return None
    ours = int(frame["n_attempts"].sum())
    more = round(counted.count) - ours
    return more if more >= max(FEWEST_OF_OTHERS, SHARE_OF_OTHERS * ours) else 0


def _tokens_of_others(generated: float | None, frame: pl.DataFrame) -> int | None:
    is_known = (pl.col("state") == "response") & pl.col("completion_tokens").is_not_null() & (pl.col("n_attempts") == 1)
    if generated is None or not frame.height or not frame.select(is_known.all()).item():
        return None
    ours = int(frame["completion_tokens"].sum())
    more = round(generated) - ours
    return more if more >= max(FEWEST_TOKENS_OF_OTHERS, SHARE_OF_OTHERS * ours) else 0
