"""When a bench stops because the server is gone. A failure is an outcome: nothing is tried again behind its back."""

from kvt_async.contract.settings import Retry
from kvt_async.engine.send.breaker import Breaker

OUTAGE_S = 3.0
FAILURES = 5


class Outage(Breaker):
    """Trips when nobody has answered for some seconds; single connection failures are outcomes like any other."""

    def __init__(self, retry: Retry) -> None:
        super().__init__(retry)
        self.outage_s, self._needed = OUTAGE_S, FAILURES

    def may_give_up(self, first_failed_at: float) -> bool:
        return True
