"""The policies a backend offers, as the parser of `kv` sees them: names, and a check of one policy's parameters."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from kvt_async.contract.errors import ConfigError
from kvt_async.serve.api_errors import ApiError, one_of, shown
from kvt_async.serve.policies import POLICIES, find_policy, policy_names

INTERVAL = "compression_interval"  # among the parameters of every policy, for evicting while an answer is generated
SMALLEST = {"window": 1, "kernel": 1, "sinks": 0, "protect_recent": 0, "seed": 0, "future": 1}
LARGEST = {"kernel": 999, "future": 100_000}  # what costs work or memory of its own size; others may be anything


class Catalogue(Protocol):
    """Every policy that evicts; `full` is nobody's, because it needs none."""

    default: str | None  # for a request with a budget and no policy; None: the request must name one

    def names(self) -> Sequence[str]: ...

    def check(self, name: str, params: Mapping[str, Any]) -> None:
        """Raise ApiError (400) for a name or parameters that the backend doesn't have."""

    def check_while_generating(self, name: str, params: Mapping[str, Any]) -> None:
        """Raise ApiError (400) where a policy that `check` lets pass can't evict while an answer is generated."""


class ReferencePolicies:
    """The policies of the numpy engine."""

    default: str | None = None

    def names(self) -> Sequence[str]:
        return policy_names()

    def check(self, name: str, params: Mapping[str, Any]) -> None:
        try:
            policy = find_policy(name)
        except ConfigError as error:
            raise broken(error) from None
        if policy is None:
            raise not_a_policy(name, self.names())
        for param, value in params.items():
            if param not in policy.defaults:
                raise not_a_parameter(name, param, policy.defaults)
            integer(f"kv.params.{param}", value, SMALLEST.get(param, 0), LARGEST.get(param))
            if param == "kernel" and name in POLICIES and value % 2 == 0:
                raise wrong("kv.params.kernel", f"must be odd, not {value}: pooling is centred")

    def check_while_generating(self, name: str, params: Mapping[str, Any]) -> None:
        """Every policy can; a plugin's says what it lacks when it looks for that."""


def broken(error: ConfigError) -> ApiError:
    """A policy of a plugin that can't do its work: the server's fault, and no request is at fault."""
    return ApiError(str(error), status=500, kind="internal_server_error", param="kv.policy")


def not_a_policy(name: object, names: Sequence[str]) -> ApiError:
    return wrong("kv.policy", f"{shown(name)} is not a policy" + one_of(name, ["full", *names]))


def not_a_parameter(policy: str, param: str, known: Mapping[str, Any]) -> ApiError:
    return wrong(f"kv.params.{param}", f"is not a parameter of {policy}" + one_of(param, [*known, INTERVAL]))


def integer(param: str, value: object, smallest: int, largest: int | None = None) -> None:
    """Raise ApiError unless `value` is a whole number from `smallest` to `largest`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(param, f"must be an integer, not {type(value).__name__}")
    if value < smallest:
        raise wrong(param, f"must be at least {smallest}, not {value}")
    if largest is not None and value > largest:
        raise wrong(param, f"must be at most {largest}, not {value}")


def wrong(param: str, problem: str) -> ApiError:
    return ApiError(f"{param} {problem}", code="invalid_kv", param=param)
