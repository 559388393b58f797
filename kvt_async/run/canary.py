"""Does the server apply the budget at all? Asked before a sweep, with a few prompts of the manifest itself.

Servers drop request fields they don't know, silently; a sweep over such a knob measures a flat line. So the longest
prompts are sent at full cache twice and at a destructive budget once, with answers of several tokens (eviction after
prefill can't change the first one of a question-aware prompt). Equal to full, twice, on all prompts: a dead knob.

Launched levels have a server each, one after the other: `Spread` asks the first two of them.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import orjson
from msgspec import structs

from kvt_async.clock import utc_now
from kvt_async.contract.errors import ConfigError, DeadKnobError, ErrorType, ServerError
from kvt_async.contract.settings import Settings
from kvt_async.engine.chat import PATHS
from kvt_async.engine.kv_body import TRUNCATE, expectation, read_evidence
from kvt_async.records import Attempt, Json, Level
from kvt_async.run.levels import label
from kvt_async.store.reader import Entry, Reader
from kvt_async.store.writer import Writer

PROMPTS = 3
MAX_TOKENS = 32
TRIES, PAUSE_S, MAX_PAUSE_S = 4, 0.5, 10.0
COMMON_TOKENS = 2000
HARSHEST = {"fraction": 0.02, "tokens": 16.0}  # asked next, where the config's own harshest level changes nothing
Probe = Callable[[str, str, bytes], Awaitable[Attempt]]  # endpoint, path, body
ALIVE, DEAD, INCONCLUSIVE = "alive", "dead", "inconclusive"


class Builder(Protocol):
    """Makes the body of a prompt at a level; `settings` say how many tokens to answer."""

    def body(self, entry: Entry, level: Level, settings: Settings) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Canary:
    verdict: str
    reason: str
    asked_in: str | None = None  # the session that asked, where it was an earlier one


@dataclass(frozen=True, slots=True)
class Pair:
    """The mildest level, and the one to hold against it."""

    mild: Level
    harsh: Level


def pair(levels: Sequence[Level]) -> Pair | None:
    """What a canary compares; None: at most one eviction budget, bit widths or labels, which rest on evidence alone."""
    evicting = [level for level in levels if level.unit != "bits" and level.policy != TRUNCATE and not level.repeat_idx]
    if not evicting or evicting[0].apply_via == "none" or len({(one.budget, one.unit) for one in evicting}) < 2:
        return None
    return Pair(
        next((level for level in evicting if level.is_full), max(evicting, key=_kept)),
        min(
            (level for level in evicting if not level.is_full),
            key=lambda level: (_kept(level), level.mode != "question_agnostic"),
        ),
    )


def _kept(level: Level) -> float:
    """What a level keeps of a prompt of common length: only to tell which is the harsher."""
    return level.budget if level.unit == "fraction" else level.budget / COMMON_TOKENS


async def run_canary(
    settings: Settings, found: Pair, builder: Builder, entries: Sequence[Entry], probe: Probe, store: Writer,
    session_id: str,
) -> Canary:  # fmt: skip
    """Ask, store every answer in `probes`, return the verdict. Raises ServerError when the server dies under it."""
    asked = _Asked(settings, builder, probe, store, session_id)
    canary = await _compare(asked, found, entries)
    harsh = found.harsh
    floor = HARSHEST.get(harsh.unit, 0.0)
    if canary.verdict == DEAD and harsh.apply_via == "body" and harsh.budget > floor:
        canary = await _compare(asked, replace(found, harsh=replace(harsh, budget=floor)), entries)
    await asked.conclude(canary, harsh)
    return canary


class Spread:
    """A canary over launched servers: full cache is asked where it is served, the harsh level on its own server."""

    def __init__(self, found: Pair, known: Canary | None = None) -> None:
        """`known`: the verdict of an earlier session on these levels."""
        self.pair, self.known = found, known
        self.verdict: Canary | None = None
        self._baseline: list[list[Attempt]] | None = None

    def needs(self, levels: Sequence[Level]) -> bool:
        """Whether a server of these levels must be asked before it is sent anything."""
        if self.known is not None or self.verdict is not None:
            return False
        return self.pair.harsh in levels or (self._baseline is None and self.pair.mild in levels)

    async def visit(
        self, settings: Settings, levels: Sequence[Level], builder: Builder, entries: Sequence[Entry], probe: Probe,
        store: Writer, session_id: str,
    ) -> Canary | None:  # fmt: skip
        """Ask the server that is up now; the verdict once both were asked. Raises as `run_canary` does."""
        asked = _Asked(settings, builder, probe, store, session_id)
        if self.known is not None and self.verdict is None:
            self.verdict = self.known
            await asked.conclude(self.known, self.pair.harsh)
        if not self.needs(levels):
            return None
        if self._baseline is None and self.pair.mild in levels:
            self._baseline = [[await asked(self.pair.mild, entry) for _ in range(2)] for entry in entries]
        if self._baseline is None or self.pair.harsh not in levels:
            return None
        destroyed = [await asked(self.pair.harsh, entry) for entry in entries]
        triples = [(*pair_, third) for pair_, third in zip(self._baseline, destroyed, strict=True)]
        self.verdict = _judge(self.pair, entries, triples)
        await asked.conclude(self.verdict, self.pair.harsh)
        return self.verdict


def known_verdict(reader: Reader, group: str, generation: int, harsh: Level) -> Canary | None:
    """What an earlier session found out about these levels: a dead knob is asked again, it may have been mended."""
    rows = reader.rows(
        "SELECT p.verdict, p.detail_json, p.session_id FROM probes p JOIN sessions s USING (session_id) "
        "WHERE s.exp_group_id = ? AND s.generation = ? AND p.kind = 'canary' AND p.verdict IS NOT NULL AND p.level = ? "
        "ORDER BY p.probe_id DESC LIMIT 1",
        group,
        generation,
        label(harsh),
    )
    if not rows or rows[0][0] == DEAD:
        return None
    detail = orjson.loads(rows[0][1])
    asked_in = detail.get("asked_in", rows[0][2])
    return Canary(rows[0][0], detail["reason"], asked_in)


def check(canary: Canary, *, allow: bool, sent: Sequence[str] = ()) -> str | None:
    """A sentence to print, None where all is well. Raises DeadKnobError for a dead knob unless `allow`.

    `sent`: levels whose requests were sent before the verdict (launched ones: full cache).
    """
    if canary.verdict == ALIVE:
        return None
    if canary.verdict == INCONCLUSIVE:
        return f"canary inconclusive: {canary.reason}; whether budgets are applied can't be told: unverified"
    if not allow:
        raise DeadKnobError(
            f"the KV budget changes nothing; {_stopped(sent)}",
            details=(
                canary.reason,
                "Either the server ignores what kv.apply sends it: many drop fields they don't know, some echo them.",
                "Or no eviction can hurt this task: its answers don't need the context, or are one token long.",
            ),
            do="First case: see docs/KV_BUDGETS.md for what this server needs in kv.apply. Second: choose a task whose "
            "answers are several tokens from the context (dataset.name: ruler, kvtext), or a smaller lowest budget. "
            "--allow-dead-knob goes on with budgets as labels: every table, chart and verdict will say so.",
        )
    return f"dead knob allowed: {canary.reason}; budgets are labels and everything will say so"


def _stopped(sent: Sequence[str]) -> str:
    if not sent:
        return "nothing was started, no request was sent"
    return f"stopped: {', '.join(sent)} was sent and is kept, nothing of any other level was"


def refuse(attempt: Attempt, level: str) -> None:
    """Raises ConfigError for a probe that the server will refuse however often it is asked: so it would the grid.

    An over-long prompt is no such thing: others may fit.
    """
    if attempt.error_type is ErrorType.HTTP and (attempt.http_status or 500) < 500:
        raise ConfigError(
            f"the server refuses what this config sends at level {level}: {attempt.error_message}",
            where=attempt.endpoint,
            do="Look at engine.base_url (most servers want /v1 at its end), model.name, prompt.endpoint, decoding and "
            "kv.apply. Nothing of the grid was sent.",
        )


def choose(reader: Reader, dataset_id: str, *, shortest: bool = False) -> list[Entry]:
    """The longest prompts (or the shortest), the same ones every time."""
    order = "ASC" if shortest else "DESC"
    rows = reader.rows(
        f"SELECT seq FROM manifest_entries WHERE dataset_id = ? ORDER BY token_len {order}, example_id LIMIT ?",
        dataset_id,
        PROMPTS,
    )
    found = reader.entries(dataset_id, [row[0] for row in rows])
    return [found[row[0]] for row in rows]


class _Asked:
    """Sends probes of one canary and keeps them."""

    def __init__(self, settings: Settings, builder: Builder, probe: Probe, store: Writer, session_id: str) -> None:
        n = min(max(settings.decoding.max_tokens, 8), MAX_TOKENS)
        temperature = None if settings.decoding.temperature is None else 0  # null: the server takes none
        decoding = settings.decoding.model_copy(update={"temperature": temperature, "max_tokens": n})
        self.settings = settings.model_copy(update={"decoding": decoding})
        self._builder, self._probe, self._store, self._session_id = builder, probe, store, session_id

    async def __call__(self, level: Level, entry: Entry) -> Attempt:
        body = self._builder.body(entry, level, self.settings)
        endpoint, path = level.endpoints[0], PATHS[self.settings.prompt.endpoint]
        attempt = await self._patiently(endpoint, path, body)
        reply, evidence = attempt.reply, None
        if reply is not None:
            asked = expectation(level, entry.token_len, entry.context_tokens)
            evidence, effective = read_evidence(asked, reply.usage, {})
            reply = structs.replace(reply, kv_evidence=evidence, kv_effective=effective)
            attempt = structs.replace(attempt, reply=reply)
        detail = {
            "example_id": entry.example.example_id,
            "endpoint": attempt.endpoint,
            "end_state": str(attempt.end_state),
            "error": attempt.error_message,
            "kv_evidence": evidence,
            "latency_s": attempt.latency_s,
        }
        await self._row(label(level), hashlib.sha256(body).hexdigest(), reply.text if reply else None, None, detail)
        refuse(attempt, label(level))
        if attempt.http_status is None and reply is None:
            raise ServerError(
                f"the server stopped answering during the canary: {attempt.error_message or attempt.error_type}",
                where=endpoint,
                do="Look at the server's log, start it again and run the same command.",
            )
        return attempt

    async def _patiently(self, endpoint: str, path: str, body: bytes) -> Attempt:
        """A busy server says nothing about its knob: a refusal that may pass is asked again."""
        attempt = await self._probe(endpoint, path, body)
        for n in range(1, TRIES):
            status = attempt.http_status
            if (
                attempt.reply is not None
                or (status is None and n > 1)
                or (status != 429 and 400 <= (status or 0) < 500)
            ):
                break
            await asyncio.sleep(min(attempt.retry_after_s or PAUSE_S * n, MAX_PAUSE_S))
            attempt = await self._probe(endpoint, path, body)
        return attempt

    async def conclude(self, canary: Canary, harsh: Level) -> None:
        detail = {"reason": canary.reason} | ({"asked_in": canary.asked_in} if canary.asked_in else {})
        await self._row(label(harsh), "", None, canary.verdict, detail)

    async def _row(self, level: str, sha256: str, answer: str | None, verdict: str | None, detail: Json) -> None:
        await self._store.insert(
            "probes",
            {
                "session_id": self._session_id,
                "kind": "canary",
                "level": level,
                "prompt_sha256": sha256,
                "answer": answer,
                "verdict": verdict,
                "detail_json": orjson.dumps(detail).decode(),
                "created_at": utc_now(),
            },
        )


async def _compare(asked: _Asked, found: Pair, entries: Sequence[Entry]) -> Canary:
    triples: list[tuple[Attempt, ...]] = []
    for entry in entries:
        triples.append(tuple([await asked(level, entry) for level in (found.mild, found.mild, found.harsh)]))
        if any(attempt.reply is None for attempt in triples[-1]):
            break  # nothing can be told any more
    return _judge(found, entries, triples)


def _judge(found: Pair, entries: Sequence[Entry], triples: Sequence[tuple[Attempt, ...]]) -> Canary:
    """Per entry: full cache, full cache again, harsh."""
    mild, harsh = label(found.mild), label(found.harsh)
    same = differ = 0
    kept: float | None = None
    unlike: list[str] = []
    for entry, attempts in zip(entries, triples, strict=False):
        texts = [attempt.reply.text for attempt in attempts if attempt.reply is not None]
        if len(texts) < len(attempts):
            bad = next(attempt for attempt in attempts if attempt.reply is None)
            return Canary(INCONCLUSIVE, f"a probe failed: {bad.error_message or bad.error_type}")
        full, again, destroyed = texts
        if full != again:
            unlike.append(entry.example.example_id)
        elif full != destroyed:
            differ += 1
        else:
            same += 1
        last = attempts[-1].reply
        kept = last.kv_effective if last is not None else None
    if unlike:
        return Canary(INCONCLUSIVE, f"{mild} twice gave different answers to {len(unlike)} of {len(entries)} prompts")
    if differ:
        return Canary(ALIVE, f"{differ} of {len(entries)} answers changed between {mild} and {harsh}")
    echo = "" if kept is None else f", although the server reports {kept:g} kept"
    return Canary(DEAD, f"{mild} and {harsh} gave the same answer to all {same} prompts{echo}")
