"""The nouns of the runner. Fields named like columns mean what contract/schema.sql says.

All are frozen but Marks, which an attempt fills field by field while it lives. What every request makes anew is a
msgspec Struct: made in a third of a dataclass's time, and frozen at no cost. None of them can be part of a cycle, so
the garbage collector need not look at them (`gc=False`).
"""

import json
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct
from msgspec import field as struct_field

from kvt_async.contract.errors import EndState, ErrorType
from kvt_async.contract.labels import level_label, task_level
from kvt_async.contract.settings_kv import cuts_prompts
from kvt_async.contract.vocabulary import FULL, Mode, Unit, When

Json = dict[str, Any]
Headers = tuple[tuple[str, str], ...]  # (name, value) of what one request carries beside the headers of all


@dataclass(frozen=True, slots=True)
class Example:
    """One canonical example. `meta["turns"]`, if present, are earlier chat turns [[question, answer], ...]."""

    example_id: str
    question: str
    context: str
    answers: tuple[str, ...]
    meta: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Level:
    """One series at one budget. A stored run of that series, budget, unit and repeat has to agree with it in policy,
    mode, when, params, apply and evidence: session/experiment_rows.py."""

    series: str  # readable unique label; "full" at full cache
    policy: str
    budget: float
    unit: Unit
    mode: Mode
    params: Json
    is_full: bool
    apply_via: str  # name of a way: kvt_async/ways
    apply: Json  # kv.apply for this level, without URLs and commands' ports: part of the identity
    evidence: Json
    repeat_idx: int = 0
    level_idx: int = 0
    when: When = When.PREFILL  # the policy evicts
    endpoints: tuple[str, ...] = ()  # base URLs that serve this level

    @property
    def label(self) -> str:
        """How it is called on screen and in errors."""
        return level_label(self.series, self.budget, self.unit, is_full=self.is_full, repeat_idx=self.repeat_idx)

    @property
    def cuts_prompts(self) -> bool:
        """Whether its prompts are cut before they are sent: a control, which any server serves."""
        return cuts_prompts(self.policy)

    @property
    def serves_full(self) -> bool:
        """Whether the server is to keep the whole cache: at full cache, its restrictions aside, and of prompts that
        were cut."""
        return self.is_full or self.is_constrained or self.cuts_prompts

    @property
    def is_constrained(self) -> bool:
        """Whether it is full cache under the other restrictions of the levels (kv.constrained): nobody's baseline."""
        return self.policy == FULL and not self.is_full

    @property
    def decodes(self) -> bool:
        """Whether the policy evicts while the answer is generated, be it alone or after prefill too."""
        return self.when != When.PREFILL


@dataclass(frozen=True, slots=True)
class Run:
    """A level of a task with its row in `runs`."""

    run_id: str
    level: Level
    stored: bool  # was there before this session
    task: str = ""  # its name where the group has several, else ''
    dataset_id: str = ""  # of the task's manifest in this database; '': not settled yet

    @property
    def label(self) -> str:
        """How it is called on screen and in errors."""
        return task_level(self.task, self.level.label)


@dataclass(frozen=True, slots=True)
class TaskPart:
    """A task as a part of its group: what its rows are called and compared by."""

    name: str
    manifest_id: str  # dataset_id of its manifest
    contract: Json
    samples: int = 1
    label: str = ""  # its name where the group has several tasks, else ''
    stored_id: str | None = None  # its dataset_id in the database; None: this generation doesn't have it


class Payload(Struct, frozen=True, gc=False):
    """What a server is sent for one prompt at one level. `body` is complete and encoded."""

    path: str  # /chat/completions | /completions
    body: bytes
    headers: Headers = ()


class Request(Struct, frozen=True, gc=False):
    """One prompt to send at one level. `body` is complete and encoded before any clock starts."""

    request_id: str
    run_id: str
    example_id: str
    endpoints: tuple[str, ...]  # base URLs; several: the one with the fewest requests in flight takes it
    path: str  # /chat/completions | /completions
    body: bytes
    stream: bool
    prompt_tokens: int  # our count, for the token limit
    max_tokens: int
    series_idx: int = 0  # try series (0 unless --retry-failed)
    attempts_before: int = 0  # attempts stored by earlier sessions: the next attempt_idx
    expects: Json = struct_field(default_factory=dict)  # requested budget, for the evidence
    headers: Headers = ()
    prompt_sha256: str | None = None  # of the messages where they aren't the manifest's (truncate_prompt)
    keeps_first: bool = False  # the first endpoint takes it, as long as that one can be reached


class Marks(Struct, gc=False):
    """Instants of one attempt, monotonic ns; None: it didn't happen. Columns of `telemetry`. Not frozen: the transport,
    the reader of the reply and the sender each write what they see."""

    intended_ns: int | None = None
    scheduled_ns: int | None = None
    dequeued_ns: int | None = None
    limits_ns: int | None = None
    conn_ready_ns: int | None = None
    conn_reused: int | None = None
    start_ns: int | None = None
    headers_sent_ns: int | None = None
    body_sent_ns: int | None = None
    status_ns: int | None = None
    first_byte_ns: int | None = None
    first_event_ns: int | None = None
    first_reasoning_ns: int | None = None
    first_content_ns: int | None = None
    first_tool_ns: int | None = None
    last_delta_ns: int | None = None
    finish_ns: int | None = None
    usage_ns: int | None = None
    done_ns: int | None = None
    end_ns: int | None = None
    stamp_source: str = "user"
    first_byte_kernel_ns: int | None = None
    first_text_kernel_ns: int | None = None
    first_text_coalesced: int | None = None
    n_events: int | None = None
    n_text_chunks: int | None = None
    bytes_received: int | None = None
    chunks: bytes | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None


class Reply(Struct, frozen=True, gc=False):
    """The successful end of an attempt."""

    text: str
    reasoning: str | None
    finish_reason: str | None
    usage: Json | None
    kv_evidence: Json | None
    kv_effective: float | None
    tool_calls: list[Json] | None = None  # name, arguments (text as sent) and, where the server gave one, id of each

    @property
    def answer(self) -> str:
        """What is equal where replies say the same: the text, and the tool calls without their ids, always new."""
        if not self.tool_calls:
            return self.text
        calls = [[call["name"], call["arguments"]] for call in self.tool_calls]
        return f"{self.text}{json.dumps(calls, ensure_ascii=False)}"


class Attempt(Struct, frozen=True, gc=False):
    """One HTTP try. Exactly one of `error_type` and `reply` is set."""

    attempt_idx: int
    series_idx: int
    started_at: str
    endpoint: str
    http_status: int | None
    end_state: EndState
    error_type: ErrorType | None
    error_message: str | None
    partial_text: str | None
    retry_after_s: float | None
    latency_s: float
    marks: Marks
    reply: Reply | None = None


class Outcome(Struct, frozen=True, gc=False):
    """The end of one request in this session. Earlier attempts were recorded as they ended; `last` was not.

    `give_up` None and no reply: not done (breaker, Ctrl-C, a refusal that may not be its own fault); the next run sends
    it again. `settles`: earlier ones of that kind whose end is known with this one; their attempts were stored.
    """

    request: Request
    last: Attempt | None
    give_up: str | None = None
    settles: tuple["Outcome", ...] = ()

    @property
    def reply(self) -> Reply | None:
        return self.last.reply if self.last else None
