"""kvpress's presses under the names that a request asks for: any that takes a ratio, alone or wrapped in another.

`snapkv`, `streaming_llm` ...: the numpy server's names, parameters and defaults, so that one config asks both for the
same; `SnapKVPress` ...: kvpress's class with kvpress's own defaults. A press around another is `adakv_snapkv`. Every
scoring press takes `protect_recent`. `h2o` is ours: kvpress has no press that keeps half of the budget for the newest.
"""

import dataclasses
import inspect
import math
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from kvt_async.contract.errors import ConfigError
from kvt_async.serve.api_errors import ApiError, one_of, shown
from kvt_async.serve.catalogue import LARGEST, integer, not_a_parameter, wrong
from kvt_async.serve.policies import POLICIES

SPELLED = {"StreamingLLM": "streaming_llm", "KeyDiff": "keydiff", "CriticalKV": "critical"}
FIELD_OF = {"window": "window_size", "kernel": "kernel_size", "sinks": "n_sink", "future": "n_future_positions"}
NOT_SERVED = {
    "FinchPress": "marks the end of its context with a token of its own",
    "RestoreKVPress": "loads an adapter into the model",
    "ScorerPress": "is the base of others",
}
NEEDS_ATTENTION = ("ObservedAttentionPress", "H2OPress", "KVComposePress")  # weights that only eager attention returns
WHILE_GENERATING = (  # they score by keys, values, the newest queries and attention received
    "SnapKVPress",
    "TOVAPress",
    "StreamingLLMPress",
    "KnormPress",
    "RandomPress",
    "ExpectedAttentionPress",
    "KeyDiffPress",
    "ObservedAttentionPress",
    "H2OPress",
    "LagKVPress",
)
MOST_OF_TORCH = 2**31 - 1  # of a whole number that a press is given
MOVES_KEYS = ("KeyRerotationPress",)  # kept entries get the positions 0, 1, 2, ...


class Presses:
    """The catalogue of a kvpress backend."""

    def __init__(self, default: str | None = None) -> None:
        import kvpress

        classes = {
            name: cls
            for name in kvpress.__all__
            if isinstance(cls := getattr(kvpress, name), type) and issubclass(cls, kvpress.BasePress)
        }
        self._classes = classes
        self._scorer = kvpress.ScorerPress
        self.plain = {_name(n): c for n, c in classes.items() if n not in NOT_SERVED and _takes_a_ratio(c)}
        self.plain["h2o"] = _h2o()
        self.wrappers = {_name(n): c for n, c in classes.items() if _wraps(c, kvpress.KnormPress)}
        self.default = default
        if default is not None:
            try:
                self.check(default, {})
            except ApiError as problem:
                raise ConfigError(str(problem), where="--press") from None

    def names(self) -> Sequence[str]:
        """Without the combinations: a press around another is `wrappers`' name, an underscore, and `plain`'s."""
        return sorted(self.plain)

    def check(self, name: str, params: Mapping[str, Any]) -> None:
        try:
            self.make(name, params, 0.5)
        except (AssertionError, ValueError, TypeError) as problem:
            raise wrong("kv.params", f"are refused by {name}: {problem}") from None

    def check_while_generating(self, name: str, params: Mapping[str, Any]) -> None:
        press = self.make(name, params, 0.0)
        if type(press).__name__ not in WHILE_GENERATING:
            why = (
                "what it scores by is known of a prompt only"
                if isinstance(press, self._scorer)
                else "kvpress's DecodingPress takes a press that scores entries one by one, alone"
            )
            names = ", ".join(sorted(n for n, c in self.plain.items() if c.__name__ in WHILE_GENERATING))
            raise wrong(
                "kv.when", f"must be 'prefill' with policy {name!r}: {why}. While generating can evict: {names}."
            )

    def make(self, name: str, params: Mapping[str, Any], ratio: float) -> Any:
        """A new press that removes `ratio` of the entries; ApiError for what kvpress doesn't have."""
        wrapper, inner = self._classes_of(name)
        left = dict(params)
        if name in POLICIES:  # the numpy server's defaults
            left = {key: value for key, value in POLICIES[name].defaults.items() if key != "protect_recent"} | left
        protected = left.pop("protect_recent", None)
        if name == "random":
            integer("kv.params.seed", left.pop("seed"), 0)  # for the generator of the whole request: see `seed_of`
        inner_values = _values(name, inner, left)
        wrapper_values = _values(name, wrapper, left) if wrapper else {}
        if left:
            parameters = [*_settable(inner), *(_settable(wrapper) if wrapper else ()), "protect_recent"]
            raise not_a_parameter(name, next(iter(left)), dict.fromkeys(parameters))
        press = inner(**inner_values)
        press.compression_ratio = ratio
        if protected is not None:
            if not issubclass(inner, self._scorer):
                raise wrong("kv.params.protect_recent", f"fits scoring presses only, which {name} is not")
            integer("kv.params.protect_recent", protected, 0)
            _protect(press, protected)
        return wrapper(press=press, **wrapper_values) if wrapper else press

    def _classes_of(self, name: str) -> tuple[type | None, type]:
        if name in self.plain:
            return None, self.plain[name]
        for prefix, wrapper in sorted(self.wrappers.items(), reverse=True):
            inner = self.plain.get(name.removeprefix(f"{prefix}_"))
            if name.startswith(f"{prefix}_") and inner is not None and issubclass(inner, self._scorer):
                return wrapper, inner
        cls = self._classes.get(name) or next((c for n, c in self._classes.items() if _name(n) == name), None)
        if cls is not None and cls in self.plain.values():
            return None, cls
        if cls is not None and cls in self.wrappers.values():
            raise wrong("kv.policy", f"{name!r} goes around another press: {_name(cls.__name__)}_snapkv, for example")
        if cls is not None:
            why = NOT_SERVED.get(cls.__name__, "has no ratio of entries that a request could set")
            raise wrong("kv.policy", f"{name!r} is not served: {cls.__name__} {why}")
        combined = [f"{outer}_{inner}" for outer in self.wrappers for inner in self.plain]
        near = one_of(name, ["full", *self.plain, *combined, *self._classes]).split(" Known")[0]
        names = ", ".join(["full", *self.names()])
        around = ", ".join(f"{outer}_" for outer in sorted(self.wrappers))
        raise wrong("kv.policy", f"{shown(name)} is not a policy{near} Known: {names}; around a scoring one: {around}")


