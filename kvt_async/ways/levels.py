"""Settings -> the levels to run, in order: full cache once, again under the levels' other restrictions where
kv.constrained asks for it, then each series from the mildest budget to the harshest.

A series is (policy, mode, when, params) under a readable, unique label that depends on nothing but these, so that a
level added to a config later never renames the ones that are stored. Of bit widths it is (policy, mode): their params
name the width in the server's words (`dtype: q8_0`), and widths of one policy are one curve.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.decode_budget import INTERVAL, interval_of
from kvt_async.contract.formulas.kv_budget import in_blocks
from kvt_async.contract.formulas.sample_seed import is_drawn
from kvt_async.contract.settings import Settings
from kvt_async.contract.settings_kv import Apply, LevelSpec, PolicySpec, cuts_prompts, is_label
from kvt_async.contract.vocabulary import CONSTRAINED, FULL, Mode, Unit, When
from kvt_async.engine.request.kv_fields import NOBODY_COUNTED, kv_fields, kv_headers
from kvt_async.records import Json, Level, Run
from kvt_async.ways.registry import way_of
from kvt_async.ways.way import Way

NO_BASELINE = (
    "without full cache there is nothing to compare with: no drop, no transition zone and no verdict can be told, only "
    "accuracies. Add 1.0 to kv.budgets."
)
_MODES = {Mode.AWARE: "aware", Mode.AGNOSTIC: "agnostic"}


@dataclass(frozen=True, slots=True)
class Levels:
    """Levels in the order they run (repeats of full cache last), and sentences about what was merged or is missing."""

    levels: tuple[Level, ...]
    notes: tuple[str, ...]


def make_levels(settings: Settings) -> Levels:
    """Raises ConfigError where two levels can't be told apart or a level has no endpoint."""
    notes: list[str] = []
    specs = list(_specs(settings))
    full = [level for level in specs if level.is_full]
    if len(full) > 1 and settings.kv.levels is not None:
        notes.append(f"full cache is asked for {len(full)} times; it runs once and is every series' baseline")
    if not full:
        notes.append(NO_BASELINE)
        if settings.kv.control_repeats:
            notes.append("kv.control_repeats is ignored: there is no full cache to repeat")
    if named := next((level for level in specs if level.series == CONSTRAINED), None):
        raise ConfigError(f"the policy {named.policy!r} has the name of a level of kv.constrained", where="kv.levels")
    constrained = _constrained(settings, full[0] if full else None)
    kept = _distinct([*full[:1], *constrained, *(level for level in specs if not level.is_full)], notes)
    _check_told_apart(settings, kept)
    if full:
        kept += [replace(kept[0], repeat_idx=n + 1) for n in range(_n_repeats(settings))]
    return Levels(tuple(replace(level, level_idx=n) for n, level in enumerate(kept)), tuple(notes))


def _n_repeats(settings: Settings) -> int:
    """Repeats of full cache; where answers are drawn, at least two: one with the same seeds, which shows the server's
    own noise, and one with others, which shows how far answers differ because they are drawn."""
    asked = settings.kv.control_repeats
    return max(2, asked) if asked and is_drawn(settings.decoding) else asked


def series_label(policy: str, mode: Mode, params: Json, *, names_mode: bool, when: When = When.PREFILL) -> str:
    """`snapkv/aware`, `snapkv/agnostic window=32`, `snapkv/decode`; `names_mode`: name the default mode too."""
    if cuts_prompts(policy):
        return f"{policy}/{params.get('mode', 'middle')}"
    head = f"{policy}/{_MODES[mode]}" if names_mode or mode != Mode.AWARE else policy
    head += "" if when == When.PREFILL else f"/{when}"
    return " ".join([head, *(f"{key}={_plain(params[key])}" for key in sorted(params))])


def _specs(settings: Settings) -> Iterator[Level]:
    kv = settings.kv
    if kv.levels is not None:
        for spec in kv.levels:
            params = _params(settings, spec.params, spec.when)
            yield _level(settings, spec.policy or kv.policy, spec.mode or kv.mode, params, spec)
        return
    for entry in kv.policies if kv.policies is not None else [kv.policy]:
        policy = PolicySpec(policy=entry) if isinstance(entry, str) else entry
        for budget in sorted(kv.budgets, reverse=True):
            params = _params(settings, policy.params, policy.when)
            yield _level(
                settings, policy.policy, policy.mode or kv.mode, params, LevelSpec(budget=budget, when=policy.when)
            )


