"""The request field `kv`: which policy, how much stays, of what. Strict: a misread budget ruins an experiment."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kvt_async.serve.api_errors import ApiError, one_of
from kvt_async.serve.policies import POLICIES, Choice, n_kept

Mode = Literal["question_aware", "question_agnostic"]
MODES: tuple[Mode, ...] = ("question_aware", "question_agnostic")
FIELDS = ("policy", "budget", "keep_tokens", "mode", "context_chars", "first_token", "params")
SMALLEST = {"window": 1, "kernel": 1, "sinks": 0, "protect_recent": 0, "seed": 0, "future": 1}


@dataclass(frozen=True, slots=True)
class KvRequest:
    """What to do to the cache after prefill. `choice` None: nothing is evicted whatever the budget says."""

    choice: Choice | None = None
    budget: float | None = None  # fraction of the compressible entries, in (0, 1]
    keep_tokens: int | None = None  # instead of a fraction
    mode: Mode = "question_aware"
    context_chars: int | None = None  # where the context ends in the first user message; question_agnostic only
    read_again: bool = True  # question_aware: the last prompt token is read again on the compressed cache

    @property
    def policy(self) -> str:
        return self.choice.policy.name if self.choice else "full"

    def keep_of(self, compressible: int) -> int:
        """Entries that stay of `compressible`, 1 to all."""
        if self.choice is None:
            return compressible
        if self.keep_tokens is not None:
            return min(self.keep_tokens, compressible)
        return n_kept(compressible, 1.0 if self.budget is None else self.budget)


def parse_kv(raw: object) -> KvRequest:
    """Raise ApiError (400) for anything that is not exactly understood."""
    if raw is None:
        return KvRequest()
    if not isinstance(raw, dict):
        raise _wrong("kv", f"must be an object, not {type(raw).__name__}")
    for name in raw:
        if name not in FIELDS:
            raise _wrong(f"kv.{name}", "is not a field" + one_of(name, FIELDS))
    mode = raw.get("mode", "question_aware")
    if mode not in MODES:
        raise _wrong("kv.mode", f"{mode!r} is not a mode" + one_of(mode, MODES))
    context_chars = raw.get("context_chars")
    if context_chars is not None:
        _integer("kv.context_chars", context_chars, 0)  # 0: an empty context, which only aware mode can do
    if mode == "question_agnostic" and context_chars is None:
        raise _wrong(
            "kv.context_chars",
            "is needed with mode question_agnostic: send the number of characters of the first user message's content "
            "(of the prompt, in /v1/completions) that are context; what follows is the question",
        )
    first_token = raw.get("first_token")
    if first_token not in (None, "compressed", "full"):
        raise _wrong("kv.first_token", f"{first_token!r} is unknown" + one_of(first_token, ("compressed", "full")))
    if first_token == "full" and mode == "question_agnostic":
        raise _wrong("kv.first_token", "'full' fits question_aware only: here the question is read after compression")
    choice, budget, keep_tokens = _choice(raw), raw.get("budget"), raw.get("keep_tokens")
    _amount(choice, budget, keep_tokens)
    return KvRequest(choice, budget, keep_tokens, mode, context_chars, first_token != "full")


def _choice(raw: Mapping[str, Any]) -> Choice | None:
    name, params = raw.get("policy"), raw.get("params")
    if name is None:
        if raw.get("budget") is not None or raw.get("keep_tokens") is not None or params:
            raise _wrong(
                "kv.policy", "is needed beside budget, keep_tokens or params" + one_of("", ["full", *POLICIES])
            )
        return None
    if params is not None and not isinstance(params, dict):
        raise _wrong("kv.params", f"must be an object, not {type(params).__name__}")
    if name == "full":
        if params:
            raise _wrong("kv.params", "policy 'full' takes none")
        return None
    if not isinstance(name, str) or name not in POLICIES:
        raise _wrong("kv.policy", f"{name!r} is not a policy" + one_of(name, ["full", *POLICIES]))
    policy = POLICIES[name]
    for param, value in (params or {}).items():
        if param not in policy.defaults:
            raise _wrong(f"kv.params.{param}", f"is not a parameter of {name}" + one_of(param, policy.defaults))
        _integer(f"kv.params.{param}", value, SMALLEST[param])
        if param == "kernel" and value % 2 == 0:
            raise _wrong("kv.params.kernel", f"must be odd, not {value}: pooling is centred")
    return Choice(policy, dict(params or {}))


def _amount(choice: Choice | None, budget: object, keep_tokens: object) -> None:
    if budget is not None and keep_tokens is not None:
        raise _wrong("kv.budget", "and kv.keep_tokens exclude each other: send one")
    if choice is not None and budget is None and keep_tokens is None:
        raise _wrong("kv.budget", f"or kv.keep_tokens is needed with policy {choice.policy.name!r}")
    if budget is not None:
        if isinstance(budget, bool) or not isinstance(budget, int | float):
            raise _wrong("kv.budget", f"must be a number, not {type(budget).__name__}")
        if not (math.isfinite(budget) and 0 < budget <= 1):
            raise _wrong("kv.budget", f"must be in (0, 1], not {budget}: it is the fraction kept, 1 keeps all")
        if choice is None and budget < 1:
            raise _wrong("kv.budget", f"is {budget}, but policy 'full' keeps everything" + one_of("", POLICIES))
    if keep_tokens is not None:
        _integer("kv.keep_tokens", keep_tokens, 1)
        if choice is None:
            raise _wrong("kv.keep_tokens", "does not fit policy 'full', which keeps everything" + one_of("", POLICIES))


def _integer(param: str, value: object, smallest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(param, f"must be an integer, not {type(value).__name__}")
    if value < smallest:
        raise _wrong(param, f"must be at least {smallest}, not {value}")


def _wrong(param: str, problem: str) -> ApiError:
    return ApiError(f"{param} {problem}", code="invalid_kv", param=param)
