"""Places of a workload -> requests with their bodies encoded before any clock starts; bodies wait in a file.

Flat memory in the number of requests, and nothing is tokenised while replies are being timed.
"""

import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType

from kvt_async.bench.conversations.conversation_workload import conversations_of
from kvt_async.bench.request_details import NO_DETAILS, RequestDetails
from kvt_async.bench.request_models import asking, with_model
from kvt_async.bench.stage import Stage
from kvt_async.bench.workload import Place, Workload, WorkloadPrompt
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.prompt_text import messages_sha256
from kvt_async.contract.settings import Settings
from kvt_async.engine.request.chat_body import PATHS, build_payload
from kvt_async.engine.request.kv_evidence import expectation
from kvt_async.engine.request.kv_fields import PromptSize
from kvt_async.engine.request.template import map_strings
from kvt_async.records import Headers, Json, Level, Payload, Request
from kvt_async.store.columns import Row

BLOCK = 256  # prompts tokenised together


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """A request of the schedule; its body lies at `at` in the file."""

    seq: int
    measured: bool
    input_tokens: int
    output_tokens: int
    group_idx: int | None
    prompt_sha256: str
    at: int
    size: int
    headers: Headers = ()
    details: RequestDetails = NO_DETAILS
    at_s: float | None = None  # on a trace's own clock


class BodyFile:
    """A temporary file of request bodies, gone with the process."""

    def __enter__(self) -> "BodyFile":
        self._file = tempfile.TemporaryFile(prefix="kvt-bench-")
        self._end, self._lock = 0, threading.Lock()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._file.close()

    def put(self, body: bytes) -> int:
        with self._lock:  # turns of conversations are made in threads
            at, self._end = self._end, self._end + len(body)
        os.pwrite(self._file.fileno(), body, at)
        return at

    def get(self, planned: PlannedRequest) -> bytes:
        return os.pread(self._file.fileno(), planned.size, planned.at)


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes the requests of one stage."""

    settings: Settings
    workload: Workload
    stage: Stage
    bodies: BodyFile
    shown: Json | None = None  # what the server says of its budget: see session/server_evidence.py

    def plan(
        self, seqs: Sequence[int], *, measured: bool, replies: Mapping[int, Sequence[str]] | None = None
    ) -> list[PlannedRequest]:
        """Tokenise, encode and put away; in blocks. Takes a while: call it in a thread. `replies`: of conversations,
        see ConversationWorkload.prompts."""
        planned = []
        for at in range(0, len(seqs), BLOCK):
            block = seqs[at : at + BLOCK]
            places = [Place(seq, self.stage.salt, self.stage.repeat, not measured) for seq in block]
            conversations = conversations_of(self.workload)
            prompts = (
                self.workload.prompts(places) if conversations is None else conversations.prompts(places, replies or {})
            )
            for seq, made in zip(block, prompts, strict=True):
                details = with_model(self.settings.bench, made.details, self.stage.repeat, seq)
                prompt = replace(made, details=details)
                payload = encode(self.settings, prompt, self.stage.run.level)
                planned.append(
                    PlannedRequest(
                        seq=seq,
                        measured=measured,
                        input_tokens=prompt.input_tokens,
                        output_tokens=prompt.output_tokens,
                        group_idx=prompt.group_idx,
                        prompt_sha256=messages_sha256(prompt.messages),
                        at=self.bodies.put(payload.body),
                        size=len(payload.body),
                        headers=payload.headers,
                        details=prompt.details,
                        at_s=prompt.at_s,
                    )
                )
        return planned

    def request_id(self, seq: int) -> str:
        return f"{self.stage.run.run_id}:{seq}"

    def example(self, planned: PlannedRequest) -> tuple[str, int]:
        """`requests.example_id` and sample_idx: where answers are scored, the manifest's and which asking this is;
        else the place in the schedule."""
        example_id, size = planned.details.example_id, self.workload.size
        if not self.settings.bench.scored or example_id is None or size is None:
            return f"p{planned.seq}", 0
        return example_id, planned.seq // size

    def request(self, planned: PlannedRequest, attempts_before: int = 0) -> Request:
        level, run_id = self.stage.run.level, self.stage.run.run_id
        expects: Json = expectation(level, planned.input_tokens) if self.stage.level is not None else {}
        if expects and self.shown is not None:
            expects["server"] = self.shown
        return Request(
            request_id=self.request_id(planned.seq),
            run_id=run_id,
            example_id=self.example(planned)[0],
            endpoints=level.endpoints,
            path=PATHS[self.settings.prompt.endpoint],
            body=self.bodies.get(planned),
            headers=planned.headers,
            stream=self.settings.engine.stream,
            prompt_tokens=planned.input_tokens,
            max_tokens=planned.output_tokens,
            attempts_before=attempts_before,
            expects=expects,
        )

    def rows(self, planned: PlannedRequest, offset_ns: int | None, session_id: str, now: str) -> Iterator[Row]:
        """Its rows in `requests`, `bench_arrivals` and, where there is more to say, `bench_requests`."""
        run_id = self.stage.run.run_id
        request_id, phase = self.request_id(planned.seq), "measured" if planned.measured else "warm_up"
        yield "requests", (request_id, run_id, *self.example(planned), 0, planned.prompt_sha256, now)
        yield (
            "bench_arrivals",
            (
                *(request_id, session_id, phase, offset_ns),
                *(planned.input_tokens, planned.output_tokens, planned.group_idx),
            ),
        )
        if (details := planned.details.row(request_id)) is not None:
            yield details


def encode(settings: Settings, prompt: WorkloadPrompt, level: Level) -> Payload:
    """What is sent: the sweep's payload, with this prompt's output length and the fields of bench.body; a null leaves
    one out, whoever put it there."""
    numbers = {"{input_tokens}": prompt.input_tokens, "{output_tokens}": prompt.output_tokens}
    fields = map_strings(settings.bench.body, lambda text: _number_in(text, numbers))
    extra = {**settings.decoding.extra_body, **fields}
    decoding = settings.decoding.model_copy(update={"max_tokens": prompt.output_tokens, "extra_body": extra})
    size = PromptSize(prompt.input_tokens, None, prompt.context_chars, prompt.context_messages)
    settings = asking(settings, prompt.details.model)
    return build_payload(settings.model_copy(update={"decoding": decoding}), prompt.messages, level, size)


def _number_in(text: str, numbers: Mapping[str, int]) -> str | int:
    """The number in the place of a placeholder. Raises ConfigError for one that there isn't."""
    if not (text.startswith("{") and text.endswith("}")):
        return text
    if text not in numbers:
        raise ConfigError(f"there is no placeholder {text}", where="bench.body", do=f"Known: {', '.join(numbers)}.")
    return numbers[text]
