"""The `bench` section of the config: what load `kvt bench` puts on a server, with which prompts, and when it stops."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from kvt_async.contract.checked_text import valid_path, valid_url
from kvt_async.contract.config_section import Section
from kvt_async.contract.conversation_settings import MOST_TURNS, ThinkTimes
from kvt_async.contract.lengths import MOST_TOKENS, Lengths, Tokens
from kvt_async.contract.load_shape import LoadShape
from kvt_async.contract.model_shares import ModelShare, check_models
from kvt_async.contract.shape_settings import LoadStep, Ramp, steps_shape

Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=1e12)]
Count = Annotated[int, Field(ge=1)]
MOST_REQUESTS = 100_000_000  # of a stage: more can neither be planned nor stored
Seconds = Annotated[float, Field(gt=0, le=365 * 86_400)]
Rate = Annotated[float, Field(gt=0, le=1e9)]
InFlight = Annotated[int, Field(ge=1, le=1_000_000)]
SLO_METRICS = ("ttft", "ttfb", "tpot", "itl", "latency")
TOOLS = ("vllm", "aiperf", "guidellm", "sglang", "evalscope")  # whose formulas --as knows
SLO_STATS = ("mean", "p50", "p90", "p95", "p99", "max")
_SLO = re.compile(rf"({'|'.join(SLO_METRICS)})_({'|'.join(SLO_STATS)})_(ms|s)")


class Prefix(Section):
    """Shared-prefix groups: requests go to the groups in turn, and a group's prompts begin alike."""

    groups: Count = 1
    tokens: Annotated[int, Field(ge=0)] = 0  # of the shared part, in addition to input_tokens; 0: nothing is shared


OF_CONVERSATIONS = ("turns", "think_s", "history", "system_tokens", "shared_system")
OF_MADE_CONVERSATIONS = ("turns", "input_tokens", "system_tokens", "shared_system")
TRACE_FORMATS = Literal["auto", "mooncake", "azure", "burstgpt", "bailian", "csv"]
OF_TRACES = ("format", "speed", "length_scale", "max_input_tokens", "block_tokens")  # keys of kind: trace alone


class WorkloadSettings(Section):
    """Where prompts come from."""

    kind: Literal["synthetic", "manifest", "jsonl", "conversations", "trace"] = "synthetic"
    path: Annotated[str, AfterValidator(valid_path)] | None = (
        None  # manifest: a manifest.json; jsonl: ShareGPT-like, OpenAI batch, or {prompt: ...}; conversations: null
        # makes them, else ShareGPT-like, OpenAI messages or {turns: [{prompt: ..., reply: ...}, ...]}; trace: its file
    )
    input_tokens: Lengths = Lengths(kind="fixed", value=512)  # synthetic: of the whole rendered prompt; conversations:
    # of what a turn adds
    output_tokens: Lengths | None = Lengths(kind="fixed", value=128)  # null: the file's, else decoding.max_tokens
    prefix: Prefix = Prefix()
    # Of conversations alone:
    turns: Lengths = Lengths(kind="fixed", value=4)  # of a conversation
    think_s: ThinkTimes | None = None  # between the end of a turn and the next; null: the file's, else none
    history: Literal["recorded", "own"] = "recorded"  # earlier replies in a prompt: the file's, or this server's own
    system_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)] = 0  # of a system message before the first turn; 0: none
    shared_system: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of the conversations with one and the same of it
    # Of traces alone:
    format: TRACE_FORMATS = "auto"  # auto: by the file's first line
    speed: Annotated[float, Field(gt=0, le=1e6)] = 1.0  # replayed: so many times as fast as it was recorded
    length_scale: Annotated[float, Field(gt=0, le=1000)] = 1.0  # of prompts, their shared blocks, and replies
    max_input_tokens: Tokens | None = None  # longer prompts, once scaled, are left out
    block_tokens: Tokens | None = None  # of a block of hash_ids; null: the format's (512, Bailian's 16)

    @property
    def of_replies(self) -> Lengths | None:
        """Lengths to ask for instead of the source's own. A trace knows its replies' lengths: there the default of
        `output_tokens` asks for nothing else."""
        if self.kind == "trace" and self.output_tokens == type(self).model_fields["output_tokens"].default:
            return None
        return self.output_tokens

    @model_validator(mode="after")
    def _has_its_source(self) -> "WorkloadSettings":
        may_lack_it = self.kind in ("conversations", "manifest")
        if not may_lack_it and (self.kind != "synthetic") != (self.path is not None):
            raise ValueError("path belongs to kind: manifest, jsonl, trace and conversations; jsonl and trace need it")
        fields = type(self).model_fields
        for name in OF_TRACES:
            if self.kind != "trace" and getattr(self, name) != fields[name].default:
                raise ValueError(f"{name} belongs to kind: trace")
        if self.kind != "synthetic" and self.prefix.tokens:
            other = "; conversations begin alike with system_tokens and shared_system"
            raise ValueError("prefix belongs to kind: synthetic" + other * (self.kind == "conversations"))
        if self.kind in ("synthetic", "conversations") and self.path is None and self.output_tokens is None:
            raise ValueError(f"{self.kind} without a file needs output_tokens")
        return self

    @model_validator(mode="after")
    def _has_conversations(self) -> "WorkloadSettings":
        given = [name for name in OF_CONVERSATIONS if name in self.model_fields_set]
        if self.kind != "conversations":
            changed = [name for name in given if getattr(self, name) != type(self).model_fields[name].default]
            if changed:
                raise ValueError(f"{changed[0]} belongs to kind: conversations, not to {self.kind}")
            return self
        made = [name for name in OF_MADE_CONVERSATIONS if name in self.model_fields_set]
        changed = [name for name in made if getattr(self, name) != type(self).model_fields[name].default]
        if self.path is not None and changed:
            raise ValueError(f"{changed[0]} is of made conversations: those of a file are as long as they are there")
        if max(self.turns.high if self.turns.kind == "uniform" else 1, self.turns.value, *self.turns.values or [1]) > (
            MOST_TURNS
        ):
            raise ValueError(f"turns: a conversation has at most {MOST_TURNS:,}")
        if self.shared_system and not self.system_tokens:
            raise ValueError("shared_system needs system_tokens: the length of the message that is shared")
        return self


