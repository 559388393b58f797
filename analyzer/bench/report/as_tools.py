"""The same run under the formulas of other tools: what each would have printed for what we measured.

Each tool starts its clock and ends it at another mark, and averages differently; docs/BENCH.md has the table. Marks we
have not got (a tool's own event loop delay, its own tokeniser) are left out, not guessed. Sources: the tools' own code:
guidellm 0.8.1, aiperf 0.13.0 and evalscope 1.14.1, each checked by running it beside ours on the same load; read only:
vllm's `bench serve` (vllm/benchmarks/serve.py at 009e6d4, endpoint_request_func.py at 02cfb53), sglang 0.5.23's
bench_serving. vLLM's percentiles, as ours, are numpy's linear ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from analyzer.bench.figures.quantiles import Summary, summarise
from analyzer.bench.read.request_metrics import chunk_times

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Formulas:
    """How a tool reads the marks of one reply; every expression is in ns of the session's clock."""

    starts: pl.Expr
    first: pl.Expr
    ends: pl.Expr
    over: pl.Expr  # where the tool's clock of the whole run stops for this reply
    itl: str  # chunks: every gap, its own sample | request: one mean per request
    tpot: Callable[[pl.Expr, pl.Expr, pl.Expr], pl.Expr]  # latency, ttft, tokens -> seconds
    notes: str


# Before the request is handed to HTTP: with a new connection its set-up is inside TTFT.
_POSTED = pl.coalesce("limits_ns", "start_ns")
_TEXT = pl.col("first_text_user_ns")
_LAST_EVENT = pl.max_horizontal("last_delta_ns", "finish_ns")
_LAST_JSON = pl.max_horizontal("last_delta_ns", "finish_ns", "usage_ns")
_LAST_LINE = pl.max_horizontal("last_delta_ns", "finish_ns", "usage_ns", "done_ns")


def _after_first(latency: pl.Expr, ttft: pl.Expr, tokens: pl.Expr) -> pl.Expr:
    return pl.when(tokens > 1).then((latency - ttft) / (tokens - 1))


def _all_of_it(_latency: pl.Expr, _ttft: pl.Expr, tokens: pl.Expr) -> pl.Expr:
    return pl.when(tokens > 0).then((pl.col("last_delta") - pl.col("start")) / 1e9 / tokens)


FORMULAS: Mapping[str, Formulas] = {
    "vllm": Formulas(
        _POSTED,
        pl.col("first_event_ns"),
        _LAST_EVENT,
        pl.col("end_ns"),
        "chunks",
        _after_first,
        "TTFT ends at the first event with choices, also one without text; connection set-up is inside it; its run "
        "begins one gap before the first request, which ours doesn't",
    ),
    "aiperf": Formulas(
        _POSTED,
        _TEXT,
        pl.col("last_delta_ns"),
        pl.col("last_delta_ns"),
        "request",
        _after_first,
        "ITL is one mean per request, (latency - TTFT) / (tokens - 1); connection set-up is inside TTFT",
    ),
    "guidellm": Formulas(
        pl.col("start_ns"),
        _TEXT,
        pl.col("end_ns"),
        pl.col("end_ns"),
        "request",
        _all_of_it,
        "TPOT is (last text - start) / tokens, TTFT included; ITL is a mean per request; latency ends with the stream",
    ),
    "sglang": Formulas(
        _POSTED,
        _TEXT,
        _LAST_LINE,
        _LAST_LINE,
        "chunks",
        _after_first,
        "latency ends at the last line, [DONE] or usage; it opens a connection per request, which ours didn't",
    ),
    "evalscope": Formulas(
        _POSTED,
        _TEXT,
        _LAST_JSON,
        _LAST_JSON,
        "chunks",
        _after_first,
        "latency ends at the last JSON event, usage included; connection set-up is inside TTFT",
    ),
}


@dataclass(frozen=True, slots=True)
class AsTool:
    """Answered, measured requests of one stage under a tool's formulas; times in seconds."""

    tool: str
    duration_s: float
    requests_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    ttft: Summary
    tpot: Summary
    itl: Summary
    latency: Summary
    notes: str


def as_tool(tool: str, frame: pl.DataFrame) -> AsTool:
    """`frame`: requests.with_metrics of a stage's measured, answered requests. Throughput is over first start to last
    end, ramp-up and drain included, as all of them do it."""
    formulas, replies = FORMULAS[tool], replies_of(tool, frame)
    spans = replies.group_by("session").agg(began=pl.col("start").min(), ended=pl.col("over").max())
    duration = float((spans["ended"] - spans["began"]).sum()) / 1e9
    output, prompts = float(replies["tokens"].sum()), float(replies["prompt"].sum())
    return AsTool(
        tool=tool,
        duration_s=duration,
        requests_per_s=replies.height / duration if duration else float("nan"),
        output_tokens_per_s=output / duration if duration else float("nan"),
        total_tokens_per_s=(output + prompts) / duration if duration else float("nan"),
        ttft=summarise(_column(replies, "ttft")),
        tpot=summarise(_column(replies, "tpot")),
        itl=summarise(_itl(tool, replies)),
        latency=summarise(_column(replies, "latency")),
        notes=formulas.notes,
    )


def replies_of(tool: str, frame: pl.DataFrame) -> pl.DataFrame:
    """The replies with `latency`, `ttft` and `tpot` in seconds as the tool would have seen them, and the marks that it
    goes by in ns. `frame`: as of as_tool, whose order they keep."""
    formulas = FORMULAS[tool]
    replies = frame.select(
        "request_id",
        "chunks",
        "tokens",
        start=formulas.starts,
        over=formulas.over,
        text_start="start_ns",
        first_event="first_event_ns",
        finish="finish_ns",
        last_delta="last_delta_ns",
        first_text="first_text_user_ns",
        prompt=pl.coalesce("prompt_tokens", "input_tokens"),
        latency=(formulas.ends - formulas.starts) / 1e9,
        ttft=(formulas.first - formulas.starts) / 1e9,
        session="session_id",
    )
    return replies.with_columns(tpot=formulas.tpot(pl.col("latency"), pl.col("ttft"), pl.col("tokens")))


def _itl(tool: str, replies: pl.DataFrame) -> Floats:
    if FORMULAS[tool].itl == "request":
        spread = (pl.col("last_delta") - pl.col("first_text")) / 1e9 / (pl.col("tokens") - 1)
        if tool == "aiperf":
            spread = (pl.col("latency") - pl.col("ttft")) / (pl.col("tokens") - 1)
        return _column(replies.select(itl=pl.when(pl.col("tokens") > 1).then(spread)), "itl")
    gaps = vllm_gaps(replies) if tool == "vllm" else [np.diff(t) for t in chunk_times(replies["chunks"].to_list())]
    return np.concatenate(gaps) if gaps else np.empty(0)


def vllm_gaps(replies: pl.DataFrame) -> list[Floats]:
    """Of each reply the gaps between events with choices, in order: an early role event and the finish event are two of
    them."""
    ends = replies.select(
        early=(pl.col("first_text") - pl.col("first_event")) / 1e9,
        late=(pl.col("finish") - pl.col("last_delta")) / 1e9,
    )
    return [
        np.concatenate(([early] if early else [], np.diff(times), [late] if late else []))
        for times, (early, late) in zip(chunk_times(replies["chunks"].to_list()), ends.iter_rows(), strict=True)
    ]


def _column(frame: pl.DataFrame, name: str) -> Floats:
    values: Floats = frame[name].cast(pl.Float64).to_numpy()
    return values
