"""Which attempts earn another try, and when. Pure decisions, and tenacity to carry them out."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from tenacity import AsyncRetrying, RetryCallState, retry_if_result

from kvt_async.contract.errors import ErrorType
from kvt_async.contract.settings import Retry
from kvt_async.engine.send.tried import Tried

GiveUp = Literal["not_retryable", "attempts_exhausted", "time_exhausted", "retry_after_too_long"]

CONNECTION_LEVEL = frozenset({ErrorType.CONNECTION, ErrorType.CONNECT_TIMEOUT, ErrorType.TLS})
BROKEN_BY_PAUSES = frozenset(
    {
        *(ErrorType.CONNECT_TIMEOUT, ErrorType.TTFB_TIMEOUT, ErrorType.IDLE_TIMEOUT, ErrorType.TOTAL_TIMEOUT),
        *(ErrorType.CONNECTION, ErrorType.STREAM_CUT),
    }
)  # what becomes of a request while this process is stopped
NEVER = frozenset({ErrorType.QUOTA, ErrorType.CONTEXT_OVERFLOW, ErrorType.TLS, ErrorType.CANCELLED})
RETRIED_STATUS = frozenset({408, 409, 429})
LASTING_STATUS = frozenset({501, 505, 507, 511})  # not implemented, no room, log in first: as it will be the next time
MAX_EXPONENT = 30


@dataclass(frozen=True, slots=True)
class Decision:
    """Either another try after `wait_s`, or the end for a reason; `reason` None without a wait: it succeeded."""

    wait_s: float | None = None
    reason: GiveUp | None = None


def is_retryable(tried: Tried) -> bool:
    """Timeouts, broken connections and replies, 408/409/429, and 5xx but for 501/505/507/511. A server's x-should-retry
    is obeyed, but nothing helps an exhausted quota, an over-long context or a certificate."""
    attempt = tried.attempt
    if attempt.error_type is None or attempt.error_type in NEVER:
        return False
    if tried.hints.should_retry is not None:
        return tried.hints.should_retry
    status = attempt.http_status if attempt.error_type is ErrorType.HTTP else tried.code
    if attempt.error_type in (ErrorType.HTTP, ErrorType.STREAM_ERROR) and status is not None:
        return status in RETRIED_STATUS or (status >= 500 and status not in LASTING_STATUS)
    return True


def backoff_s(retry: Retry, n_tries: int, rng: random.Random) -> float:
    """Full jitter: anything up to initial * 2^(tries - 1), so that a crowd of clients doesn't come back together."""
    return rng.uniform(0.0, min(retry.max_wait_s, retry.initial_s * 2.0 ** min(n_tries - 1, MAX_EXPONENT)))


def schedule_s(retry: Retry) -> float:
    """The longest that the waits between `max_attempts` tries can take together."""
    waits = (retry.initial_s * 2.0 ** min(n, MAX_EXPONENT) for n in range(min(retry.max_attempts - 1, 1000)))
    return min(sum(min(wait, retry.max_wait_s) for wait in waits), retry.max_elapsed_s)


def decide(tried: Tried, retry: Retry, n_tries: int, waited_s: float, rng: random.Random) -> Decision:
    """After try number `n_tries` (1, 2, ...) and `waited_s` of pauses between them: the running of an answer, however
    long, is no waiting."""
    if tried.attempt.error_type is None:
        return Decision()
    if not is_retryable(tried):
        return Decision(reason="not_retryable")
    if n_tries >= retry.max_attempts:
        return Decision(reason="attempts_exhausted")
    left = retry.max_elapsed_s - waited_s
    wait, retry_after_s = backoff_s(retry, n_tries, rng), tried.hints.retry_after_s
    if retry_after_s is not None:
        if retry_after_s > left:
            return Decision(reason="retry_after_too_long")
        # Every request was told the same instant.
        wait = max(wait, retry_after_s + rng.uniform(0.0, min(retry.initial_s, left - retry_after_s)))
    elif tried.hints.reset_s is not None and tried.attempt.error_type is ErrorType.RATE_LIMITED:
        wait = max(wait, min(tried.hints.reset_s, retry.max_wait_s))
    return Decision(reason="time_exhausted") if wait > left else Decision(wait_s=wait)


async def with_retries(
    first: tuple[Tried | None, Decision],
    attempt: Callable[[], Awaitable[tuple[Tried | None, Decision]]],
    sleep: Callable[[float], Awaitable[None]],
) -> tuple[Tried | None, Decision]:
    """After a first try that is to be repeated: call `attempt` until its decision is no wait.

    Exceptions (CancelledError, bugs) pass through, never retried. Setting up tenacity costs as much as a whole request,
    and few need it.
    """
    made = [first]

    def wait(state: RetryCallState) -> float:
        assert state.outcome is not None
        decision: Decision = state.outcome.result()[1]
        return decision.wait_s or 0.0

    async def once() -> tuple[Tried | None, Decision]:
        return made.pop() if made else await attempt()

    async def doze(seconds: int | float) -> None:
        await sleep(float(seconds))

    retrying = AsyncRetrying(retry=retry_if_result(lambda end: end[1].wait_s is not None), wait=wait, sleep=doze)
    end: tuple[Tried | None, Decision] = await retrying(once)
    return end