def _params(settings: Settings, own: Json, when: When | None) -> Json:
    """A level's params: those of kv.params, and its own. An interval between compressions that is meant for the levels
    that evict while they answer is none of those that don't, and servers refuse it there."""
    kv = settings.kv
    others = [spec.when for spec in (*(kv.levels or ()), *(kv.policies or ())) if not isinstance(spec, str)]
    evicts_later = any((other or kv.when) != When.PREFILL for other in (*others, None))
    shared = kv.params
    if evicts_later and (when or kv.when) == When.PREFILL and not way_of(kv.apply.via).full_has_params:
        shared = {name: value for name, value in shared.items() if name != INTERVAL}
    return {**shared, **own}


def _level(settings: Settings, policy: str, mode: Mode, params: Json, spec: LevelSpec) -> Level:
    kv = settings.kv
    unit, budget = spec.unit or kv.unit, float(f"{spec.budget:.12g}")
    if unit == Unit.FRACTION and budget > 1:
        raise ConfigError(
            f"a fraction kept of {budget:g} is more than all", where="kv.levels", do="Give a budget in (0, 1]."
        )
    is_full = policy == FULL or (unit == Unit.FRACTION and budget == 1.0)
    way = way_of(kv.apply.via)
    when = When.PREFILL if is_full else spec.when or kv.when
    if is_full:
        policy, mode, unit, budget = FULL, Mode.AWARE, Unit.FRACTION, 1.0
        params = params if way.full_has_params else {}
    _check_when(when, policy, mode, unit)
    if when != When.PREFILL and INTERVAL in params and interval_of(params) != params[INTERVAL]:
        raise ConfigError(
            f"{params[INTERVAL]!r} is no number of tokens between compressions",
            where=f"kv.params.{INTERVAL}, or the params of {policy}",
            do="Give a whole number, 1 or more.",
        )
    cuts = cuts_prompts(policy)  # the server serves it as it serves full cache
    if cuts:
        mode, params = Mode.AWARE, {"mode": params.get("mode", "middle")}
    named_params = {} if unit == Unit.BITS else params
    return Level(
        series=FULL if is_full else series_label(policy, mode, named_params, names_mode=way.names_mode, when=when),
        policy=policy,
        budget=budget,
        unit=unit,
        mode=mode,
        params=params,
        is_full=is_full,
        apply_via=way.name,
        apply=_identity(kv.apply.at(when, unit), way, serves_full=is_full or cuts),
        evidence={"usage": "prompt_tokens"} if cuts else _set(kv.evidence.model_dump(mode="json", exclude_none=True)),
        when=when,
        endpoints=_endpoints(settings, spec, *((FULL, 1.0) if cuts else (policy, budget)), is_full=is_full or cuts),
    )


def _check_when(when: When, policy: str, mode: Mode, unit: Unit) -> None:
    """Raises ConfigError for a level that can't evict while the answer is generated, although it is asked to."""
    if when == When.PREFILL:
        return
    if cuts_prompts(policy):
        why = f"{policy} cuts the prompt before it is sent, so it has nothing to do with the cache of an answer"
    elif unit == Unit.BITS:
        why = "a width in bits holds for every entry of the cache, whenever it is written"
    elif when == When.DECODE and mode == Mode.AGNOSTIC:
        why = (
            "question_agnostic says what of the prompt is evicted before the question is known, and `when: decode` "
            "evicts only once the answer has begun"
        )
    else:
        return
    key, value = ("mode", "question_aware") if mode == Mode.AGNOSTIC and unit != Unit.BITS else ("when", "prefill")
    raise ConfigError(
        f"when: {when} can't be had of {policy}: {why}",
        where="kv.levels, kv.policies or kv.when",
        do=f"Write `{key}: {value}` at this level or policy.",
    )


def _constrained(settings: Settings, full: Level | None) -> list[Level]:
    """Full cache under the levels' other restrictions, where it is asked for. Raises ConfigError where there is no full
    cache, or where both are served alike."""
    spec, where = settings.kv.constrained, "kv.constrained"
    if spec is None:
        return []
    if full is None:
        raise ConfigError(
            "constrained full is held against full cache, which no level is", where=where, do="Add 1.0 to kv.budgets."
        )
    own_url = LevelSpec(base_url=spec.base_url)
    level = replace(
        full,
        series=CONSTRAINED,
        is_full=False,
        params={**full.params, **spec.params},
        endpoints=_endpoints(settings, own_url, CONSTRAINED, 1.0, is_full=False),
    )
    if _is_served_alike(settings, full, level):
        raise ConfigError(
            "constrained full is served just as full cache is: nothing of its params reaches the server",
            where=where,
            do="Name a parameter in kv.apply as {params.NAME}, or give base_url of a server that has the restrictions.",
        )
    return [level]


