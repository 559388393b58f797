"""`--as TOOL`: each tool's client written again from its description, event by event, on replies with known instants.

Our formulas read stored marks; these read the events of a stream as the tool's own loop would meet them.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from analyzer.bench.read.request_metrics import with_metrics
from analyzer.bench.read.stage_facts import REQUESTS
from analyzer.bench.report.as_tools import as_tool
from kvt_async.contract.formulas.chunk_encoding import encode_chunks

US = 1000
PROMPT = 64


@dataclass(frozen=True)
class Reply:
    """`events`: (ns, kind) in order; kind role | text | finish | usage | done. `posted`: handed to HTTP; `start`: the
    first byte written."""

    posted: int
    start: int
    events: tuple[tuple[int, str], ...]
    end: int
    tokens: int

    def last(self, *kinds: str) -> int:
        return max(at for at, kind in self.events if kind in kinds)

    @property
    def texts(self) -> list[int]:
        return [at for at, kind in self.events if kind == "text"]


@dataclass(frozen=True)
class Told:
    """What a tool makes of one reply, in ns: it prints means and percentiles of these."""

    ttft: float
    latency: float
    itl: list[float]
    tpot: float | None
    over: int


def vllm(reply: Reply) -> Told:
    """Every event with choices counts, text or not: the first ends TTFT, each later one gives an ITL, the last ends
    the latency; usage and [DONE] do neither. Its clock of the whole run stops when the task has read to the end."""
    ttft, itl, before = 0.0, [], reply.posted
    for at, kind in reply.events:
        if kind in ("role", "text", "finish"):
            if before == reply.posted:
                ttft = at - reply.posted
            else:
                itl.append(float(at - before))
            before = at
    return _told(reply, ttft, before - reply.posted, itl, reply.end)


def sglang(reply: Reply) -> Told:
    """Texts alone make TTFT and ITL; the latency ends at the last line, [DONE] or usage."""
    itl = [float(b - a) for a, b in pairwise(reply.texts)]
    over = reply.last("text", "finish", "usage", "done")
    return _told(reply, reply.texts[0] - reply.posted, over - reply.posted, itl, over)


def evalscope(reply: Reply) -> Told:
    """As sglang, but the latency ends at the last JSON event."""
    itl = [float(b - a) for a, b in pairwise(reply.texts)]
    over = reply.last("text", "finish", "usage")
    return _told(reply, reply.texts[0] - reply.posted, over - reply.posted, itl, over)


def aiperf(reply: Reply) -> Told:
    """One ITL a request: what is left of its latency after TTFT, per token after the first."""
    ttft, latency = reply.texts[0] - reply.posted, reply.texts[-1] - reply.posted
    told = _told(reply, ttft, latency, [], reply.texts[-1])
    return Told(told.ttft, told.latency, [told.tpot] if told.tpot is not None else [], told.tpot, told.over)


def guidellm(reply: Reply) -> Told:
    """Its clock starts with the first header byte; TPOT holds TTFT; one ITL a request; latency to the stream's end."""
    first, last = reply.texts[0], reply.texts[-1]
    itl = [(last - first) / (reply.tokens - 1)] if reply.tokens > 1 else []
    return Told(first - reply.start, reply.end - reply.start, itl, (last - reply.start) / reply.tokens, reply.end)


def _told(reply: Reply, ttft: float, latency: float, itl: list[float], over: int) -> Told:
    tpot = (latency - ttft) / (reply.tokens - 1) if reply.tokens > 1 else None
    return Told(float(ttft), float(latency), itl, tpot, over)


CLIENTS: dict[str, Callable[[Reply], Told]] = {
    "vllm": vllm, "sglang": sglang, "evalscope": evalscope, "aiperf": aiperf, "guidellm": guidellm,
}  # fmt: skip


def replies(n: int) -> list[Reply]:
    """Of any shape a server may send: with or without an early role event, one token or many, several to a chunk."""
    dice, found = random.Random(7), []

    def after(at: int, least_us: int, most_us: int) -> int:
        return at + dice.randint(least_us, most_us) * US

    for number in range(n):
        posted = number * 50_000 * US + dice.randint(0, 9000) * US
        start = at = after(posted, 0, 900)
        events = []
        if dice.random() < 0.5:
            events.append((at := after(at, 500, 3000), "role"))
        at = after(at, 20_000, 90_000)
        chunks = dice.choice([1, 2, 7, 40])
        for _ in range(chunks):
            events.append((at, "text"))
            at = after(at, 1000, 30_000)
        for kind in ("finish", "usage", "done"):
            at = after(at, 1, 2000)
            events.append((at, kind))
        found.append(Reply(posted, start, tuple(events), after(at, 0, 500), chunks * dice.choice([1, 1, 3])))
    return found


def frame(sent: list[Reply]) -> pl.DataFrame:
    """The same replies as the store has them."""
    rows = []
    for number, reply in enumerate(sent):
        first, last = reply.texts[0], reply.texts[-1]
        rows.append({
            "request_id": str(number), "session_id": "s", "phase": "measured", "state": "response", "number": number,
            "limits_ns": reply.posted, "start_ns": reply.start, "first_byte_ns": reply.events[0][0],
            "first_event_ns": reply.events[0][0], "first_text_ns": first, "first_text_user_ns": first,
            "last_delta_ns": last, "finish_ns": reply.last("finish"), "usage_ns": reply.last("usage"),
            "done_ns": reply.last("done"), "end_ns": reply.end, "n_text_chunks": len(reply.texts),
            "chunks": encode_chunks([((at - reply.start) // US, 4) for at in reply.texts]),
            "prompt_tokens": PROMPT, "completion_tokens": reply.tokens, "input_tokens": PROMPT,
        })  # fmt: skip
    return with_metrics(pl.DataFrame([{**dict.fromkeys(REQUESTS), **row} for row in rows], schema=REQUESTS))


@pytest.mark.parametrize("tool", CLIENTS)
def test_a_run_under_a_tools_formulas_is_what_its_own_loop_would_have_printed(tool: str) -> None:
    sent = replies(200)
    told = [CLIENTS[tool](reply) for reply in sent]
    seen = as_tool(tool, frame(sent))
    starts = [reply.start if tool == "guidellm" else reply.posted for reply in sent]
    seconds = (max(one.over for one in told) - min(starts)) / 1e9
    tokens = sum(reply.tokens for reply in sent)
    assert seen.duration_s == pytest.approx(seconds)
    assert seen.requests_per_s == pytest.approx(len(sent) / seconds)
    assert seen.output_tokens_per_s == pytest.approx(tokens / seconds)
    assert seen.total_tokens_per_s == pytest.approx((tokens + PROMPT * len(sent)) / seconds)
    expected = {
        "ttft": [one.ttft for one in told],
        "latency": [one.latency for one in told],
        "tpot": [one.tpot for one in told if one.tpot is not None],
        "itl": [gap for one in told for gap in one.itl],
    }
    for metric, values in expected.items():
        found = getattr(seen, metric)
        assert found.n == len(values), metric
        assert found.mean == pytest.approx(np.mean(values) / 1e9), metric
        for name, q in (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99)):
            assert found.quantiles[name] == pytest.approx(np.percentile(values, q) / 1e9), (metric, name)
