"""A trace as a workload: its lengths, what its prompts share and, in a replay, when they were asked for."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from kvt_async.bench import length_draws
from kvt_async.bench.exact_texts import TextMaker
from kvt_async.bench.load_steps import Load
from kvt_async.bench.request_details import RequestDetails
from kvt_async.bench.traces.block_texts import BlockTexts, Wanted
from kvt_async.bench.traces.trace_source import HEAD, TraceRequest, TraceSource
from kvt_async.bench.traces.trace_summary import TracePart, TraceSummary, summarise
from kvt_async.bench.workload_prompt import OUTPUT_STREAM, Place, WorkloadPrompt, bare_template
from kvt_async.contract.settings import Settings
from kvt_async.data.tokens import PromptTokenizer
from kvt_async.records import Json


class FromTrace:
    """Requests in the trace's order; at its end it begins again, with other texts. Nothing of it is held in memory but
    its first rows: `prompts` reads on as it is asked for rising places."""

    streams = True

    def __init__(self, settings: Settings, tokenizer: PromptTokenizer) -> None:
        bench = settings.bench
        self.tokenizer, self._bench, self._work = tokenizer, bench, bench.workload
        self._output_tokens = bench.workload.of_replies
        self.template_version = bare_template(settings)
        self._source = TraceSource(bench.workload, timed=bench.replays, has_outputs=self._output_tokens is not None)
        maker = TextMaker(tokenizer, endpoint=settings.prompt.endpoint, system=settings.prompt.system)
        self._maker, self._texts = maker, BlockTexts(maker, self._source.edges)

    @cached_property
    def summary(self) -> TraceSummary:
        """Of what this bench sends of it, in one pass that also finds every row of that part that can't be read."""
        bench = self._bench
        most = None if bench.requests == "auto" else bench.requests
        until_s = []
        if bench.replays and (bench.duration_s is not None or most is None):
            most = None
            until_s = [(bench.duration_s or bench.max_s) * speed for speed in bench.speeds]
        return summarise(self._source, most_requests=most, until_s=until_s, least_tokens=self._texts.least)

    @property
    def size(self) -> int | None:
        """Requests of the whole trace, as far as its end was seen."""
        return self._source.size

    @property
    def about(self) -> Sequence[str]:
        return [self.summary.sentence(str(self._work.path), self._source.format, timed=self._bench.replays)]

    @property
    def notes(self) -> Sequence[str]:
        path, summary = str(self._work.path), self.summary
        notes = summary.notes(path, self._texts.least, timed=self._bench.replays)
        if self._output_tokens is not None and summary.n_with_output:
            notes.append(
                f"{path}: its replies' lengths are known; bench.workload.output_tokens is asked for instead (null: the "
                "trace's)"
            )
        return notes

    def describe(self) -> Json:
        work = self._work.model_dump(mode="json", include={"kind", "length_scale", "max_input_tokens"})
        return {
            **work,
            "output_tokens": None if self._output_tokens is None else self._output_tokens.model_dump(mode="json"),
            "format": self._source.format,
            "block_tokens": self._source.edges.block_tokens,
            "path_sha256": self._source.sha256,
            "salted": self._bench.salted,
            "tokenizer": self.tokenizer.name,
            "tokenizer_sha256": self.tokenizer.sha256,
        }

    def mean_output_tokens(self) -> float:
        if self._output_tokens is not None:
            return length_draws.mean(self._output_tokens)
        return self.summary.output_tokens / max(self.summary.n_with_output, 1)

    def replayed(self, load: Load) -> TracePart:
        """What a replay at this speed sends: the trace's first requests."""
        bench, summary = self._bench, self.summary
        seconds = bench.duration_s or bench.max_s
        return summary.parts.get(seconds * (load.speed or 1.0), summary.part)

    def at_s(self, seq: int) -> float:
        """When the request of this number was asked for, on the trace's clock."""
        return self._source.at(seq).at_s

    def prompts(self, places: Sequence[Place]) -> list[WorkloadPrompt]:
        """Raises ConfigError for a row that can't be read."""
        requests = [self._request(place) for place in places]
        wanted = [self._wanted(place, request) for place, request in zip(places, requests, strict=True)]
        texts = self._texts.texts(wanted)
        return [
            WorkloadPrompt(
                messages=self._maker.messages(text),
                input_tokens=max(self._texts.least, request.input_tokens),
                output_tokens=self._output(place, request),
                details=RequestDetails(
                    source_line=request.line,
                    shared_tokens=None if place.is_warm_up else request.shared_tokens,
                ),
                at_s=request.at_s,
            )
            for text, place, request in zip(texts, places, requests, strict=True)
        ]

    def _request(self, place: Place) -> TraceRequest:
        """What warms up is as long as the trace's first requests, and shares nothing with them."""
        return self._source.at(place.seq % HEAD if place.is_warm_up else place.seq)

    def _wanted(self, place: Place, request: TraceRequest) -> Wanted:
        part = "warm-up" if place.is_warm_up else request.pass_idx
        root = f"{self._bench.seed}:{place.salt or ''}:{part}"
        return Wanted(request.input_tokens, request.blocks, root, f"{root}:own:{place.seq}")

    def _output(self, place: Place, request: TraceRequest) -> int:
        if self._output_tokens is not None:
            return length_draws.draw(self._output_tokens, (self._bench.seed, place.repeat, place.seq, OUTPUT_STREAM))
        assert request.output_tokens is not None
        return request.output_tokens


def replayed_part(workload: object, load: Load) -> TracePart | None:
    """What a replay sends of its trace; None: the load is no replay."""
    return workload.replayed(load) if isinstance(workload, FromTrace) and load.speed is not None else None


def paced(workload: object, load: Load) -> Load:
    """The load with the mean rate that it comes to, where a trace says it."""
    part = replayed_part(workload, load)
    if part is None or part.seconds == 0:  # all at once: no rate
        return load
    return replace(load, pace_per_s=part.rate_per_s(load.speed or 1.0))
