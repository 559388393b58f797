"""What the server of a level says of its budget where kv.evidence reads a metric or the launch log: before the first
request, and after the last one. Replies that echo their budget need none of this: it is in their own rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kvt_async.records import Json, Level
from kvt_async.session import handshake
from kvt_async.session.server_check import changed, keep_snapshot, level_evidence, shown_by
from kvt_async.session.session import ServerSession


@dataclass(slots=True)
class LevelEvidence:
    """Kept beside every stage of a level. `identities`: who its endpoints are; `before`: what was said before the first
    request; None: kv.evidence asks nothing of the kind."""

    server: ServerSession
    level: Level
    identities: Mapping[str, Json]
    engine_name: str
    before: Json | None
    _run_ids: list[str] = field(default_factory=list)

    @classmethod
    async def of_level(cls, server: ServerSession, level: Level, identities: Mapping[str, Json]) -> "LevelEvidence":
        before = await level_evidence(server, level) if server.settings.bench.levels else None
        name = handshake.engine_name(next(iter(identities.values())))
        return cls(server, level, {url: identities[url] for url in level.endpoints}, name, before)

    async def keep(self, run_id: str) -> None:
        """Store what was said before the first request beside a stage that is about to be sent."""
        if self.before is not None:
            self._run_ids.append(run_id)
            await self._keep("start", {run_id: self.before})

    async def look_again(self) -> None:
        """Ask once more after the last request, and store the answer beside every stage of the level."""
        if self.before is None or not self._run_ids:
            return
        after = await shown_by(self.server, self.level)
        if after is not None:
            await self._keep("end", dict.fromkeys(self._run_ids, after))
            if (sentence := changed(self.before, after)) is not None:
                self.server.say(f"warning: {sentence}")

    async def _keep(self, phase: str, evidence: Mapping[str, Json]) -> None:
        for endpoint, identity in self.identities.items():
            await keep_snapshot(self.server, phase, endpoint, identity, evidence, None)
