"""Records -> rows: the columns of the hot tables by name, and nothing else."""

from collections.abc import Iterable, Sequence

import orjson
from msgspec.structs import astuple, replace

from kvt_async.contract.cache_state import cache_state
from kvt_async.contract.errors import EndState, ErrorType
from kvt_async.contract.storable import storable_text
from kvt_async.records import Attempt, Json, Marks, Outcome, Request

Row = tuple[str, tuple[object, ...]]  # table, values in the order of COLUMNS[table]

COLUMNS: dict[str, tuple[str, ...]] = {
    "requests": ("request_id", "run_id", "example_id", "sample_idx", "turn_idx", "prompt_sha256", "created_at"),
    "try_series": ("request_id", "series_idx", "session_id", "created_at"),
    "attempts": (
        *("request_id", "attempt_idx", "series_idx", "session_id", "started_at", "endpoint", "http_status"),
        *("end_state", "error_type", "error_message", "partial_text", "retry_after_s", "latency_s"),
    ),
    "responses": (
        *("request_id", "attempt_idx", "text", "reasoning", "tool_calls_json", "finish_reason", "usage_json"),
        *("kv_evidence_json", "kv_effective", "cache_state", "created_at"),
    ),
    "telemetry": ("request_id", "attempt_idx", *Marks.__struct_fields__),
    "give_ups": ("request_id", "series_idx", "reason", "created_at"),
}


def rows_of_attempt(request: Request, attempt: Attempt, session_id: str, now: str) -> list[Row]:
    """One HTTP try: its attempt, its marks, and its response if it gave one."""
    request_id, attempt_idx, error, reply = request.request_id, attempt.attempt_idx, attempt.error_type, attempt.reply
    message, partial = attempt.error_message, attempt.partial_text
    attempt_row = (
        request_id,
        attempt_idx,
        attempt.series_idx,
        session_id,
        attempt.started_at,
        attempt.endpoint,
        attempt.http_status,
        str(attempt.end_state),
        None if error is None else str(error),
        message and _storable(message),
        partial and _storable(partial),
        attempt.retry_after_s,
        attempt.latency_s,
    )
    rows: list[Row] = [
        ("attempts", attempt_row),
        ("telemetry", (request_id, attempt_idx, *astuple(attempt.marks))),
    ]
    if reply is not None:
        reasoning, finish = reply.reasoning, reply.finish_reason
        response_row = (
            request_id,
            attempt_idx,
            _storable(reply.text),
            reasoning and _storable(reasoning),
            _json(reply.tool_calls),
            finish and _storable(finish),
            _json(reply.usage),
            _json(reply.kv_evidence),
            reply.kv_effective,
            _cache_state(attempt.marks),
            now,
        )
        rows.append(("responses", response_row))
    return rows


def unstorable(outcome: Outcome, error: Exception) -> Outcome | None:
    """The failure that stands in for an outcome whose rows can't be inserted; None: the outcome is that failure."""
    last = outcome.last
    if last is None or last.error_type is ErrorType.MALFORMED:
        return None
    failure = Attempt(
        attempt_idx=last.attempt_idx,
        series_idx=last.series_idx,
        started_at=last.started_at,
        endpoint=last.endpoint,
        http_status=None,
        end_state=EndState.MALFORMED,
        error_type=ErrorType.MALFORMED,
        error_message=f"kvt failed to store the reply ({type(error).__name__}; a bug of kvt: see bug-*.txt beside the "
        "database)",
        partial_text=None,
        retry_after_s=None,
        latency_s=last.latency_s,
        marks=Marks(start_ns=last.marks.start_ns, end_ns=last.marks.end_ns),
    )
    failed: Outcome = replace(outcome, last=failure, give_up="not_retryable")
    return failed


def rows_of_outcome(outcome: Outcome, session_id: str, now: str) -> list[Row]:
    """The last try of a request, its give-up, and those that it settles. Empty where nothing was sent (the breaker,
    Ctrl-C)."""
    request = outcome.request
    rows = rows_of_attempt(request, outcome.last, session_id, now) if outcome.last else []
    if outcome.give_up is not None or outcome.settles:
        rows += rows_of_give_ups((outcome, *outcome.settles), now)
    return rows


def rows_of_give_ups(outcomes: Iterable[Outcome], now: str) -> list[Row]:
    """The give_ups rows of those outcomes that are given up."""
    return [
        ("give_ups", (outcome.request.request_id, outcome.request.series_idx, outcome.give_up, now))
        for outcome in outcomes
        if outcome.give_up is not None
    ]


NewRequest = tuple[str, str, str, int, int, str]
"""request_id, run_id, example_id, sample_idx, turn_idx, prompt_sha256."""


def rows_of_requests(items: Sequence[NewRequest], now: str) -> list[Row]:
    """Rows of requests about to be queued."""
    return [("requests", (*item, now)) for item in items]


def _cache_state(marks: Marks) -> str | None:
    """Where the server says that the prompt came from; None: it doesn't say."""
    cached, prompt = marks.cached_tokens, marks.prompt_tokens
    return None if cached is None or not prompt else str(cache_state(cached / prompt))


def _json(value: Json | list[Json] | None) -> str | None:
    if value is None:
        return None
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # a number or a string that JSON can't hold for everybody, or too deep
        return orjson.dumps({"unreadable": _beginning(value)}).decode()


def _beginning(value: Json | list[Json]) -> str:
    try:
        return ascii(value)[:200]
    except (RecursionError, ValueError):  # ValueError: an integer of over 4,300 digits
        return "nested too deeply, or a number that is too long"


def _storable(text: str) -> str:
    return text if text.isascii() else storable_text(text)
