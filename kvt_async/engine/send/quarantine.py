"""Endpoints of a level that could not be reached: set aside, and asked on a page of theirs until one answers again."""

import asyncio
from collections.abc import Awaitable, Callable

Ask = Callable[[str], Awaitable[bool]]  # base URL -> whether it answers

PROBE_S = 1.0  # between two questions to an endpoint that is set aside


class Quarantine:
    """Which endpoints are set aside: requests go to the others, while there are any, and none pays for finding out."""

    def __init__(self, ask: Ask, every_s: float = PROBE_S) -> None:
        self._ask, self._every_s = ask, every_s
        self._asking: dict[str, asyncio.Task[None]] = {}

    def __contains__(self, endpoint: str) -> bool:
        return endpoint in self._asking

    def put(self, endpoint: str) -> None:
        """Until it answers, or `release`."""
        if endpoint not in self._asking:
            self._asking[endpoint] = asyncio.create_task(self._until_it_answers(endpoint), name=f"probe {endpoint}")

    def release(self, endpoint: str) -> None:
        """It has answered a request; nothing to do where it was never set aside."""
        if (task := self._asking.pop(endpoint, None)) is not None:
            task.cancel()

    async def close(self) -> None:
        """Stop asking."""
        tasks = list(self._asking.values())
        self._asking.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_it_answers(self, endpoint: str) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            if await self._ask(endpoint):
                self._asking.pop(endpoint, None)
                return