def _is_served_alike(settings: Settings, full: Level, level: Level) -> bool:
    """Whether a server is told the same at both levels, which run on one server."""
    if full.endpoints != level.endpoints:
        return False
    servers = way_of(level.apply_via).groups(settings, [Run(one.series, one, stored=False) for one in (full, level)])
    return len(servers) == 1 and all(
        told(full, NOBODY_COUNTED) == told(level, NOBODY_COUNTED) for told in (kv_fields, kv_headers)
    )


def _set(values: Json) -> Json:
    return {key: value for key, value in values.items() if value not in (None, False)}


def _identity(apply: Apply, way: Way, *, serves_full: bool) -> Json:
    """What makes a level another level: how its budget reaches the server, but not where the server lives."""
    rounds = apply.round_to > 1 and not serves_full
    rounding = {"round_to": apply.round_to, "rounding": apply.rounding} if rounds else {}
    return {"via": way.name, **way.identity(apply, serves_full=serves_full), **rounding}


def _endpoints(settings: Settings, spec: LevelSpec, policy: str, budget: float, *, is_full: bool) -> tuple[str, ...]:
    apply = settings.kv.apply
    urls = spec.base_url
    if urls is None:
        urls = way_of(apply.via).endpoints(apply, policy, budget, is_full=is_full)
    urls = [urls] if isinstance(urls, str) else urls or [settings.engine.base_url]
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"{url!r} is not an http(s) URL", where="kv.apply.endpoints")
    return tuple(url.rstrip("/") for url in urls)


def _distinct(levels: list[Level], notes: list[str]) -> list[Level]:
    kept: dict[tuple[str, str], list[Level]] = {}
    for level in levels:
        alike = kept.setdefault((level.series, level.unit), [])
        at = next((n for n, other in enumerate(alike) if _same(other, level)), None)
        if at is None:
            alike.append(level)
            continue
        if _served(alike[at]) != _served(level):
            raise ConfigError(
                f"{alike[at].label} and {level.label} are one level but are served differently",
                where="kv.levels",
                do="Give one of them another policy, so that they are two series."
                if level.unit == Unit.BITS
                else "Give one of them a telling entry in params, so that they are two series.",
            )
        if alike[at].budget == level.budget:
            notes.append(f"{level.label} is asked for twice; it runs once")
            continue
        stays, goes = sorted((alike[at], level), key=lambda each: abs(each.budget - _effective(each)))
        alike[at] = stays
        notes.append(
            f"{goes.label} and {stays.label} are one level: the server keeps {_effective(stays):g} tokens for both; "
            f"it runs once, as {stays.label}"
        )
    chosen = {id(level) for alike in kept.values() for level in alike}
    return [level for level in levels if id(level) in chosen]


def _check_told_apart(settings: Settings, levels: list[Level]) -> None:
    """Raises ConfigError where levels differ in when they evict, and nothing tells their server."""
    if is_label(settings.kv.apply.via) or "{when}" in settings.kv.apply.model_dump_json():
        return
    alike: dict[bytes, Level] = {}
    for level in levels:
        same = (level.policy, level.budget, level.unit, level.mode, level.params, level.apply, level.endpoints)
        key = orjson.dumps(same, option=orjson.OPT_SORT_KEYS)
        other = alike.setdefault(key, level)
        if other.when != level.when and b"{when}" not in key:
            raise ConfigError(
                f"{other.label} and {level.label} are served alike: nothing tells the server when to evict",
                where="kv.apply",
                do="Put {when} into kv.apply, or give each of them its own endpoint, params or policy.",
            )


def _same(level: Level, other: Level) -> bool:
    """Whether a server applies one budget for both. Raises ConfigError for budgets that no prompt could tell apart."""
    if level.budget == other.budget or (level.unit == Unit.TOKENS and _effective(level) == _effective(other)):
        return True
    if abs(level.budget - other.budget) <= 1e-4 * max(level.budget, other.budget):
        raise ConfigError(
            f"budgets {level.budget!r} and {other.budget!r} of {level.series} are nearly the same",
            where="kv.levels" if level.params else "kv.budgets",
            do="Keep one of them: no prompt is long enough to tell them apart.",
        )
    return False


def _served(level: Level) -> tuple[Json, tuple[str, ...], Json]:
    return level.apply, level.endpoints, {} if level.is_full else level.params


def _effective(level: Level) -> float:
    """The budget that is left of a cap in tokens once the server has rounded it; another unit's depends on lengths."""
    if level.unit != Unit.TOKENS:
        return level.budget
    return float(in_blocks(int(level.budget), level.apply.get("round_to", 1), level.apply.get("rounding", "up")))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
