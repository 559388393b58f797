"""The config's section `workload`."""

from typing import Literal

from kvt_async.contract.config_section import Section


class TurnSettings(Section):
    """How the turns of a conversation are sent. Data without conversations knows neither.

    reuse: turns: a conversation's turns one after the other, to one endpoint, so that its prefix cache can serve them.
    history: own: the earlier answers in a prompt are this run's own, not the data's.
    """

    reuse: Literal["none", "turns"] = "none"
    history: Literal["golden", "own"] = "golden"

    @property
    def is_in_turns(self) -> bool:
        """Whether a turn waits for the end of the one before."""
        return self.reuse == "turns" or self.history == "own"
