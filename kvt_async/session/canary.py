"""Does the server apply the budget at all? Asked before a sweep.

Servers drop request fields they don't know, silently; a sweep over such a knob measures a flat line. So prompts of the
manifest, a long, a short and a middle one, are sent at full cache twice and at the config's harshest budget once, with
answers of several tokens (eviction after prefill can't change the first one of a question-aware prompt). Where nothing
changes, a budget that destroys is asked too; where that changes nothing either, more prompts are, and lookups of our
own, whose answers always need their context. Equal to full, twice, on all of them: a dead knob. The sweep's own answers
may still overrule it.

Launched levels have a server each, one after the other: `Spread` asks the first two of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import orjson

from kvt_async.contract.errors import DeadKnobError
from kvt_async.contract.formulas.prompt_counts import is_short
from kvt_async.contract.paths import document
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import CanaryVerdict, Mode, Unit
from kvt_async.records import Attempt, Level, Run
from kvt_async.session.canary_prompts import FIRST
from kvt_async.session.invocation import Invocation
from kvt_async.session.probes import Asking, BodyBuilder, Probes, refuse_all_failed
from kvt_async.session.session import ServerSession
from kvt_async.store.reader import Entry, Reader
from kvt_async.ways.registry import way_of

COMMON_TOKENS = 2000
# The budget asked next, where the config's own harshest level changes nothing.
HARSHEST: dict[str, float] = {Unit.FRACTION: 0.02, Unit.TOKENS: 16.0}


@dataclass(frozen=True, slots=True)
class Canary:
    verdict: CanaryVerdict
    reason: str
    asked_in: str | None = None  # the session that asked, where it was an earlier one
    counts: tuple[tuple[int, int], ...] = ()  # prompt tokens as the server read them, and as we counted them


@dataclass(frozen=True, slots=True)
class Pair:
    """The mildest level, and the one to hold against it."""

    mild: Level
    harsh: Level


def pair(levels: Sequence[Level]) -> Pair | None:
    """What a canary compares; None: at most one eviction budget, bit widths or labels, which rest on evidence alone."""
    tried = [level for level in levels if not level.repeat_idx]
    evicting = [level for level in tried if level.unit != Unit.BITS and not level.cuts_prompts]
    if not evicting or way_of(evicting[0].apply_via).canary == "none":
        return None
    if len({(level.budget, level.unit) for level in evicting}) < 2:
        return None
    return Pair(
        next((level for level in evicting if level.is_full), max(evicting, key=_kept)),
        min(
            (level for level in evicting if not level.is_full),
            key=lambda level: (_kept(level), level.mode != Mode.AGNOSTIC),
        ),
    )


def _kept(level: Level) -> float:
    """What a level keeps of a prompt of common length: only to tell which is the harsher."""
    return level.budget if level.unit == Unit.FRACTION else level.budget / COMMON_TOKENS


@dataclass(slots=True)
class _Answers:
    """One prompt's answers: at full cache, again there, and at levels below it."""

    entry: Entry
    full: Attempt
    again: Attempt | None = None
    below: list[tuple[Level, Attempt]] = field(default_factory=list)

    @property
    def attempts(self) -> list[Attempt]:
        """All of them, in the order of asking."""
        again = [] if self.again is None else [self.again]
        return [self.full, *again, *(attempt for _, attempt in self.below)]


async def run_canary(settings: Settings, levels: Pair, entries: Sequence[Entry], asking: Asking) -> Canary:
    """Ask, store every answer in `probes`, return the verdict.

    `entries`: the first few are asked at once, the others where those show nothing. Raises ServerError where the server
    dies under it or answers no prompt, ConfigError where it will refuse the grid as well.
    """
    probes, harsh = Probes(settings, asking), levels.harsh
    prompts: list[_Answers] = []
    for entry in entries[:FIRST]:
        prompts.append(await _ask(probes, levels, entry, [harsh]))
    refuse_all_failed([prompt.full for prompt in prompts])
    canary, floor = _judge(levels, prompts), HARSHEST.get(harsh.unit, 0.0)
    can_go_below = way_of(harsh.apply_via).takes_any_budget and harsh.budget > floor
    destructive = replace(harsh, budget=floor) if can_go_below else None
    if canary.verdict == CanaryVerdict.DEAD and destructive is not None:
        for prompt in prompts:
            prompt.below.append((destructive, await probes(destructive, prompt.entry, ours=True)))
        canary = _judge(levels, prompts)
    for entry in entries[FIRST:]:
        if canary.verdict != CanaryVerdict.DEAD:
            break
        prompts.append(await _ask(probes, levels, entry, [harsh, *([destructive] if destructive else [])]))
        canary = _judge(levels, prompts)
    canary = replace(canary, counts=_counts(prompts))
    await _conclude(probes, canary, harsh)
    return canary


