"""What the server of a level says of its budget where kv.evidence reads a metric or the launch log: before the first
request, and after the last one. Replies that echo their budget need none of this: it is in their own rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import orjson

from kvt_async.bench.stage_run import BenchLive
from kvt_async.clock import utc_now
from kvt_async.contract.urls import public_url
from kvt_async.records import Json, Level
from kvt_async.session.server_evidence import shown


@dataclass(slots=True)
class Looks:
    """`shown`: the first look; None: kv.evidence asks nothing of the kind. `found`: who its
    endpoints are, in their order."""

    live: BenchLive
    level: Level
    found: Sequence[Json]
    output: Callable[[], str] | None  # what a launched server has printed
    shown: Json | None
    _run_ids: list[str] = field(default_factory=list)

    async def keep(self, run_id: str) -> None:
        """Of a stage that is about to be sent."""
        if self.shown is not None:
            self._run_ids.append(run_id)
            await self._keep("start", self.shown, [run_id])

    async def last_look(self) -> None:
        """Once more, for every stage of the level."""
        if self.shown is None or not self._run_ids:
            return
        now = await shown(self.live.sender, self.level, self.output)
        if now is not None:
            await self._keep("end", now, self._run_ids)
            if now["value"] not in (None, self.shown["value"]):
                said = f"said {self.shown['raw']} before its requests and {now['raw']} after them"
                self.live.say(f"warning: {now['read_from']} {said}")

    async def _keep(self, phase: str, said: Json, run_ids: Sequence[str]) -> None:
        for endpoint, one in zip(self.level.endpoints, self.found, strict=True):
            identity = {key: value for key, value in one.items() if key != "engine_name"}
            await self.live.store.insert(
                "server_snapshots",
                {
                    "session_id": self.live.session_id,
                    "run_id": None,
                    "taken_at": utc_now(),
                    "phase": phase,
                    "endpoint": public_url(endpoint),
                    "identity_json": orjson.dumps({**identity, "evidence": dict.fromkeys(run_ids, said)}).decode(),
                },
            )
