"""A session's server, before its first request and after its last: is it the one that served this group so far, what
does it say about the budgets it applies, and what of that changed meanwhile."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import orjson

from kvt_async.clock import utc_now
from kvt_async.contract.errors import DriftError
from kvt_async.contract.formulas.server_identity import drift, known
from kvt_async.contract.settings import Settings
from kvt_async.contract.urls import public_url
from kvt_async.engine.send.sender import Sender
from kvt_async.records import Json, Run
from kvt_async.session import handshake, metrics_page
from kvt_async.session.run_log import RunLog
from kvt_async.session.server_evidence import shown
from kvt_async.store.reader import Reader
from kvt_async.store.writer import Writer
from kvt_async.ways.levels import label
from kvt_async.ways.registry import way_of
from kvt_async.ways.way import StartedServer


@dataclass(frozen=True, slots=True)
class Meeting:
    """`say` prints a line for people, `log` writes one for machines; `launched`: the server where kvt started it."""

    settings: Settings
    reader: Reader
    store: Writer
    sender: Sender
    session_id: str
    runs: Sequence[Run]
    say: Callable[[str], None]
    log: RunLog
    launched: StartedServer | None = None

    @property
    def endpoints(self) -> list[str]:
        """Every base URL of the levels, once."""
        return list(dict.fromkeys(url for run in self.runs for url in run.level.endpoints))

    async def who(self, generation: int) -> list[Json]:
        """Every endpoint's identity. Raises DriftError where it is not the server of this generation so far."""
        found = await self._identities()
        before = handshake.last_identities(self.reader, self.settings.experiment.exp_group_id, generation)
        one_server = way_of(self.settings.kv.apply.via).one_server  # wherever it lives by now
        anywhere = known(before.values()) if one_server else {}
        changed = [
            (public_url(endpoint), sentence)
            for endpoint, now in zip(self.endpoints, found, strict=True)
            for sentence in drift(
                before.get(handshake.identity_key(endpoint, self._launched_for), anywhere), now, self._model
            )
        ]
        self._compare_replicas(dict(zip(self.endpoints, found, strict=True)))
        for endpoint, sentence in changed:
            self.log("drift", endpoint=endpoint, what=sentence)
        if changed:
            raise DriftError(
                "the server is not the one that served this group before; nothing was sent to it",
                where=changed[0][0],
                details=tuple(sentence for _, sentence in changed),
                do="Bring the old server back, choose a new experiment.exp_group_id, or pass --force to start a new "
                "generation beside the old one: answers of two servers are never mixed.",
            )
        return found

    async def evidence(self) -> dict[str, Json]:
        """By run: what its server says of itself where kv.evidence reads a metric or the launch log."""
        found = await self._shown()
        for run in self.runs:
            one = found.get(run.run_id)
            if one is not None and one["value"] is None:
                self.say(f"warning: {label(run.level)}: {one['read_from']} shows no budget: it stays unverified")
        return found

    async def keep(self, phase: str, found: Sequence[Json], said: Mapping[str, Json]) -> None:
        """A row in `server_snapshots` for every endpoint: who it is and, by run, the evidence it gives."""
        for endpoint, one in zip(self.endpoints, found, strict=True):
            of = {
                run.run_id: said[run.run_id]
                for run in self.runs
                if run.run_id in said and endpoint in run.level.endpoints
            }
            await self.store.insert(
                "server_snapshots",
                {
                    "session_id": self.session_id,
                    "run_id": self._launched_for,
                    "taken_at": utc_now(),
                    "phase": phase,
                    "endpoint": public_url(endpoint),
                    "identity_json": orjson.dumps(one | ({"evidence": of} if of else {})).decode(),
                },
            )

    async def part(self, start: Sequence[Json], before: Mapping[str, Json]) -> list[str]:
        """Keep who it is at the end; what should be known of the meantime, as sentences."""
        found, after = await self._identities(), await self._shown()
        await self.keep("end", found, after)
        said = []
        for endpoint, then, now in zip(self.endpoints, start, found, strict=True):
            for sentence in drift(then, now, self._model):
                said.append(f"{sentence} during the session: analyze will refuse what was sent in it")
                self.log("drift", endpoint=endpoint, what=sentence)
            hits = metrics_page.prefix_hits(then.get("metrics", {}), now.get("metrics", {}))
            if hits is not None and hits["hits"] > 0:
                of = f" of {hits['queries']:,.0f}" if hits["queries"] else ""
                said.append(
                    f"{hits['hits']:,.0f}{of} prompt tokens came from the prefix cache of {public_url(endpoint)}: "
                    "compare latencies within one cache state only"
                )
                self.log("prefix_cache", endpoint=endpoint, **hits)
        for run in self.runs:
            one, other = before.get(run.run_id), after.get(run.run_id)
            if one is not None and other is not None and other["value"] not in (None, one["value"]):
                words = f"said {one['raw']} before its requests and {other['raw']} after them"
                said.append(f"{label(run.level)}: {one['read_from']} {words}")
        return said

    @property
    def _launched_for(self) -> str | None:
        """The level this server was launched for: another level's server may well be another."""
        return self.runs[0].run_id if self.launched is not None else None

    @property
    def _model(self) -> str:
        return self.settings.model.name

    async def _identities(self) -> list[Json]:
        return await handshake.identities(self.sender, self.endpoints, self._model)

    async def _shown(self) -> dict[str, Json]:
        output = self.launched.output if self.launched is not None else None
        found = {
            run.run_id: await shown(self.sender, run.level, output) for run in self.runs if not run.level.cuts_prompts
        }
        return {run_id: one for run_id, one in found.items() if one is not None}

    def _compare_replicas(self, found: Mapping[str, Json]) -> None:
        """The URLs of one level must be one server many times over."""
        for urls in dict.fromkeys(run.level.endpoints for run in self.runs):
            for url in urls[1:]:
                for sentence in drift(found[urls[0]], found[url], self._model):
                    pair = f"{public_url(url)} beside {public_url(urls[0])}"
                    self.say(f"warning: {pair}: {sentence}; one level is served by two servers")
