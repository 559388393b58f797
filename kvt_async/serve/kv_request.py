"""The request field `kv`: which policy, how much stays, of what. Strict: a misread budget ruins an experiment."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kvt_async.contract.formulas.kv_budget import n_kept
from kvt_async.serve.api_errors import one_of, shown
from kvt_async.serve.catalogue import INTERVAL, Catalogue, ReferencePolicies, integer, not_a_policy, wrong

Mode = Literal["question_aware", "question_agnostic"]
MODES: tuple[Mode, ...] = ("question_aware", "question_agnostic")
When = Literal["prefill", "decode", "both"]
WHENS: tuple[When, ...] = ("prefill", "decode", "both")
FIELDS = (
    "policy",
    "budget",
    "keep_tokens",
    "when",
    "mode",
    "context_chars",
    "context_messages",
    "first_token",
    "params",
)
EVERY_512 = 512  # kvpress's default
REFERENCE = ReferencePolicies()


@dataclass(frozen=True, slots=True)
class KvRequest:
    """What to do to the cache, and when. Policy `full`: nothing is evicted whatever the budget says."""

    policy: str = "full"
    params: Mapping[str, Any] = field(default_factory=dict)
    budget: float | None = None  # fraction of the compressible entries, in (0, 1]
    keep_tokens: int | None = None  # instead of a fraction
    mode: Mode = "question_aware"
    context_chars: int | None = None  # where the context ends in the first user message; question_agnostic only
    context_messages: int | None = None  # or how many of the first messages are the context
    read_again: bool = True  # question_aware: the last prompt token is read again on the compressed cache
    when: When = "prefill"  # after the prompt, while the answer is generated, or both
    interval: int = EVERY_512  # generated tokens from one compression to the next

    @property
    def while_generating(self) -> bool:
        return self.when != "prefill" and self.policy != "full"

    def keep_of(self, compressible: int) -> int:
        """Entries that stay of a prompt's `compressible`, 1 to all."""
        return compressible if self.when == "decode" else self.keep_of_seen(compressible)

    def keep_of_seen(self, seen: int) -> int:
        """Entries that a compression leaves where `seen` tokens have been read and generated, 1 to all."""
        if self.policy == "full":
            return seen
        if self.keep_tokens is not None:
            return min(self.keep_tokens, seen)
        return n_kept(seen, 1.0 if self.budget is None else self.budget)


def parse_kv(raw: object, policies: Catalogue = REFERENCE) -> KvRequest:
    """Raise ApiError (400) for anything that is not exactly understood."""
    if raw is None:
        return KvRequest()
    if not isinstance(raw, dict):
        raise wrong("kv", f"must be an object, not {type(raw).__name__}")
    for name in raw:
        if name not in FIELDS:
            raise wrong(f"kv.{name}", "is not a field" + one_of(name, FIELDS))
    mode = raw.get("mode", "question_aware")
    if not isinstance(mode, str) or mode not in MODES:
        raise wrong("kv.mode", f"{shown(mode)} is not a mode" + one_of(mode, MODES))
    context_chars = raw.get("context_chars")
    if context_chars is not None:
        integer("kv.context_chars", context_chars, 0)  # 0: what stands before it, such as tools
    context_messages = raw.get("context_messages")
    if context_messages is not None:
        integer("kv.context_messages", context_messages, 1)
        if context_chars is not None:
            raise wrong("kv.context_chars", "and kv.context_messages exclude each other: send one")
    if mode == "question_agnostic" and context_chars is None and context_messages is None:
        raise wrong(
            "kv.context_chars",
            "is needed with mode question_agnostic: send the number of characters of the first user message's content "
            "(of the prompt, in /v1/completions) that are context; what follows is the question. Where the context is "
            "a conversation, send kv.context_messages instead: how many of the first messages are context",
        )
    first_token = raw.get("first_token")
    if first_token not in (None, "compressed", "full"):
        raise wrong("kv.first_token", f"{shown(first_token)} is unknown" + one_of(first_token, ("compressed", "full")))
    if first_token == "full" and mode == "question_agnostic":
        raise wrong("kv.first_token", "'full' fits question_aware only: here the question is read after compression")
    when = raw.get("when", "prefill")
    if not isinstance(when, str) or when not in WHENS:
        raise wrong("kv.when", f"{shown(when)} is no time to evict" + one_of(when, WHENS))
    name, params, interval = _policy(raw, when, policies)
    budget, keep_tokens = raw.get("budget"), raw.get("keep_tokens")
    _amount(name, budget, keep_tokens, policies)
    return KvRequest(
        name,
        params,
        budget,
        keep_tokens,
        mode,
        context_chars,
        context_messages,
        read_again=first_token != "full",
        when=when,
        interval=interval,
    )


def _policy(raw: Mapping[str, Any], when: str, policies: Catalogue) -> tuple[str, Mapping[str, Any], int]:
    """The policy's name, its own parameters, and the interval between compressions."""
    name, params = raw.get("policy"), raw.get("params")
    if name is None:
        if raw.get("budget") is None and raw.get("keep_tokens") is None and not params:
            return "full", {}, EVERY_512
        if policies.default is None:
            raise wrong(
                "kv.policy", "is needed beside budget, keep_tokens or params" + one_of("", ["full", *policies.names()])
            )
        name = policies.default
    if params is not None and not isinstance(params, dict):
        raise wrong("kv.params", f"must be an object, not {type(params).__name__}")
    if not isinstance(name, str):
        raise not_a_policy(name, policies.names())
    own, interval = dict(params or {}), EVERY_512
    if name == "full":
        if own:
            raise wrong("kv.params", "policy 'full' takes none")
        return name, {}, interval
    if INTERVAL in own:
        interval = own.pop(INTERVAL)
        integer(f"kv.params.{INTERVAL}", interval, 1)
        if when == "prefill":
            raise wrong(
                f"kv.params.{INTERVAL}", "fits kv.when 'decode' or 'both' only: without them nothing is evicted later"
            )
    policies.check(name, own)
    if when != "prefill":
        policies.check_while_generating(name, own)
    return name, own, interval


def _amount(name: str, budget: object, keep_tokens: object, policies: Catalogue) -> None:
    if budget is not None and keep_tokens is not None:
        raise wrong("kv.budget", "and kv.keep_tokens exclude each other: send one")
    if name != "full" and budget is None and keep_tokens is None:
        raise wrong("kv.budget", f"or kv.keep_tokens is needed with policy {name!r}")
    if budget is not None:
        if isinstance(budget, bool) or not isinstance(budget, int | float):
            raise wrong("kv.budget", f"must be a number, not {type(budget).__name__}")
        if not (math.isfinite(budget) and 0 < budget <= 1):
            raise wrong("kv.budget", f"must be in (0, 1], not {budget}: it is the fraction kept, 1 keeps all")
        if name == "full" and budget < 1:
            raise wrong("kv.budget", f"is {budget}, but policy 'full' keeps everything" + one_of("", policies.names()))
    if keep_tokens is not None:
        integer("kv.keep_tokens", keep_tokens, 1)
        if name == "full":
            raise wrong(
                "kv.keep_tokens", "does not fit policy 'full', which keeps everything" + one_of("", policies.names())
            )
