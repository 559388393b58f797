"""Who sends a bench's load: a Sender that neither bounds nor paces it, and tries nothing again behind its back."""

from collections.abc import Sequence
from typing import Any

from kvt_async.contract.settings import Retry, Settings
from kvt_async.engine.send.breaker import Breaker
from kvt_async.engine.send.sender import Sender

NO_LIMIT = 1_000_000  # slots of a Sender whose load is bounded elsewhere: by slots of the closed loop, or by nothing
OUTAGE_S = 3.0  # nobody has answered for so long: the server is gone
OUTAGE_FAILURES = 5


def load_sender(settings: Settings, endpoints: Sequence[str]) -> Sender:
    """A Sender for the loads of `bench`, not yet opened."""
    limits: dict[str, Any] = {
        "concurrency": NO_LIMIT,
        "adaptive": False,
        "requests_per_minute": None,
        "tokens_per_minute": None,
    }
    if not settings.bench.retries:
        limits["retry"] = settings.limits.retry.model_copy(update={"max_attempts": 1})
    unlimited = settings.model_copy(update={"limits": settings.limits.model_copy(update=limits)})
    return Sender(unlimited, endpoints=endpoints, breaker=load_breaker(unlimited.limits.retry))


def load_breaker(retry: Retry) -> Breaker:
    """A breaker that trips when nobody has answered for some seconds; a single connection failure is an outcome like
    any other."""
    return Breaker(retry, outage_s=OUTAGE_S, needed=OUTAGE_FAILURES, failures_are_outcomes=True)
