"""A canary over launched servers: each is up once, one after the other, so every prompt is asked where its level is."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from kvt_async.contract.settings import Settings
from kvt_async.records import Level, Run
from kvt_async.session.canary import ask, conclude, counts, in_order, known_verdict
from kvt_async.session.canary_prompts import FIRST
from kvt_async.session.canary_verdict import AskedPrompt, Canary, Pair, judge, pairs
from kvt_async.session.invocation import Invocation
from kvt_async.session.probes import Asking, Probes, refuse_all_failed
from kvt_async.store.reader import Entry


@dataclass(slots=True)
class _Spread:
    """One pair: full cache is asked where it is served, the harsh level on its own server."""

    pair: Pair
    earlier: Canary | None  # the verdict of an earlier session on these levels
    verdict: Canary | None = None
    prompts: list[AskedPrompt] = field(default_factory=list)

    def needs(self, levels: Sequence[Level]) -> bool:
        if self.earlier is not None or self.verdict is not None:
            return False
        return self.pair.harsh in levels or (not self.prompts and self.pair.mild in levels)

    async def visit(self, probes: Probes, levels: Sequence[Level], entries: Sequence[Entry]) -> Canary | None:
        harsh = self.pair.harsh
        if self.earlier is not None and self.verdict is None:
            self.verdict = self.earlier
            await conclude(probes, self.earlier, harsh)
        if not self.needs(levels):
            return None
        if not self.prompts and self.pair.mild in levels:
            ordered = in_order(self.pair, entries)
            chosen = [*ordered[:FIRST], *(entry for entry in ordered[FIRST:] if entry.seq < 0)]
            self.prompts = [await ask(probes, self.pair, entry, []) for entry in chosen]
            refuse_all_failed([prompt.full for prompt in self.prompts])
        if not self.prompts or harsh not in levels:
            return None
        for prompt in self.prompts:
            prompt.below.append((harsh, await probes(harsh, prompt.entry, ours=prompt.entry.seq < 0)))
        self.verdict = replace(judge(self.pair, self.prompts), counts=counts(self.prompts), when=self.pair.when)
        await conclude(probes, self.verdict, harsh)
        return self.verdict


@dataclass(frozen=True, slots=True)
class Spread:
    """The canaries of launched levels: one for each time at which they evict."""

    parts: tuple[_Spread, ...]

    @classmethod
    def over(cls, invocation: Invocation, generation: int, levels: Sequence[Level]) -> "Spread | None":
        """The canaries of these levels, with what an earlier session found; None: nothing for them to judge."""
        group, reader = invocation.group, invocation.reader
        parts = [_Spread(two, known_verdict(reader, group, generation, two.harsh)) for two in pairs(levels)]
        return cls(tuple(parts)) if parts else None

    def early(self, servers: list[list[Run]]) -> list[list[Run]]:
        """The same servers, each with the runs it serves, the harshest levels' behind the first one: a dead knob is
        then known early."""
        for part in reversed(self.parts):
            at = next((n for n, runs in enumerate(servers) if any(run.level == part.pair.harsh for run in runs)), 0)
            if at > 1:
                servers = [*servers[:1], servers[at], *servers[1:at], *servers[at + 1 :]]
        return servers

    def needs(self, levels: Sequence[Level]) -> bool:
        """Whether a server of these levels must be asked before it is sent anything."""
        return any(part.needs(levels) for part in self.parts)

    async def visit(
        self, settings: Settings, levels: Sequence[Level], entries: Sequence[Entry], asking: Asking
    ) -> list[Canary]:
        """Ask the server that is up now; the verdicts of pairs that were both asked by then. Raises as `run_canary`
        does.

        Each server is up once, so no prompt can be added later: the first few are asked, and those of our own.
        """
        probes = Probes(settings, asking)
        canaries = [await part.visit(probes, levels, entries) for part in self.parts]
        return [canary for canary in canaries if canary is not None]
