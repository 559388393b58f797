"""Which ErrorType a server's refusal is: by status, by the words of its error object, never by luck."""

import re
from typing import Any

from kvt_async.contract.errors import ErrorType

_QUOTA = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance")
_OVERFLOW = re.compile(
    r"context[_ ]?(length|size|window)|maximum context|max_model_len|max_seq_len|max_input_len"
    r"|prompt is too long|input is too long|prompt .{0,80}longer than|input .{0,80}longer than"
    r"|exceeds? the .{0,40}(sequence|context|max)|max_new_tokens`? must be|reduce the length",
    re.IGNORECASE,
)
_OVERFLOW_STATUS = (400, 413, 422)


def of_status(status: int, body: Any, text: str) -> ErrorType:
    """Of a reply with status >= 300. `body`: its parsed JSON or None; `text`: its beginning."""
    if status == 429:
        return ErrorType.QUOTA if _names(body) & set(_QUOTA) else ErrorType.RATE_LIMITED
    if status in _OVERFLOW_STATUS and is_overflow(body, text):
        return ErrorType.CONTEXT_OVERFLOW
    return ErrorType.HTTP


def of_event(error: Any, text: str) -> ErrorType:
    """Of an error object that came under status 200."""
    names = _names(error)
    if names & set(_QUOTA):
        return ErrorType.QUOTA
    if is_overflow(error, text):
        return ErrorType.CONTEXT_OVERFLOW
    if code_of(error) == 429 or names & {"rate_limit_exceeded", "rate_limit_error", "too_many_requests"}:
        return ErrorType.RATE_LIMITED
    return ErrorType.STREAM_ERROR


def is_overflow(body: Any, text: str) -> bool:
    names = _names(body)
    return bool(names & {"context_length_exceeded", "exceed_context_size_error"}) or bool(_OVERFLOW.search(text))


def code_of(error: Any) -> int | None:
    """The HTTP status an error object claims, if it claims one."""
    inner = error.get("error", error) if isinstance(error, dict) else None
    for key in ("code", "status", "status_code"):
        value = inner.get(key) if isinstance(inner, dict) else None
        if isinstance(value, str) and value.isdigit():
            value = int(value)
        if type(value) is int and 400 <= value <= 599:
            return value
    return None


def message_of(body: Any) -> str | None:
    """The sentence in an error object, in any of the shapes servers use."""
    for _ in range(3):
        if isinstance(body, str):
            return body
        if not isinstance(body, dict):
            return None
        body = next((body[k] for k in ("error", "message", "detail", "msg") if body.get(k)), None)
    return None


def _names(body: Any) -> set[str]:
    inner = body.get("error", body) if isinstance(body, dict) else None
    if not isinstance(inner, dict):
        return set()
    return {str(inner[k]).lower() for k in ("code", "type") if isinstance(inner.get(k), str)}