class WarmUp(Section):
    """Prompts outside of the measured set at the head of each stage, handed over without draining."""

    requests: Annotated[int, Field(ge=0, le=MOST_REQUESTS)] = 10  # open loop: at least; 0: none
    latencies: Annotated[float, Field(ge=0, le=1000)] = 1.25  # open loop: at least rate x so many, unless requests is 0
    rounds: Annotated[int, Field(ge=0, le=1000)] = 1  # closed loop: at least so many times the concurrency
    places: Annotated[float, Field(gt=0, le=1000)] | None = None  # instead of the three: see docs/BENCH.md


class Stop(Section):
    """When a ladder of loads ends: no higher one is sent once a rule holds for every repeat. null switches one off."""

    achieved_share: Share | None = 0.9  # open loop: proven to keep up with less of what arrives
    gain: Annotated[float, Field(ge=0)] | None = 0.03  # closed loop: proven to give less more output a rung
    error_share: Share | None = 0.1  # more failures than this share
    slo: bool = False  # an objective of bench.slo is missed


class Auto(Section):
    """sweep_rate: auto and sweep_concurrency: auto: start, start * factor, ... until a stop rule holds."""

    start: Rate = 1
    factor: Annotated[float, Field(gt=1, le=1000)] = 2
    max_stages: Count = 12


class Search(Section):
    """The highest rate that keeps every objective of bench.slo, by bisection between two rates."""

    low: Rate | None = None  # null: bench.auto finds both by its ladder
    high: Rate | None = None
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.05  # stop when high / low - 1 is below it
    max_stages: Count = 12

    @model_validator(mode="after")
    def _low_is_below_high(self) -> "Search":
        if (self.low is None) != (self.high is None):
            raise ValueError("give low and high, or neither")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        return self


