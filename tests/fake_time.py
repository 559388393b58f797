"""An event loop whose clock jumps to the next timer instead of waiting: hours of limits and waits in milliseconds."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """Starts at 1,000 s. Nothing real may be waited for: no sockets, no threads."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0
        really = self._selector.select  # type: ignore[attr-defined]

        def select(timeout: float | None = None) -> Any:
            assert timeout is not None, "everything waits for something that will never happen"
            self._now += max(timeout, 1e-6)  # time passes, if little, also while there is work
            return really(0)

        self._selector.select = select  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._now

    def block(self, seconds: float) -> None:
        """So much time passes at once: somebody held the loop up."""
        self._now += seconds


def in_fake_time(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        return runner.run(main)
