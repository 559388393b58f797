"""Does the server apply the budget at all? Asked before a sweep.

Servers drop request fields they don't know, silently; a sweep over such a knob measures a flat line. So prompts of the
manifest, a long, a short and a middle one, are sent at full cache twice and at the config's harshest budget once, with
answers of several tokens (eviction after prefill can't change the first one of a question-aware prompt). Where nothing
changes, a budget that destroys is asked too; where that changes nothing either, more prompts are, and lookups of our
own, whose answers always need their context. Equal to full, twice, on all of them: a dead knob. The sweep's own answers
may still overrule it.

Budgets that apply while the answer is generated have a canary of their own, whose answers are long enough for the cache
to be compressed. Launched levels have a server each, one after the other: launched_canary.py asks the first of them.
What is concluded from the answers, canary_verdict.py says.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import orjson

from kvt_async.contract.errors import DeadKnobError
from kvt_async.contract.formulas.decode_budget import INTERVAL, interval_of
from kvt_async.contract.formulas.prompt_counts import is_short
from kvt_async.contract.paths import document
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import CanaryVerdict, Unit, When
from kvt_async.records import Level
from kvt_async.session.canary_prompts import FIRST, recitals
from kvt_async.session.canary_verdict import AskedPrompt, Canary, Pair, compressed_after, judge, pairs, says_when
from kvt_async.session.probes import Asking, BodyBuilder, Probes, refuse_all_failed
from kvt_async.session.session import ServerSession
from kvt_async.store.reader import Entry, Reader
from kvt_async.ways.registry import way_of

if TYPE_CHECKING:
    from kvt_async.session.launched_canary import Spread

# The budget asked next, where the config's own harshest level changes nothing.
HARSHEST: dict[str, float] = {Unit.FRACTION: 0.02, Unit.TOKENS: 16.0}
SHORT_INTERVAL = 8  # tokens between compressions, asked with it
EARLY_TOKENS = 16  # of an answer that must be full cache's, as far as nothing can have been evicted


async def run_canary(settings: Settings, levels: Pair, entries: Sequence[Entry], asking: Asking) -> Canary:
    """Ask, store every answer in `probes`, return the verdict.

    `entries`: the first few are asked at once, the others where those show nothing. Raises ServerError where the server
    dies under it or answers no prompt, ConfigError where it will refuse the grid as well.
    """
    probes, harsh, entries = Probes(settings, asking), levels.harsh, in_order(levels, entries)
    prompts: list[AskedPrompt] = []
    for entry in entries[:FIRST]:
        prompts.append(await ask(probes, levels, entry, [harsh]))
    refuse_all_failed([prompt.full for prompt in prompts])
    canary, destructive = await _judged(probes, levels, prompts), _destructive(levels)
    if canary.is_open and destructive is not None:
        for prompt in prompts:
            prompt.below.append((destructive, await probes(destructive, prompt.entry, ours=True, of=harsh)))
        canary = await _judged(probes, levels, prompts)
    for entry in entries[FIRST:]:
        if not canary.is_open:
            break
        prompts.append(await ask(probes, levels, entry, [harsh, *([destructive] if destructive else [])]))
        canary = await _judged(probes, levels, prompts)
    canary = replace(canary, counts=counts(prompts), when=levels.when)
    await conclude(probes, canary, harsh)
    return canary


def in_order(levels: Pair, entries: Sequence[Entry]) -> list[Entry]:
    """The prompts in the order of asking. Where the cache is compressed while the answer is generated, those come first
    that take the shortest answer for it, and the canary's own ask for long ones."""
    if levels.when == When.PREFILL:
        return list(entries)
    own = recitals() if any(entry.seq < 0 for entry in entries) else []
    stored = [entry for entry in entries if entry.seq >= 0]
    return [*sorted(stored, key=lambda entry: compressed_after(levels.harsh, entry.token_len)), *own]


def _destructive(levels: Pair) -> Level | None:
    """A level that no answer survives, at a server that can be asked any; None: the harsh one is as harsh as that."""
    harsh = levels.harsh
    floor = min(HARSHEST.get(harsh.unit, 0.0), harsh.budget)
    if not way_of(harsh.apply_via).takes_any_budget or levels.when == When.BOTH:
        return None
    if not harsh.decodes:
        return replace(harsh, budget=floor) if harsh.budget > floor else None
    own = interval_of(harsh.params)
    if own is not None and own <= SHORT_INTERVAL and harsh.budget <= floor:
        return None
    series = harsh.series.replace(f" {INTERVAL}={own}", "", 1) + f" {INTERVAL}={SHORT_INTERVAL}"
    return replace(harsh, budget=floor, params=harsh.params | {INTERVAL: SHORT_INTERVAL}, series=series)


async def _judged(probes: Probes, levels: Pair, prompts: Sequence[AskedPrompt]) -> Canary:
    """The verdict so far. A server that doesn't say that it evicts while it generates is asked for the beginnings of
    answers too, which nothing can have changed if it does."""
    canary = judge(levels, prompts)
    if canary.verdict == CanaryVerdict.ALIVE and levels.when == When.DECODE and not says_when(prompts):
        for prompt in prompts:
            if prompt.early is None and prompt.full.reply is not None:
                n = 2  # the server looks after one token, or later
                if interval_of(levels.harsh.params) is not None:
                    n = min(compressed_after(levels.harsh, prompt.entry.token_len) + 1, EARLY_TOKENS)
                prompt.early = await probes(levels.harsh, prompt.entry, ours=prompt.entry.seq < 0, tokens=n)
        canary = judge(levels, prompts)
    return canary


