"""engine.timeouts: how long a server may take for a connection, for its first byte, between two, and for an answer."""

from typing import Final, Literal

from kvt_async.contract.config_section import Seconds, Section

SLOW_TOKENS_PER_S: Final = 5.0  # of one stream: a server that is slower has stopped, for all that a reader can see
LEAST_ANSWER_S: Final = 600.0
A_YEAR_S: Final = 365 * 86_400.0


class Timeouts(Section):
    connect_s: Seconds = 10
    ttfb_s: Seconds = 120
    idle_s: Seconds = 60
    total_s: Seconds | Literal["auto"] = "auto"

    def answer_s(self, max_tokens: int) -> float:
        """Seconds in which an answer of at most so many tokens has to end; auto: what a slow stream needs for them, and
        600 at least."""
        if self.total_s != "auto":
            return self.total_s
        return min(max(LEAST_ANSWER_S, max_tokens / SLOW_TOKENS_PER_S), A_YEAR_S)
