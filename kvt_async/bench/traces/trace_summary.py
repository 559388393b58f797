"""What of a trace will be sent, from one pass over that part: counts, times, lengths, shares, and what was dropped."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kvt_async.bench.traces.trace_source import TraceSource


@dataclass(frozen=True, slots=True)
class TracePart:
    """The first requests of a trace that one stage sends."""

    n: int
    seconds: float  # on the trace's own clock, from its first request to the last of them

    def rate_per_s(self, speed: float) -> float:
        """Mean arrivals a second at this speed; infinite where all come at once."""
        return (self.n - 1) * speed / self.seconds if self.seconds > 0 else math.inf


@dataclass(slots=True)
class TraceSummary:
    """`part` is the longest of the parts that stages send; everything is of it."""

    part: TracePart = TracePart(0, 0.0)
    parts: dict[float, TracePart] = field(default_factory=dict)  # by the trace's seconds that they end at
    whole: bool = True  # nothing of the trace comes after it
    input_tokens: int = 0
    output_tokens: int = 0
    n_with_output: int = 0
    shared_tokens: int | None = None  # None: the trace doesn't say what is shared
    longest: int = 0
    n_lengthened: int = 0  # shorter than the shortest prompt that can be made
    n_early: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)

    def sentence(self, path: str, form: str, *, timed: bool) -> str:
        """What will be sent of it."""
        part = self.part
        span = f" over {part.seconds:,.1f} s of its own clock" if timed else ""
        head = "" if self.whole else "the first "
        mean = f"prompts of {self.input_tokens / part.n:,.0f} tokens in the mean, {self.longest:,} at most"
        return f"{path} ({form}): {head}{part.n:,} requests{span}, {mean}{self._shared()}"

    def notes(self, path: str, least: int, *, timed: bool) -> list[str]:
        """What of it is sent otherwise than it stands there, or not at all."""
        out = [f"{path}: {n:,} rows {reason} and are left out" for reason, n in self.dropped.items()]
        if self.n_early and timed:
            out.append(f"{path}: {self.n_early:,} rows are earlier than the row before; they are due together with it")
        if self.n_lengthened:
            out.append(
                f"{path}: {self.n_lengthened:,} prompts are shorter than the chat template and one word: they are sent "
                f"with {least} tokens"
            )
        return out

    def _shared(self) -> str:
        if self.shared_tokens is None:
            return "; it does not say what they share"
        return f"; {self.shared_tokens / self.input_tokens:.1%} of their tokens begin like an earlier prompt"


def summarise(
    source: TraceSource, *, most_requests: int | None, until_s: Sequence[float], least_tokens: int
) -> TraceSummary:
    """One pass over the trace: to `most_requests`, or to the last of `until_s` (seconds of the trace's clock), or to
    its end where both are empty. Raises ConfigError for a row of that part that can't be read."""
    summary, ends = TraceSummary(), sorted(until_s)
    for request in source.pass_over():
        while ends and request.at_s > ends[0]:
            summary.parts[ends.pop(0)] = summary.part
        if (until_s and not ends) or summary.part.n == most_requests:
            summary.whole = False
            break
        tokens = max(least_tokens, request.input_tokens)
        summary.part = TracePart(summary.part.n + 1, request.at_s)
        summary.input_tokens += tokens
        summary.n_lengthened += tokens > request.input_tokens
        summary.longest = max(summary.longest, tokens)
        summary.n_early += request.is_early
        if request.output_tokens is not None:
            summary.output_tokens += request.output_tokens
            summary.n_with_output += 1
        if request.shared_tokens is not None:
            summary.shared_tokens = (summary.shared_tokens or 0) + request.shared_tokens
    summary.parts |= dict.fromkeys(ends, summary.part)
    summary.dropped = source.dropped
    if summary.whole:
        source.size = summary.part.n
    return summary