def seed_of(name: str, params: Mapping[str, Any]) -> int:
    """What `random` draws from beside the prompt."""
    return int(params.get("seed", 0)) if name == "random" else 0


def parts(press: Any) -> list[Any]:
    """The press and what it goes around."""
    inner = getattr(press, "press", None)
    return [press, *(parts(inner) if inner is not None else [])]


def needs_attention(press: Any) -> bool:
    return any(type(part).__name__ in NEEDS_ATTENTION for part in parts(press))


def moves_keys(press: Any) -> bool:
    return any(type(part).__name__ in MOVES_KEYS for part in parts(press))


def shortest_prompt(press: Any) -> tuple[int, str]:
    """Tokens that must be there to compress, and the parameter that says so."""
    least = (1, "")
    for part in parts(press):
        kinds = {cls.__name__ for cls in type(part).__mro__}
        if "SnapKVPress" in kinds:
            least = max(least, (part.window_size + 1, "window"))
        if kinds & {"StreamingLLMPress", "ExpectedAttentionPress", "CapPress"}:
            least = max(least, (part.n_sink + 1, "sinks"))
    return least


def _name(class_name: str) -> str:
    short = class_name.removesuffix("Press")
    return SPELLED.get(short) or re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", short).lower()


def _takes_a_ratio(cls: type) -> bool:
    given = inspect.signature(cls).parameters
    return "compression_ratio" in given and all(p.default is not p.empty for p in given.values())


def _wraps(cls: type, example: Any) -> bool:
    """Whether it goes around any scoring press and hands its ratio on."""
    if "press" not in inspect.signature(cls).parameters:
        return False
    try:
        made: Any = cls(press=example(0.1))
        made.compression_ratio = 0.3
        return bool(made.press.compression_ratio == 0.3)
    except (AttributeError, AssertionError, TypeError):
        return False


def _settable(cls: type) -> dict[str, Any]:
    """Parameters a request may give, by our name where there is one, with their types."""
    hints = get_type_hints(inspect.getattr_static(cls, "__init__"))
    ours = {field: name for name, field in FIELD_OF.items()}
    fields = [name for name in inspect.signature(cls).parameters if name not in ("compression_ratio", "press")]
    return {ours.get(name, name): hints.get(name, float) for name in fields}


def _values(name: str, cls: type, params: dict[str, Any]) -> dict[str, Any]:
    """Take from `params` what is the class's; both spellings of a parameter are known."""
    values = {}
    for ours, kind in _settable(cls).items():
        field = FIELD_OF.get(ours, ours)
        given = [key for key in dict.fromkeys((ours, field)) if key in params]
        if len(given) == 2 and name not in POLICIES:
            raise wrong(f"kv.params.{field}", f"and {ours} are the same: send one")
        for key in given:
            values[field] = _typed(key, params.pop(key), kind)
            if isinstance(values[field], int):
                integer(f"kv.params.{key}", int(values[field]), -MOST_OF_TORCH, LARGEST.get(ours, MOST_OF_TORCH))
    return values


def _typed(name: str, value: Any, kind: Any) -> Any:
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    choices = [choice for k in kinds if get_origin(k) is Literal for choice in get_args(k)]
    if value is None and type(None) in kinds:
        return None
    if isinstance(value, bool):
        fits = bool in kinds
    elif isinstance(value, int):
        fits = int in kinds or float in kinds
    elif isinstance(value, float):
        fits = float in kinds and math.isfinite(value)
    else:
        fits = isinstance(value, str) and (str in kinds or value in choices)
    if not fits:
        wanted = ", ".join(getattr(k, "__name__", str(k)) for k in kinds if k is not type(None))
        raise wrong(f"kv.params.{name}", f"must be {', '.join(map(repr, choices)) or wanted}, not {shown(value)}")
    return value


def _protect(press: Any, newest: int) -> None:
    """Let the press score as it does, with the newest entries above everything."""
    score = press.score

    def with_the_newest_first(*args: Any, **kwargs: Any) -> Any:
        scores = score(*args, **kwargs)
        if newest:
            scores[..., -newest:] = scores.max() + 1
        return scores

    press.score = with_the_newest_first


def _h2o() -> type:
    import kvpress
    from kvpress.utils import compute_n_kept

    @dataclasses.dataclass
    class H2OPress(kvpress.ScorerPress):
        """Attention summed over all queries; half of the budget is for the newest entries (Zhang et al., 2023)."""

        def score(self, module: Any, hidden_states: Any, keys: Any, values: Any, attentions: Any, kwargs: Any) -> Any:
            batch, heads, length, _ = keys.shape
            scores = attentions.sum(2).view(batch, heads, -1, length).mean(2)
            newest = compute_n_kept(length, self.compression_ratio) // 2
            if newest:
                scores[..., -newest:] = scores.max() + 1
            return scores

    return H2OPress
