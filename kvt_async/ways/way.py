"""What a way of applying a budget is. One module of this folder is one way; registry.py knows them by name.

To add one: a subclass of RunningServer that says what differs, and a call of `registry.register` before a config is
loaded. One of kvt's own has its name and keys in contract/settings_kv.py and its object in registry.py instead. Nothing
else names a way.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Literal, Protocol

from kvt_async.contract.settings import Settings
from kvt_async.contract.settings_kv import Apply
from kvt_async.records import Json, Level, Run

Say = Callable[[str], None]  # prints a line for people
CanaryPlace = Literal["within", "across", "none"]  # on one server, on a server each, nowhere: there is nothing to judge


class StartedServer(Protocol):
    """A server that a way has started for some levels."""

    @property
    def log(self) -> Path:
        """Where what it prints is kept."""
        ...

    @property
    def died(self) -> bool:
        """Whether it has ended by now."""
        ...

    async def ended(self) -> str:
        """Wait until it does, by itself; a sentence about it."""
        ...

    def output(self) -> str:
        """What it has printed since it was started."""
        ...


class Way(Protocol):
    """How a budget reaches the server, and everything that depends on it."""

    name: str  # kv.apply.via
    canary: CanaryPlace  # where budgets are held against full cache before a sweep
    one_server: bool  # whether all levels are served by one server, wherever it lives by now
    takes_any_budget: bool  # whether a server that is up can be asked a budget that no level names
    names_mode: bool  # whether the server is told kv.mode, so that a series is named by it
    full_has_params: bool  # whether full cache too depends on kv.params, as a data type that stands in a command
    restarts: int  # how often a server that dies under a level is started again

    def check_order(self, order: str) -> None:
        """Raises ConfigError for a limits.order that can't be had."""
        ...

    def check(self, settings: Settings, level: Level) -> None:
        """Raises ConfigError for a level that can't be applied. Called before anything is sent."""
        ...

    def with_port(self, settings: Settings) -> Settings:
        """The settings to go on with; a free port stands in the URLs of servers that are still to be started."""
        ...

    def identity(self, apply: Apply, *, serves_full: bool) -> Json:
        """What of kv.apply makes a level another level, beside the way's name: it is stored with the run.

        The engine reads two keys of it: `body`, a template of fields to merge into each request's body, and `header`,
        templates of headers by name. `serves_full`: of a level whose whole cache is to be kept.
        """
        ...

    def endpoints(self, apply: Apply, policy: str, budget: float, *, is_full: bool) -> str | list[str] | None:
        """Base URLs of the servers of a level; None: engine.base_url. Raises ConfigError where a level has none."""
        ...

    def groups(self, settings: Settings, runs: Sequence[Run]) -> list[list[Run]]:
        """The runs in the order of their servers, those of one server together."""
        ...

    def serve(
        self, settings: Settings, level: Level, folder: Path, say: Say
    ) -> AbstractAsyncContextManager[StartedServer | None]:
        """The level's server while the block runs; None: it runs already, and is nobody's to stop.

        `folder`: where its log goes. Raises ServerError when it ends or isn't ready in time.
        """
        ...


class RunningServer(Way):
    """A way whose levels are all served by one server, which runs already: what most ways are."""

    canary: CanaryPlace = "within"
    one_server = True
    takes_any_budget = False
    names_mode = False
    full_has_params = False
    restarts = 0

    def check_order(self, order: str) -> None:
        """Any order can be had."""

    def check(self, settings: Settings, level: Level) -> None:
        """Nothing of a level can be wrong."""

    def with_port(self, settings: Settings) -> Settings:
        return settings

    def identity(self, apply: Apply, *, serves_full: bool) -> Json:
        return {}

    def endpoints(self, apply: Apply, policy: str, budget: float, *, is_full: bool) -> str | list[str] | None:
        return None

    def groups(self, settings: Settings, runs: Sequence[Run]) -> list[list[Run]]:
        return [list(runs)]

    def serve(
        self, settings: Settings, level: Level, folder: Path, say: Say
    ) -> AbstractAsyncContextManager[StartedServer | None]:
        return nullcontext()