class Spread:
    """A canary over launched servers: full cache is asked where it is served, the harsh level on its own server."""

    def __init__(self, levels: Pair, earlier: Canary | None = None) -> None:
        """`earlier`: the verdict of an earlier session on these levels."""
        self.pair, self.earlier = levels, earlier
        self.verdict: Canary | None = None
        self._prompts: list[_Answers] | None = None

    @classmethod
    def over(cls, invocation: Invocation, generation: int, levels: Sequence[Level]) -> "Spread | None":
        """The canary of these launched levels, with what an earlier session found; None: nothing for it to judge."""
        two = pair(levels)
        if two is None:
            return None
        return cls(two, known_verdict(invocation.reader, invocation.group, generation, two.harsh))

    def early(self, servers: list[list[Run]]) -> list[list[Run]]:
        """The same servers, each with the runs it serves, the harshest level's behind the first one: a dead knob is
        then known early."""
        at = next((n for n, runs in enumerate(servers) if any(run.level == self.pair.harsh for run in runs)), 0)
        return [*servers[:1], servers[at], *servers[1:at], *servers[at + 1 :]] if at > 1 else servers

    def needs(self, levels: Sequence[Level]) -> bool:
        """Whether a server of these levels must be asked before it is sent anything."""
        if self.earlier is not None or self.verdict is not None:
            return False
        return self.pair.harsh in levels or (self._prompts is None and self.pair.mild in levels)

    async def visit(
        self, settings: Settings, levels: Sequence[Level], entries: Sequence[Entry], asking: Asking
    ) -> Canary | None:
        """Ask the server that is up now; the verdict once both were asked. Raises as `run_canary` does.

        Each server is up once, so no prompt can be added later: the first few are asked, and lookups of our own.
        """
        probes, harsh = Probes(settings, asking), self.pair.harsh
        if self.earlier is not None and self.verdict is None:
            self.verdict = self.earlier
            await _conclude(probes, self.earlier, harsh)
        if not self.needs(levels):
            return None
        if self._prompts is None and self.pair.mild in levels:
            chosen = [*entries[:FIRST], *(entry for entry in entries[FIRST:] if entry.seq < 0)]
            self._prompts = [await _ask(probes, self.pair, entry, []) for entry in chosen]
            refuse_all_failed([prompt.full for prompt in self._prompts])
        if self._prompts is None or harsh not in levels:
            return None
        for prompt in self._prompts:
            prompt.below.append((harsh, await probes(harsh, prompt.entry, ours=prompt.entry.seq < 0)))
        self.verdict = replace(_judge(self.pair, self._prompts), counts=_counts(self._prompts))
        await _conclude(probes, self.verdict, harsh)
        return self.verdict


@dataclass(frozen=True, slots=True)
class Questions:
    """What a canary asks: prompts, the first few at once, and who makes their bodies."""

    builder: BodyBuilder
    entries: Sequence[Entry]
    are_counted: bool = False  # by the served model's own tokenizer: a server that reads fewer tokens cuts prompts


async def visit(
    server: ServerSession, spread: Spread | None, questions: Questions, sent: Sequence[str]
) -> CanaryVerdict | None:
    """The canary's verdict at a server, warned of where it isn't alive; None: none yet, or the levels are not of the
    kind it can judge. Raises DeadKnobError unless --allow-dead-knob.

    `spread`: of launched levels; `sent`: labels of levels that have answers already.
    """
    asking = Asking(questions.builder, server.sender.probe, server.store, server.session_id)
    if spread is not None:
        canary = await spread.visit(server.settings, server.levels, questions.entries, asking)
    else:
        two = pair(server.levels) if way_of(server.levels[0].apply_via).canary == "within" else None
        canary = None if two is None else await run_canary(server.settings, two, questions.entries, asking)
    if canary is None:
        return None
    server.log("canary", verdict=canary.verdict, reason=canary.reason)
    cut = next((count for count in canary.counts if is_short(*count)), None)
    if cut is not None and questions.are_counted:
        server.say(f"warning: the server read {cut[0]:,} tokens of a prompt of {cut[1]:,}: it cuts prompts")
    if (sentence := check(canary, allow=server.options.allow_dead_knob, sent=sent)) is not None:
        server.say(f"warning: {sentence}")
    return canary.verdict


def known_verdict(reader: Reader, group: str, generation: int, harsh: Level) -> Canary | None:
    """What an earlier session found out about these levels: a dead knob is asked again, it may have been mended."""
    rows = reader.rows(
        "SELECT p.verdict, p.detail_json, p.session_id FROM probes p JOIN sessions s USING (session_id) "
        "WHERE s.exp_group_id = ? AND s.generation = ? AND p.kind = 'canary' AND p.verdict IS NOT NULL AND p.level = ? "
        "ORDER BY p.created_at DESC, p.n DESC LIMIT 1",
        group,
        generation,
        harsh.label,
    )
    if not rows or rows[0][0] == CanaryVerdict.DEAD:
        return None
    detail = orjson.loads(rows[0][1])
    asked_in = detail.get("asked_in", rows[0][2])
    return Canary(CanaryVerdict(rows[0][0]), detail["reason"], asked_in)


