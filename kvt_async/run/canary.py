"""Does the server apply the budget at all? Asked before a sweep, with a few prompts of the manifest itself.

Servers drop request fields they don't know, silently; a sweep over such a knob measures a flat line. So the longest
prompts are sent at full cache twice and at a destructive budget once, with answers of several tokens (eviction after
prefill can't change the first one of a question-aware prompt). Equal to full, twice, on all prompts: a dead knob.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import orjson

from kvt_async.contract.errors import ConfigError, DeadKnobError, ErrorType, ServerError
from kvt_async.contract.settings import Settings
from kvt_async.engine.chat import PATHS
from kvt_async.engine.kv_body import expectation, read_evidence
from kvt_async.records import Attempt, Json, Level
from kvt_async.run.build import Builder
from kvt_async.run.clock import utc_now
from kvt_async.run.levels import label
from kvt_async.store.reader import Entry, Reader
from kvt_async.store.writer import Writer

PROMPTS = 3
MAX_TOKENS = 32
TRIES, PAUSE_S, MAX_PAUSE_S = 4, 0.5, 10.0
HARSHEST = {"fraction": 0.02, "tokens": 16.0}  # asked next, where the config's own harshest level changes nothing
Probe = Callable[[str, str, bytes], Awaitable[Attempt]]  # endpoint, path, body
ALIVE, DEAD, INCONCLUSIVE = "alive", "dead", "inconclusive"


@dataclass(frozen=True, slots=True)
class Canary:
    verdict: str
    reason: str


def applies(levels: Sequence[Level]) -> bool:
    """Only where the budget travels with the request or its URL, and at least two eviction budgets differ."""
    evicting = {(level.budget, level.unit) for level in levels if level.unit != "bits"}
    return bool(levels) and levels[0].apply_via in ("body", "endpoint") and len(evicting) >= 2


async def run_canary(
    settings: Settings, levels: Sequence[Level], builder: Builder, entries: Sequence[Entry], probe: Probe,
    store: Writer, session_id: str,
) -> Canary:  # fmt: skip
    """Ask, store every answer in `probes`, return the verdict. Raises ServerError when the server dies under it."""
    asked = _Asked(settings, builder, probe, store, session_id)
    mild = next((level for level in levels if level.is_full), max(levels, key=lambda level: level.budget))
    harsh = min(
        (level for level in levels if not level.is_full and level.unit != "bits"),
        key=lambda level: (level.budget, level.mode != "question_agnostic"),
    )
    canary = await _compare(asked, mild, harsh, entries)
    floor = HARSHEST.get(harsh.unit, 0.0)
    if canary.verdict == DEAD and harsh.apply_via == "body" and harsh.budget > floor:
        canary = await _compare(asked, mild, replace(harsh, budget=floor), entries)
    await asked.conclude(canary, label(harsh))
    return canary


def check(canary: Canary, *, allow: bool) -> str | None:
    """A sentence to print, None where all is well. Raises DeadKnobError for a dead knob unless `allow`."""
    if canary.verdict == ALIVE:
        return None
    if canary.verdict == INCONCLUSIVE:
        return f"canary inconclusive: {canary.reason}; whether budgets are applied rests on evidence alone"
    if not allow:
        raise DeadKnobError(
            "the server ignores the KV budget; the sweep was not started",
            details=(canary.reason,),
            do="See docs/KV_BUDGETS.md for what this server needs in kv.apply, or pass --allow-dead-knob to go on with "
            "budgets as labels.",
        )
    return f"dead knob allowed: {canary.reason}; budgets are labels and everything will say so"


def refuse(attempt: Attempt, level: str) -> None:
    """Raises ConfigError for a probe that the server will refuse however often it is asked: so it would the grid.

    An over-long prompt is no such thing: others may fit.
    """
    if attempt.error_type is ErrorType.HTTP and (attempt.http_status or 500) < 500:
        raise ConfigError(
            f"the server refuses what this config sends at level {level}: {attempt.error_message}",
            where=attempt.endpoint,
            do="Look at model.name, prompt.endpoint, decoding and kv.apply. Nothing of the grid was sent.",
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
        decoding = settings.decoding.model_copy(update={"temperature": 0, "max_tokens": n})
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
            attempt = replace(attempt, reply=replace(reply, kv_evidence=evidence, kv_effective=effective))
        detail = {
            "example_id": entry.example.example_id,
            "endpoint": attempt.endpoint,
            "end_state": str(attempt.end_state),
            "error": attempt.error_message,
            "kv_evidence": evidence,
            "latency_s": attempt.latency_s,
        }
        await self._row(label(level), hashlib.sha256(body).hexdigest(), reply.text if reply else None, None, detail)
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

    async def conclude(self, canary: Canary, level: str) -> None:
        await self._row(level, "", None, canary.verdict, {"reason": canary.reason})

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


async def _compare(asked: _Asked, mild: Level, harsh: Level, entries: Sequence[Entry]) -> Canary:
    same = differ = 0
    kept: float | None = None
    unlike: list[str] = []
    for entry in entries:
        first, second, third = [await asked(level, entry) for level in (mild, mild, harsh)]
        replies = [attempt.reply for attempt in (first, second, third)]
        bad = next((a for a in (first, second, third) if a.reply is None), None)
        if bad is not None:
            refuse(bad, label(harsh) if bad is third else label(mild))
            return Canary(INCONCLUSIVE, f"a probe failed: {bad.error_message or bad.error_type}")
        full, again, destroyed = (r.text for r in replies if r is not None)
        if full != again:
            unlike.append(entry.example.example_id)
        elif full != destroyed:
            differ += 1
        else:
            same += 1
        kept = next((r.kv_effective for r in replies[2:] if r is not None), None)
    if unlike:
        return Canary(
            INCONCLUSIVE, f"{label(mild)} twice gave different answers to {len(unlike)} of {len(entries)} prompts"
        )
    if differ:
        return Canary(ALIVE, f"{differ} of {len(entries)} answers changed between {label(mild)} and {label(harsh)}")
    echo = "" if kept is None else f", although the server reports {kept:g} kept"
    return Canary(DEAD, f"{label(mild)} and {label(harsh)} gave the same answer to all {same} prompts{echo}")