@dataclass(frozen=True, slots=True)
class Questions:
    """What a canary asks: prompts, the first few at once, and who makes their bodies."""

    builder: BodyBuilder
    entries: Sequence[Entry]
    are_counted: bool = False  # by the served model's own tokenizer: a server that reads fewer tokens cuts prompts


async def visit(
    server: ServerSession, spread: "Spread | None", questions: Questions, sent: Sequence[str]
) -> CanaryVerdict | None:
    """The canary's verdict at a server, the worst of several, warned of where it isn't alive; None: none yet, or the
    levels are not of the kind it can judge. Raises DeadKnobError unless --allow-dead-knob.

    `spread`: of launched levels; `sent`: labels of levels that have answers already.
    """
    asking = Asking(questions.builder, server.sender.probe, server.store, server.session_id)
    if spread is not None:
        canaries = await spread.visit(server.settings, server.levels, questions.entries, asking)
    else:
        judged = pairs(server.levels) if way_of(server.levels[0].apply_via).canary == "within" else []
        canaries = [await run_canary(server.settings, two, questions.entries, asking) for two in judged]
    for canary in canaries:
        server.log("canary", verdict=canary.verdict, reason=canary.reason)
        cut = next((count for count in canary.counts if is_short(*count)), None)
        if cut is not None and questions.are_counted:
            server.say(f"warning: the server read {cut[0]:,} tokens of a prompt of {cut[1]:,}: it cuts prompts")
        if (sentence := check(canary, allow=server.options.allow_dead_knob, sent=sent)) is not None:
            server.say(f"warning: {sentence}")
    return min((canary.verdict for canary in canaries), key=_FROM_WORST.index, default=None)


_FROM_WORST = (CanaryVerdict.DEAD, CanaryVerdict.INCONCLUSIVE, CanaryVerdict.ALIVE)


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


_DEAD = (
    "the KV budget changes nothing",
    "Either the server ignores what kv.apply sends it: many drop fields they don't know, some echo them.",
    "Or no eviction can hurt this task: its answers don't need the context, or are one token long.",
)
_DEAD_WHILE_GENERATING = (
    "the KV budget is not applied while answers are generated, as `when` asks",
    "Either the server knows neither `when` nor params.compression_interval: many drop fields they don't know.",
    "Or no eviction can hurt these answers: what comes late in them needs nothing of what was evicted.",
)


_TASKS = {
    True: "task whose answers are several tokens from the context (dataset.name: ruler, kvtext)",
    False: "task whose long answers need their own beginning or the prompt to the end",
}


def check(canary: Canary, *, allow: bool, sent: Sequence[str] = ()) -> str | None:
    """A sentence to print, None where all is well. Raises DeadKnobError for a dead knob unless `allow`.

    `sent`: levels whose requests were sent before the verdict (launched ones: full cache).
    """
    if canary.verdict == CanaryVerdict.ALIVE:
        return None
    if canary.verdict == CanaryVerdict.INCONCLUSIVE:
        return f"canary inconclusive: {canary.reason}; whether budgets are applied can't be told: unverified"
    if not allow:
        what, *why = _DEAD if canary.when == When.PREFILL else _DEAD_WHILE_GENERATING
        raise DeadKnobError(
            f"{what}; {_stopped(sent)}",
            details=(canary.reason, *why),
            do=f"First case: {document('KV_BUDGETS.md')} says what this server needs in kv.apply. Second: choose a "
            f"{_TASKS[canary.when == When.PREFILL]}, or a smaller lowest budget. "
            "--allow-dead-knob goes on with budgets as labels: every table, chart and verdict will say so.",
        )
    return f"dead knob allowed: {canary.reason}; budgets are labels and everything will say so"


def _stopped(sent: Sequence[str]) -> str:
    if not sent:
        return "nothing was started, no request was sent"
    return f"stopped: {', '.join(sent)} was sent and is kept, nothing of any other level was"


async def ask(probes: Probes, levels: Pair, entry: Entry, below: Sequence[Level]) -> AskedPrompt:
    """Ask a prompt at full cache twice, then at the levels below; no more once full cache gave no answer."""
    ours, harsh = entry.seq < 0, levels.harsh
    prompt = AskedPrompt(entry, await probes(levels.mild, entry, ours=ours, of=harsh))
    if prompt.full.reply is None:
        return prompt
    prompt.again = await probes(levels.mild, entry, ours=ours, of=harsh)
    for level in below:
        prompt.below.append((level, await probes(level, entry, ours=ours or level != harsh, of=harsh)))
    return prompt


def counts(prompts: Sequence[AskedPrompt]) -> tuple[tuple[int, int], ...]:
    """The token counts of the manifest's prompts: as the server read them, and as we counted them."""
    return tuple(
        (prompt.full.marks.prompt_tokens, prompt.entry.token_len)
        for prompt in prompts
        if prompt.entry.seq >= 0 and prompt.full.reply is not None and prompt.full.marks.prompt_tokens is not None
    )


async def conclude(probes: Probes, canary: Canary, harsh: Level) -> None:
    """Keep the verdict, with the level that it is about and when that evicts."""
    when = {"when": harsh.when} if harsh.decodes else {}
    detail = {"reason": canary.reason} | when | ({"asked_in": canary.asked_in} if canary.asked_in else {})
    await probes.keep(harsh.label, "", None, canary.verdict, detail)