def check(canary: Canary, *, allow: bool, sent: Sequence[str] = ()) -> str | None:
    """A sentence to print, None where all is well. Raises DeadKnobError for a dead knob unless `allow`.

    `sent`: levels whose requests were sent before the verdict (launched ones: full cache).
    """
    if canary.verdict == CanaryVerdict.ALIVE:
        return None
    if canary.verdict == CanaryVerdict.INCONCLUSIVE:
        return f"canary inconclusive: {canary.reason}; whether budgets are applied can't be told: unverified"
    if not allow:
        raise DeadKnobError(
            f"the KV budget changes nothing; {_stopped(sent)}",
            details=(
                canary.reason,
                "Either the server ignores what kv.apply sends it: many drop fields they don't know, some echo them.",
                "Or no eviction can hurt this task: its answers don't need the context, or are one token long.",
            ),
            do=f"First case: {document('KV_BUDGETS.md')} says what this server needs in kv.apply. Second: choose a "
            "task whose answers are several tokens from the context (dataset.name: ruler, kvtext), or a smaller lowest "
            "budget. "
            "--allow-dead-knob goes on with budgets as labels: every table, chart and verdict will say so.",
        )
    return f"dead knob allowed: {canary.reason}; budgets are labels and everything will say so"


def _stopped(sent: Sequence[str]) -> str:
    if not sent:
        return "nothing was started, no request was sent"
    return f"stopped: {', '.join(sent)} was sent and is kept, nothing of any other level was"


async def _ask(probes: Probes, levels: Pair, entry: Entry, below: Sequence[Level]) -> _Answers:
    """Ask a prompt at full cache twice, then at the levels below; no more once full cache gave no answer."""
    ours = entry.seq < 0
    prompt = _Answers(entry, await probes(levels.mild, entry, ours=ours))
    if prompt.full.reply is None:
        return prompt
    prompt.again = await probes(levels.mild, entry, ours=ours)
    for level in below:
        prompt.below.append((level, await probes(level, entry, ours=ours or level.budget != levels.harsh.budget)))
    return prompt


def _judge(levels: Pair, prompts: Sequence[_Answers]) -> Canary:
    """The verdict on the prompts whose answers came: those that failed tell nothing."""
    mild = levels.mild.label
    answered = [
        (prompt, prompt.full.reply.answer, prompt.again.reply.answer)
        for prompt in prompts
        if prompt.full.reply is not None and prompt.again is not None and prompt.again.reply is not None
    ]
    unlike = sum(full != again for _, full, again in answered)
    if unlike:
        reason = f"{mild} twice gave different answers to {unlike} of {len(answered)} prompts"
        return Canary(CanaryVerdict.INCONCLUSIVE, reason)
    below = [
        (level, full, attempt.reply)
        for prompt, full, _ in answered
        for level, attempt in prompt.below
        if attempt.reply is not None
    ]
    if not below:
        failed = next((attempt for prompt in prompts for attempt in prompt.attempts if attempt.reply is None), None)
        fault = (failed.error_message or failed.error_type) if failed else "nothing was asked"
        return Canary(CanaryVerdict.INCONCLUSIVE, f"a probe failed: {fault}")
    names = list(dict.fromkeys(level.label for level, _, _ in below))
    for name in names:
        changed = [reply.answer != full for level, full, reply in below if level.label == name]
        if any(changed):
            reason = f"{sum(changed)} of {len(changed)} answers changed between {mild} and {name}"
            return Canary(CanaryVerdict.ALIVE, reason)
    kept = [reply.kv_effective for _, _, reply in below if reply.kv_effective is not None]
    echo = f", although the server reports {min(kept):g} kept" if kept else ""
    reason = f"{' and '.join([mild, *names])} gave the same answer to all {len(answered)} prompts{echo}"
    return Canary(CanaryVerdict.DEAD, reason)


def _counts(prompts: Sequence[_Answers]) -> tuple[tuple[int, int], ...]:
    """The token counts of the manifest's prompts: as the server read them, and as we counted them."""
    return tuple(
        (prompt.full.marks.prompt_tokens, prompt.entry.token_len)
        for prompt in prompts
        if prompt.entry.seq >= 0 and prompt.full.reply is not None and prompt.full.marks.prompt_tokens is not None
    )


async def _conclude(probes: Probes, canary: Canary, harsh: Level) -> None:
    detail = {"reason": canary.reason} | ({"asked_in": canary.asked_in} if canary.asked_in else {})
    await probes.keep(harsh.label, "", None, canary.verdict, detail)
