"""What the policy decides on: one attempt, and what its exchange says beyond that. Pure: no transport is needed."""

from msgspec import Struct

from kvt_async.engine.reply.error_types import Cause
from kvt_async.engine.reply.retry_headers import Hints
from kvt_async.records import Attempt

_NO_HINTS = Hints()


class Tried(Struct, frozen=True, gc=False):
    """An attempt and what the policy wants to know about it beyond what is stored."""

    attempt: Attempt
    hints: Hints = _NO_HINTS
    stale: bool = False  # a pooled connection was found closed before anything of the reply came
    code: int | None = None  # status that an error object under 200 claims
    cause: Cause | None = None  # why its refusal says nothing about the request
    ours: str | None = None  # what this machine lacked: nothing was sent
