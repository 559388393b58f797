"""Requests that find out about a server and are no part of the grid: asked with patience, kept in `probes`."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson
from msgspec import structs

from kvt_async.clock import utc_now
from kvt_async.contract.errors import ConfigError, ErrorType, ServerError
from kvt_async.contract.settings import Settings
from kvt_async.engine.request.kv_evidence import expectation, read_evidence
from kvt_async.engine.send.advice import field_advice, key_advice
from kvt_async.records import Attempt, Headers, Json, Level, Payload
from kvt_async.session.canary_verdict import compressed_after
from kvt_async.store.reader import Entry
from kvt_async.store.writer import Writer

MAX_TOKENS = 32
LONGEST_TOKENS = 4096  # of an answer that is waited for before its first compression
TRIES, PAUSE_S, MAX_PAUSE_S = 4, 0.5, 10.0
LASTING = (501, 505)  # of the refusals above 500: the server will never know this method or protocol
KEY_REFUSED = (401, 403)
Probe = Callable[[str, str, bytes, Headers], Awaitable[Attempt]]  # endpoint, path, body, headers


class BodyBuilder(Protocol):
    """Makes what is sent for a prompt at a level; `settings` say how many tokens to answer."""

    def payload(self, entry: Entry, level: Level, settings: Settings) -> Payload: ...


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks, where its prompts come from, and where the answers are kept."""

    builder: BodyBuilder
    probe: Probe
    store: Writer
    session_id: str


class Probes:
    """Sends the probes of one canary and keeps them."""

    def __init__(self, settings: Settings, asking: Asking) -> None:
        temperature = None if settings.decoding.temperature is None else 0  # null: the server takes none
        decoding = settings.decoding.model_copy(update={"temperature": temperature})
        self.settings = settings.model_copy(update={"decoding": decoding})
        self._n = min(max(settings.decoding.most_tokens, 8), MAX_TOKENS)
        self._asking = asking

    async def __call__(
        self, level: Level, entry: Entry, *, ours: bool = False, of: Level | None = None, tokens: int | None = None
    ) -> Attempt:
        """The answer to a prompt at a level, of so many tokens at most; None: as many as show what level `of` does.

        Raises ConfigError where the server will refuse the grid as well, unless prompt or level are `ours` and not the
        config's; ServerError where it stopped answering.
        """
        n = tokens or self._n_tokens(of or level, entry)
        payload, attempt = await self._ask(level, entry, n)
        if attempt.error_type is ErrorType.CONTEXT_OVERFLOW and n > MAX_TOKENS:  # no room for so long an answer
            payload, attempt = await self._ask(level, entry, MAX_TOKENS)
        reply, evidence = attempt.reply, None
        if reply is not None:
            expects = expectation(level, entry.token_len, entry.context_tokens)
            evidence, effective = read_evidence(expects, reply.usage, {})
            reply = structs.replace(reply, kv_evidence=evidence, kv_effective=effective)
            attempt = structs.replace(attempt, reply=reply)
        detail = {
            "example_id": entry.example_id,
            "endpoint": attempt.endpoint,
            "end_state": str(attempt.end_state),
            "error": attempt.error_message,
            "kv_evidence": evidence,
            "latency_s": attempt.latency_s,
        }
        answer, sha256 = reply.answer if reply else None, hashlib.sha256(payload.body).hexdigest()
        await self.keep(level.label, sha256, answer, None, detail)
        if not ours:
            refuse(attempt, level.label, self.settings)
        if attempt.http_status is None and reply is None:
            raise ServerError(
                f"the server stopped answering during the canary: {attempt.error_message or attempt.error_type}",
                where=attempt.endpoint,
                do="Look at the server's log, start it again and run the same command.",
            )
        return attempt

    def _n_tokens(self, level: Level, entry: Entry) -> int:
        """A few; of a level that evicts while it answers, as many behind the first compression, if one comes."""
        if not level.decodes:
            return self._n
        after = compressed_after(level, entry.token_len)
        return (after if after <= LONGEST_TOKENS else 0) + MAX_TOKENS

    async def _ask(self, level: Level, entry: Entry, n: int) -> tuple[Payload, Attempt]:
        decoding = self.settings.decoding.model_copy(update={"max_tokens": n})
        settings = self.settings.model_copy(update={"decoding": decoding})
        payload = self._asking.builder.payload(entry, level, settings)
        return payload, await patiently(self._asking.probe, level.endpoints[0], payload)

    async def keep(self, level: str, sha256: str, answer: str | None, verdict: str | None, detail: Json) -> None:
        """Write a row of `probes`."""
        await self._asking.store.insert(
            "probes",
            {
                "session_id": self._asking.session_id,
                "kind": "canary",
                "level": level,
                "prompt_sha256": sha256,
                "answer": answer,
                "verdict": verdict,
                "detail_json": orjson.dumps(detail).decode(),
                "created_at": utc_now(),
            },
        )


async def patiently(probe: Probe, endpoint: str, payload: Payload) -> Attempt:
    """Probe, and probe again after a refusal that may pass: a busy server says nothing about itself."""
    attempt = await probe(endpoint, payload.path, payload.body, payload.headers)
    for n in range(1, TRIES):
        status = attempt.http_status
        if (
            attempt.reply is not None
            or (status is None and n > 1)
            or (status is not None and (status < 500 or status in LASTING) and status != 429)
        ):
            break
        await asyncio.sleep(min(attempt.retry_after_s or PAUSE_S * n, MAX_PAUSE_S))
        attempt = await probe(endpoint, payload.path, payload.body, payload.headers)
    return attempt


def refuse(attempt: Attempt, level: str, settings: Settings) -> None:
    """Raises ConfigError for a probe that the server will refuse however often it is asked: so it would the grid.

    An over-long prompt is no such thing: others may fit.
    """
    status = attempt.http_status or 500
    if attempt.error_type is ErrorType.QUOTA or (attempt.error_type is ErrorType.HTTP and status < 500):
        key = settings.engine.api_key_env
        do = (
            "Look at engine.base_url (most servers want /v1 at its end), model.name, prompt.endpoint, decoding and "
            "kv.apply."
        )
        if status in KEY_REFUSED:
            do = key_advice(settings.engine)
        elif attempt.error_type is ErrorType.QUOTA or status == 402:
            do = f"The account behind the key in {key} has nothing left to spend."
        elif (advice := field_advice(attempt.error_message)) is not None:
            do = advice
        raise ConfigError(
            f"the server refuses what this config sends at level {level}: {attempt.error_message}",
            where=attempt.endpoint,
            do=f"{do} Nothing of the grid was sent.",
        )


def refuse_all_failed(attempts: Sequence[Attempt]) -> None:
    """Raises where not one of several prompts was answered: ConfigError where all are too long, else ServerError."""
    if not attempts or any(attempt.reply is not None for attempt in attempts):
        return
    last = attempts[-1]
    reason = last.error_message or last.error_type
    if all(attempt.error_type is ErrorType.CONTEXT_OVERFLOW for attempt in attempts):
        raise ConfigError(
            f"the server takes none of the prompts, the shortest included: {reason}",
            where=last.endpoint,
            do="Serve a longer context, or lower prompt.max_context_tokens. Nothing of the grid was sent.",
        )
    raise ServerError(
        f"the server answers no prompt (asked {len(attempts)}): {reason}",
        where=last.endpoint,
        do="Is this an OpenAI-compatible server, and the right port? See engine.base_url, and the server's log. "
        "Nothing of the grid was sent.",
    )
