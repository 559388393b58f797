"""The `kv` section of the config: which budgets, at which levels, and how they reach the server.

A way of applying a budget is known here by its name and by the keys of kv.apply that it alone reads; what it does is
kvt_async/ways. The database keeps the name in `runs.kv_apply`, and in `runs.apply_json` what makes a level that level.
"""

import warnings
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from kvt_async.contract.checked_text import valid_environment, valid_url
from kvt_async.contract.config_section import Count, Positive, Seconds, Section, Url
from kvt_async.contract.urls import bare_url
from kvt_async.contract.vocabulary import Mode, Unit, When

EvidenceUnit = Literal["fraction", "tokens", "bits", "compression_ratio", "divisor"]
AS_DATA: Final = "as data"  # validation context of a stored config: it may name a way that nobody added here
TRUNCATE_PROMPT: Final = "truncate_prompt"  # the control policy whose prompt is cut before it is sent


class Via(StrEnum):
    """How a budget reaches the server: the names of kvt's own ways, `kv.apply.via` and `runs.kv_apply`."""

    BODY = "body"  # fields of each request's body
    ENDPOINT = "endpoint"  # a server of its own for each level, already running
    LAUNCH = "launch"  # a server of its own for each level, started by kvt
    NONE = "none"  # a label alone: nothing is sent


@dataclass(frozen=True, slots=True)
class ApplyKeys:
    """Keys of kv.apply that one way alone reads: those it can't do without, and others."""

    needed: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


APPLY_KEYS: dict[str, ApplyKeys] = {
    Via.BODY: ApplyKeys(needed=("body",), optional=("full_body",)),
    Via.ENDPOINT: ApplyKeys(optional=("endpoints",)),
    Via.LAUNCH: ApplyKeys(needed=("command",)),
    Via.NONE: ApplyKeys(),
}


def add_way(name: str, keys: ApplyKeys) -> None:
    """Let kv.apply.via be `name`, and kv.apply hold its keys. Raises ValueError where name or key is taken.

    The value of such a key may hold secrets, and is checked by the way itself.
    """
    taken = [key for key in (*keys.needed, *keys.optional) if key in Apply.model_fields or key in added_keys()]
    if name in APPLY_KEYS or taken:
        raise ValueError(f"kv.apply has {'the key ' + taken[0] if taken else 'the way ' + name} already")
    APPLY_KEYS[name] = keys


def remove_way(name: str) -> None:
    """Undo `add_way`."""
    del APPLY_KEYS[name]


def added_keys() -> tuple[str, ...]:
    """Keys of kv.apply that only ways read that were added."""
    keys = (key for way in APPLY_KEYS.values() for key in (*way.needed, *way.optional))
    return tuple(key for key in keys if key not in Apply.model_fields)


def cuts_prompts(policy: str) -> bool:
    """Whether levels of this policy cut the prompt itself, so that the server serves it as it serves full cache."""
    return policy == TRUNCATE_PROMPT


def is_label(via: str) -> bool:
    """Whether a budget applied this way is a label alone, of which the server is told nothing."""
    return via == Via.NONE


_OUR_FIELDS = {"policy": "{policy}", "budget": "{budget}", "mode": "{mode}", "context_chars": "{context_chars}"}


class LevelSpec(Section):
    """One entry of kv.levels."""

    policy: str | None = None
    budget: Positive = 1.0
    unit: Unit | None = None
    mode: Mode | None = None
    when: When | None = None
    params: dict[str, Any] = {}
    base_url: Url | list[Url] | None = None


class ConstrainedFull(Section):
    """Full cache once more, under the restrictions that the levels have beside their budgets: kv.constrained."""

    params: dict[str, Any] = {}  # over those of full cache
    base_url: Url | list[Url] | None = None


class PolicySpec(Section):
    """One entry of kv.policies; a bare string is a policy with defaults."""

    policy: str
    mode: Mode | None = None
    when: When | None = None
    params: dict[str, Any] = {}


class Apply(Section):
    """How a level reaches the server. Keys of the other ways than `via` are refused."""

    model_config = ConfigDict(extra="allow")  # the keys of ways that were added; `_fits_its_way` refuses all others

    via: str = Via.NONE.value  # a way of APPLY_KEYS
    body: dict[str, Any] | None = None  # body: merged into the request
    full_body: dict[str, Any] | None = None  # body: at full cache, where it must differ
    endpoints: dict[str, Url | list[Url]] | None = None  # endpoint: budget or "policy budget" -> URL(s)
    command: str | None = None  # launch: template
    health_url: str | None = None
    ready_timeout_s: Seconds = 300
    grace_s: Seconds = 10
    env: Annotated[dict[str, str], AfterValidator(valid_environment)] = {}
    round_to: Count = 1  # the server keeps whole blocks of so many tokens
    rounding: Literal["up", "down", "nearest"] = "up"

    def at(self, when: When, unit: Unit) -> "Apply":
        """The same for levels that evict at `when`: kvt's own body tells the server of it where that isn't after
        prefill, with the params that belong to it and a budget in tokens as such. A body of the user's own stays."""
        if when == When.PREFILL or self.body != {"kv": _OUR_FIELDS}:
            return self
        fields = _OUR_FIELDS | {"when": "{when}", "params": "{params}"}
        if unit == Unit.TOKENS:
            del fields["budget"]
            fields["keep_tokens"] = "{keep_tokens}"
        return self.model_copy(update={"body": {"kv": fields}})

    @field_validator("via", mode="before")
    @classmethod
    def _is_a_way(cls, value: Any, info: ValidationInfo) -> Any:
        if value not in [*APPLY_KEYS] and not (info.context == AS_DATA and isinstance(value, str)):
            names = [repr(str(name)) for name in APPLY_KEYS]
            expected = f"{', '.join(names[:-1])} or {names[-1]}"
            raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})
        return value

    @model_validator(mode="after")
    def _fits_its_way(self) -> "Apply":
        if self.via not in APPLY_KEYS:
            return self
        if strange := [key for key in self.model_extra or {} if key not in added_keys()]:
            raise ValueError(f"there is no key {strange[0]}")
        for way, keys in APPLY_KEYS.items():
            for key in (*keys.needed, *keys.optional):
                is_given = getattr(self, key, None) is not None
                if self.via == way and key in keys.needed and not is_given:
                    raise ValueError(f"via: {way} needs {key}")
                if self.via != way and is_given:
                    raise ValueError(f"{key} is given, but via is {self.via}")
        return self