class Bench(Section):
    """One load, a ladder of loads, or a search; see docs/BENCH.md."""

    rate: Rate | None = None  # open loop at this many requests a second
    concurrency: InFlight | None = None  # closed loop with so many in flight
    sweep_rate: list[Rate] | Literal["auto"] | None = None
    sweep_concurrency: list[InFlight] | Literal["auto"] | None = None
    search_rate: bool = False  # SLO search
    replay: bool = False  # open loop by a trace's own timestamps, workload.speed times as fast
    sweep_speed: list[Annotated[float, Field(gt=0, le=1e6)]] | None = None  # a ladder of replays
    ramp: Ramp | None = None  # a load that grows as the stage runs
    steps: list[LoadStep] = []  # loads in a row within one stage
    arrival: Literal["constant", "poisson", "gamma"] = "poisson"
    burstiness: Annotated[float, Field(ge=0.001, le=1e6)] = 1.0
    requests: Annotated[int, Field(ge=1, le=MOST_REQUESTS)] | Literal["auto"] = "auto"  # measured; see docs/BENCH.md
    max_s: Seconds = 600  # requests: auto begins nothing later than this into the measured part
    duration_s: Seconds | None = None
    repeats: Annotated[int, Field(ge=1, le=10_000)] = 1
    seed: int = 1337
    salt: bool | None = None  # null: true, but false where answers are scored: a salted prompt is another prompt
    levels: bool = False
    max_in_flight: InFlight | None = None
    late_ms: Positive = 10
    drain_s: Seconds | None = None
    retries: bool = False
    workload: WorkloadSettings = WorkloadSettings()
    models: Annotated[list[ModelShare], AfterValidator(check_models)] = []  # asked by weight instead of model.name
    body: dict[str, Any] = {}
    warm_up: WarmUp = WarmUp()
    slo: dict[str, Positive] = {}
    stop: Stop = Stop()
    auto: Auto = Auto()
    search: Search = Search()
    metrics_url: Annotated[str, AfterValidator(valid_url)] | None = None
    quality: Annotated[str, AfterValidator(valid_path)] | None = (
        None  # run directory or database of a sweep: its accuracy beside each level's throughput
    )
    scored: bool = False  # answers to a manifest's prompts are scored, beside the same prompts unloaded
    unloaded: Annotated[int, Field(ge=1, le=100)] = 2  # askings one at a time: one before the loads, the others after
    scrape_interval_s: Annotated[float, Field(ge=0, le=86_400)] = 1.0

    @property
    def replays(self) -> bool:
        """Whether a trace's own timestamps are the schedule."""
        return self.replay or self.sweep_speed is not None

    @property
    def speeds(self) -> list[float]:
        """Speeds of the replays that are asked for, in order; empty: none is."""
        if not self.replays:
            return []
        return self.sweep_speed if self.sweep_speed is not None else [self.workload.speed]

    @property
    def salted(self) -> bool:
        """Whether every prompt begins with text of its own."""
        return not self.scored if self.salt is None else self.salt

    @field_validator("slo", mode="before")
    @classmethod
    def _null_takes_an_objective_away(cls, slo: Any) -> Any:
        return {name: limit for name, limit in slo.items() if limit is not None} if isinstance(slo, dict) else slo

    @field_validator("slo")
    @classmethod
    def _known_objectives(cls, slo: dict[str, float]) -> dict[str, float]:
        for name in slo:
            if not _SLO.fullmatch(name):
                raise ValueError(
                    f"{name!r} is no objective: write METRIC_STAT_UNIT, e.g. ttft_p99_ms; metrics "
                    f"{', '.join(SLO_METRICS)}; stats {', '.join(SLO_STATS)}; units ms, s"
                )
        return slo

    @model_validator(mode="after")
    def _one_kind_of_load(self) -> "Bench":
        asked = [
            name
            for name in ("rate", "concurrency", "sweep_rate", "sweep_concurrency", "ramp", "steps")
            if getattr(self, name) not in (None, [])
        ] + (["search_rate"] if self.search_rate else [])
        asked += ["sweep_speed" if self.sweep_speed is not None else "replay"] if self.replays else []
        if len(asked) > 1:
            raise ValueError(f"one load at a time: {' and '.join(asked)} are both given")
        for name in ("sweep_rate", "sweep_concurrency", "sweep_speed"):
            loads = getattr(self, name)
            if isinstance(loads, list) and (not loads or len(set(loads)) != len(loads)):
                raise ValueError(f"{name} needs at least one value and no duplicates: {loads}")
        rates = [self.rate or 0.0, *(self.sweep_rate if isinstance(self.sweep_rate, list) else [])]
        if self.duration_s is not None and max(rates) * self.duration_s > MOST_REQUESTS:
            raise ValueError(
                f"{max(rates):g} requests a second for {self.duration_s:g} s are more than {MOST_REQUESTS:,} requests"
            )
        if self.workload.kind == "trace" and self.warm_up.places is not None:
            raise ValueError("warm_up.places is not for workload.kind: trace: say how many warm up, requests or rounds")
        if self.replays and self.workload.kind != "trace":
            raise ValueError("replay and sweep_speed need workload.kind: trace, whose timestamps are the schedule")
        self._check_shape()
        if self.models and self.scored:
            raise ValueError("answers are scored of one model: leave bench.models out, or do not score")
        if self.search_rate and not self.slo:
            raise ValueError("search_rate needs objectives in slo, e.g. ttft_p99_ms: 500")
        if self.arrival != "gamma" and self.burstiness != 1.0:
            raise ValueError(f"burstiness belongs to arrival: gamma, not to {self.arrival}")
        return self

    def _check_shape(self) -> None:
        if self.shape is not None and self.workload.kind == "conversations":
            raise ValueError("ramps and steps send requests that stand alone, not workload.kind: conversations")
        if self.warm_up.places is not None and self.workload.kind in ("conversations", "trace"):
            raise ValueError(f"warm_up.places is not for workload.kind: {self.workload.kind}: use warm_up.requests")
        if self.shape is None:
            return
        kind = self.shape.kind
        if self.requests != "auto":
            raise ValueError(f"a {kind} ends with its seconds: leave requests ({self.requests}) out")
        if self.steps and self.duration_s is not None:
            raise ValueError("steps say themselves how long they last: leave duration_s out")
        if self.shape_is_open and self.shape.area > MOST_REQUESTS:
            raise ValueError(f"the {kind} comes to {self.shape.area:,.0f} requests, above {MOST_REQUESTS:,}")

    @property
    def shape(self) -> LoadShape | None:
        """How the load changes as a stage runs; None: it doesn't."""
        if self.ramp is not None:
            return self.ramp.shape(self.duration_s)
        return steps_shape(self.steps) if self.steps else None

    @property
    def shape_is_open(self) -> bool:
        """Whether the shape is one of a rate."""
        return self.ramp.of == "rate" if self.ramp is not None else bool(self.steps and self.steps[0].rate)


def slo_parts(name: str) -> tuple[str, str, float]:
    """'ttft_p99_ms' -> ('ttft', 'p99', 1000.0): metric, statistic, and how many of its unit a second has."""
    parts = _SLO.fullmatch(name)
    if parts is None:
        raise ValueError(name)
    return parts[1], parts[2], 1000.0 if parts[3] == "ms" else 1.0
