"""Refusals that say nothing about the request: an expired key, an empty purse, a host that isn't our server any more.

A request that is refused like that is neither answered nor failed yet. Once another one, sent later, is answered, it
was the request's own fault (a prompt that a filter refuses), and it is given up. When several are refused and none is
answered in between, a request that was answered before is sent once more: refused too, the run stops, and all that was
refused stays pending. So one odd refusal stops nothing, and a key that expires costs no answer.
"""

from dataclasses import dataclass

from msgspec.structs import replace

from kvt_async.engine.reply.error_types import Cause
from kvt_async.records import Outcome

ALIKE = 3  # refused requests, none answered since, before it is found out why

_WHY: dict[Cause, str] = {
    "key": "the server refuses our credentials",
    "purse": "the server says that the account's quota or balance is used up",
    "host": "what answers is not a server that takes these requests",
}


@dataclass(frozen=True, slots=True)
class Refused:
    """A request whose end is open: `outcome` is what it comes to if it was refused on its own account."""

    outcome: Outcome
    cause: Cause
    endpoint: str  # as it may be shown
    at_s: float  # when it was refused, monotonic


class Refusals:
    """Those whose end is open, oldest first."""

    def __init__(self) -> None:
        self.held: list[Refused] = []

    def are_alike(self, endpoint: str) -> bool:
        """Whether it refused so many that it can hardly be their own fault."""
        return sum(refused.endpoint == endpoint for refused in self.held) >= ALIKE

    def hold(self, refused: Refused) -> Outcome:
        """What to say of the request meanwhile: tried, and still pending."""
        self.held.append(refused)
        return replace(refused.outcome, give_up=None)

    def answered(self, endpoint: str, began_s: float) -> tuple[Outcome, ...]:
        """It answered a request that began then: those that it had refused by then were so on their own account."""
        freed = [refused for refused in self.held if refused.endpoint == endpoint and refused.at_s < began_s]
        self.held = [refused for refused in self.held if refused not in freed]
        return tuple(refused.outcome for refused in freed)

    def newest(self, endpoint: str) -> Refused | None:
        """The last one that it refused; None: another answer has settled them all."""
        return next((refused for refused in reversed(self.held) if refused.endpoint == endpoint), None)


def sentence(refused: Refused) -> str:
    """Why the run stops, with the server's own words."""
    last = refused.outcome.last
    message = f" ({last.error_message})" if last is not None and last.error_message else ""
    return f"{refused.endpoint}: {_WHY[refused.cause]}{message}; no request is given up for that"