def _page_url(url: str) -> str:
    if url.startswith("/") and not url.startswith("//"):
        valid_url(f"http://host{url}")
        return url
    if valid_url(url) != bare_url(url):
        raise ValueError("write no user, password or fragment into it")
    return url


class ServerPage(Section):
    """An entry of a JSON page of the server: kv.evidence.json."""

    url: Annotated[str, AfterValidator(_page_url)]  # under the server of each level, or whole
    path: Annotated[str, Field(min_length=1)]  # dotted: keys, and numbers of a list's items


if TYPE_CHECKING:
    _JsonPage = Any  # a field may not replace a method of another type
else:
    _JsonPage = ServerPage | None
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Field name .json.")  # BaseModel.json is deprecated, and nobody calls it

    class Quantity(Section):
        """A number that a server says at one place, or that its launch command fixes: `value`."""

        value: Annotated[float, Field(gt=0, le=1e18)] | None = None
        metric: str | None = None
        log: str | None = None
        json: _JsonPage = None
        unit: Literal["bytes", "KiB", "MiB", "GiB", "kB", "MB", "GB"] = "bytes"  # of memory

        @model_validator(mode="after")
        def _one_place(self) -> "Quantity":
            if len(_given(self, ("value", "metric", "log", "json"))) != 1:
                raise ValueError("give one of value, metric, log and json")
            return self

    class CacheSize(Section):
        """Memory of a server's KV cache, and the tokens that it holds; several quantities are multiplied (blocks x
        tokens of a block)."""

        memory: Quantity
        tokens: Annotated[list[Quantity], Field(min_length=1, max_length=4)]

        @field_validator("tokens", mode="before")
        @classmethod
        def _one_is_a_list(cls, value: Any) -> Any:
            return [value] if isinstance(value, dict) else value

    class EvidenceSource(Section):
        """Where the effective budget can be read. At most one place, and bytes per token; none: it stays unverified."""

        usage: str | None = None  # dotted path in the usage object, e.g. kv.kept_fraction
        header: str | None = None
        metric: str | None = None
        log: str | None = None
        json: _JsonPage = None
        configured: bool = False
        unit: EvidenceUnit | None = None  # unit of what is read; null: kv.unit
        bytes_per_token: CacheSize | None = None  # of levels in bits: what their cache takes, whatever it is called

        @model_validator(mode="after")
        def _one_place(self, info: ValidationInfo) -> "EvidenceSource":
            given = _given(self, ("usage", "header", "metric", "log", "json", "configured"))
            if len(given) > 1 and info.context != AS_DATA:
                raise ValueError(f"{' and '.join(given)} are given: the budget is read at one place; keep one of them")
            return self


def _given(section: Section, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if getattr(section, name)]


class KV(Section):
    policy: str = "snapkv"
    budgets: list[Positive] = [1.0, 0.5, 0.2]
    unit: Unit = Unit.FRACTION
    mode: Mode = Mode.AWARE
    when: When = When.PREFILL
    params: dict[str, Any] = {}
    policies: list[str | PolicySpec] | None = None
    levels: list[LevelSpec] | None = None
    constrained: ConstrainedFull | None = None
    control_repeats: Annotated[int, Field(ge=0, le=20)] = 1
    apply: Apply = Apply(via=Via.BODY.value, body={"kv": _OUR_FIELDS})
    evidence: EvidenceSource = EvidenceSource(usage="kv.kept_fraction")

    @field_validator("apply", "evidence", "budgets", mode="before")
    @classmethod
    def _null_is_none(cls, value: Any, info: ValidationInfo) -> Any:
        """null leaves the default out: no way of applying, no evidence, no short form of levels."""
        return value if value is not None else [] if info.field_name == "budgets" else {}

    @model_validator(mode="after")
    def _sane_budgets(self) -> "KV":
        if not self.budgets and not self.levels:
            raise ValueError("budgets is empty: give at least one")
        if self.unit == Unit.FRACTION and any(b > 1 for b in self.budgets):
            raise ValueError(
                f"budgets are fractions kept, in (0, 1]; got {self.budgets}. For token caps set unit: tokens"
            )
        if len(set(self.budgets)) != len(self.budgets):
            raise ValueError(f"budgets has duplicates: {self.budgets}")
        return self


class StoredSection(Section):
    """The section of a config that is read as data: Settings hand no context on to what they hold."""

    kv: KV
