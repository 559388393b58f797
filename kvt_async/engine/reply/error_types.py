"""Which ErrorType a server's refusal is: by status, by the words of its error object, never by luck."""

import re
from collections.abc import Iterator
from typing import Any, Literal

from kvt_async.contract.errors import ErrorType
from kvt_async.engine.reply.failure_shapes import unwrapped
from kvt_async.records import Json

Cause = Literal["key", "purse", "host"]
"""Why a refusal says nothing about its request: credentials, money, or another server than the one that is meant."""
_HOST_STATUS = frozenset({404, 405, 410, 421, 426, 501, 505, 511})
_QUOTA = frozenset(
    {
        *("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance"),
        *("insufficient_credits", "insufficient_funds", "quota_exhausted", "account_overdue", "payment_required"),
    }
)
_EMPTY_PURSE = re.compile(
    r"insufficient[_ -](quota|balance|credits?|funds)|credit balance is too low|billing hard limit|payment required"
    r"|out of credits|spend(ing)? limit|余额不足|欠费|billing is not active|account .{0,20}(overdue|arrears)",
    re.IGNORECASE,
)
_PURSE_STATUS = (400, 403, 429)
_KEY = frozenset(
    {
        *("invalid_api_key", "authentication_error", "invalid_authentication", "unauthorized", "unauthenticated"),
        *("permission_denied", "permission_error", "access_denied", "token_expired", "expired_token", "invalid_token"),
    }
)
_KEY_STATUS = (401, 403, 407, 419, 440, 498)  # 419, 440, 498: a session or a token that expired, by custom
_BAD_KEY = re.compile(
    r"api[_ -]?key[^.]{0,30}(not valid|invalid|expired|revoked|incorrect|missing)|API_KEY_INVALID|\bunauthori[sz]ed\b"
    r"|(invalid|incorrect|expired|revoked|missing)[_ -](api[_ -]?key|(access[_ -]|auth[_ -])?token|credentials?)\b"
    r"|token (is |has )?(expired|been revoked)|authentication (failed|required|timeout)",
    re.IGNORECASE,
)
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")  # "AccessDenied"
_OVERFLOW = re.compile(
    r"context[_ ]?(length|size|window)|maximum context|max_model_len|max_seq_len|max_input_len"
    r"|prompt is too long|input is too long|prompt .{0,80}longer than|input .{0,80}longer than"
    r"|exceeds? the .{0,40}(sequence|context|max)|max_new_tokens`? must be|reduce the length",
    re.IGNORECASE,
)
_OVERFLOW_STATUS = (400, 413, 422)
_SENTENCES = ("error", "errors", "message", "detail", "msg", "error_msg", "status_msg")


def of_status(status: int, body: Any, text: str) -> ErrorType:
    """Of a reply with status >= 300. `body`: its parsed JSON or None; `text`: its beginning."""
    if status == 402 or (status in _PURSE_STATUS and _is_purse(_names(body), text)):
        return ErrorType.QUOTA
    if status == 429:
        return ErrorType.RATE_LIMITED
    if status in _OVERFLOW_STATUS and is_overflow(body, text):
        return ErrorType.CONTEXT_OVERFLOW
    return ErrorType.HTTP


def of_event(error: Any, text: str) -> ErrorType:
    """Of an error object that came under status 200; `text`: what it says, the whole of it."""
    names, code = _names(error), code_of(error)
    if code == 402 or _is_purse(names, text):
        return ErrorType.QUOTA
    if is_overflow(error, text):
        return ErrorType.CONTEXT_OVERFLOW
    if code == 429 or names & {"rate_limit_exceeded", "rate_limit_error", "too_many_requests"}:
        return ErrorType.RATE_LIMITED
    return ErrorType.STREAM_ERROR


def is_overflow(body: Any, text: str) -> bool:
    names = _names(body)
    return bool(names & {"context_length_exceeded", "exceed_context_size_error"}) or bool(_OVERFLOW.search(text))


def cause_of(kind: ErrorType, code: int | None, body: Any, text: str) -> Cause | None:
    """Of a refusal with that status, or one that claims it; None: it may well be about the request."""
    if kind is ErrorType.QUOTA:
        return "purse"
    if kind not in (ErrorType.HTTP, ErrorType.STREAM_ERROR):
        return None
    if code in _KEY_STATUS or (code in (None, 400, 500) and (_names(body) & _KEY or _BAD_KEY.search(text))):
        return "key"
    return "host" if code in _HOST_STATUS or (code is not None and 300 <= code < 400) else None


def code_of(error: Any) -> int | None:
    """The HTTP status an error object claims, if it claims one."""
    for holder in _nested(error):
        for key in ("code", "status", "status_code", "statusCode"):
            value = holder.get(key)
            if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdecimal():
                value = int(value)
            if type(value) is int and 400 <= value <= 599:
                return value
    return None


def message_of(body: Any) -> str | None:
    """The sentence in an error object, in any of the shapes servers use."""
    for _ in range(4):
        if isinstance(body, str):
            return body
        if isinstance(body, list) and body:
            body = body[0]
        if not isinstance(body, dict):
            return body if isinstance(body, str) else None
        body = next((body[k] for k in _SENTENCES if body.get(k)), None)
    return None


def _is_purse(names: set[str], text: str) -> bool:
    return bool(names & _QUOTA) or bool(_EMPTY_PURSE.search(text))


def _nested(body: Any) -> Iterator[Json]:
    """The objects that may hold an error's code: the body, its `error`, the first of `errors`."""
    body = unwrapped(body)
    if isinstance(body, dict):
        inner = body.get("error") or body.get("errors") or body.get("detail")
        yield from (holder for holder in (unwrapped(inner), body) if isinstance(holder, dict))


def _names(body: Any) -> set[str]:
    keys = ("code", "type", "status", "reason")
    names = {holder[k] for holder in _nested(body) for k in keys if isinstance(holder.get(k), str)}
    return {_HUMP.sub("_", name).replace("-", "_").lower() for name in names}
