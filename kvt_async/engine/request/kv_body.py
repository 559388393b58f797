"""A level's KV budget in the request body, and the server's word for it in the reply.

A template (kv.apply.body) is any JSON with placeholders `{name}`. A string that is exactly one placeholder becomes the
value itself, a number stays a number; inside other text it becomes text; `{{` and `}}` are braces. A placeholder
without a value here (say {keep_tokens} when nobody counted the tokens) drops the key it stands under.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.kv_budget import Rounding, convert, in_blocks, tokens_kept
from kvt_async.contract.settings_kv import Apply
from kvt_async.contract.vocabulary import Mode, Unit
from kvt_async.records import Json, Level

TRUNCATE = "truncate_prompt"  # the control whose prompt is cut before it is sent
NAMES = ("policy", "budget", "keep_tokens", "compression_ratio", "divisor", "mode", "context_chars", "params")
_SIZED, _SIZED_IN_TOKENS = frozenset({"keep_tokens", "context_chars"}), frozenset({"compression_ratio", "divisor"})
_SHOWING = frozenset({"rounded", "cut", "server"})  # what beside kv.evidence says something of the applied budget
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_.-]+)?)\}")


@dataclass(frozen=True, slots=True)
class PromptSize:
    """What is known about one prompt; None: nobody counted."""

    prompt_tokens: int | None = None
    context_tokens: int | None = None
    context_chars: int | None = None


class _Drop:
    """Stands for a key that must not be sent."""


_DROP = _Drop()


def check_template(apply: Apply, level: Level) -> None:
    """Raises ConfigError naming the key of a placeholder that doesn't exist, or of a parameter the level lacks."""
    whole = level.is_full or level.policy == TRUNCATE
    key = "full_body" if whole and apply.full_body is not None else "body"
    _check(getattr(apply, key), f"kv.apply.{key}", level)


def kv_fields(level: Level, size: PromptSize) -> Json:
    """The fields to merge into the request body: `level.apply["body"]` with its placeholders filled.

    Full cache reads policy "full", budget 1.0. `keep_tokens` is contract.kv_budget's count of the L compressible tokens
    (the prompt's, or the context's where only the context is compressed), in whole blocks of kv.apply.round_to.
    """
    return fields_of(level, values_of(level, size))


def fields_of(level: Level, values: Mapping[str, Any]) -> Json:
    """`kv_fields` of values that are known already."""
    template = _template(level)
    filled = {} if template is None else _fill(template, values)
    return filled if isinstance(filled, dict) else {}


def sized_names(level: Level) -> frozenset[str] | None:
    """The placeholders that the level fills differently from prompt to prompt; None: one stands inside other text."""
    names = _SIZED | _SIZED_IN_TOKENS if level.unit == Unit.TOKENS else _SIZED
    found = [(name, whole) for name, whole in _names(_template(level)) if name in names]
    return frozenset(name for name, _ in found) if all(whole for _, whole in found) else None


def rounding_of(level: Level) -> tuple[int, Rounding]:
    """Tokens of a block that the level's server keeps whole, and which way it rounds."""
    return level.apply.get("round_to", 1), level.apply.get("rounding", "up")


def expectation(level: Level, prompt_tokens: int | None, context_tokens: int | None = None) -> Json:
    """What `Request.expects` holds: the budget asked for, to be set beside what the server says it did.

    `rounded`: what the server's blocks make of it, in the level's unit; only where it rounds and lengths are known.
    """
    return expectations(level)(prompt_tokens, context_tokens)


def expectations(level: Level) -> Callable[[int | None, int | None], Json]:
    """`expectation` of one level's prompts: what they share is worked out once. Every call gives a dict of its own."""
    agnostic = level.mode == Mode.AGNOSTIC
    round_to, rounding = rounding_of(level)
    rounds = round_to > 1 and level.unit != Unit.BITS and not level.is_full
    same: Json = {
        "requested": level.budget,
        "unit": level.unit,
        "is_full": level.is_full,
        "prompt_tokens": None,
        "compressible": None,
        "evidence": level.evidence,
    }

    def of(prompt_tokens: int | None, context_tokens: int | None) -> Json:
        found = {**same, "prompt_tokens": prompt_tokens}
        compressible = prompt_tokens
        if agnostic:
            compressible = found["compressible"] = context_tokens
        if rounds and compressible:
            kept = tokens_kept(level.budget, level.unit, compressible, round_to=round_to, rounding=rounding)
            found["rounded"] = float(kept) if level.unit == Unit.TOKENS else kept / compressible
        return found

    return of


def read_evidence(
    expects: Mapping[str, Any], usage: Mapping[str, Any] | None, headers: Mapping[str, str]
) -> tuple[Json, float | None]:
    """({requested, effective, unit, source, ...}, effective budget in the level's unit or None: nothing shows it).

    `expects` is what `expectation` made, its `evidence` a validated kv.evidence. `source`: echoed (usage field or
    header), metric or log (what the server said before the first request, in `expects["server"]`), configured, or
    none; `pending` names what nobody read, `missing` what was looked for and not found.
    """
    evidence: Mapping[str, Any] = expects.get("evidence") or {}
    unit = expects["unit"]
    found: Json = {"requested": expects["requested"], "effective": None, "unit": unit, "source": "none"}
    if not evidence and _SHOWING.isdisjoint(expects):
        return found, None
    if (rounded := expects.get("rounded")) is not None:
        found["rounded"] = rounded
    if cut := expects.get("cut"):
        return _of_cut(found, cut, _number((usage or {}).get("prompt_tokens")))
    raw: Any = None
    source = "echoed"
    if path := evidence.get("usage"):
        found["read_from"], (head, _, last) = "usage." + path, path.rpartition(".")
        echo = _dotted(usage, head) if head else usage
        if type(echo) is dict:
            raw = echo.get(last)
            if head:
                found["echo"] = echo
    elif name := evidence.get("header"):
        found["read_from"], raw = f"header {name}", headers.get(name.lower())
    elif evidence.get("configured"):
        known = expects.get("rounded", expects.get("requested"))
        return {**found, "source": "configured", "effective": known}, _number(known)
    elif (shown := expects.get("server")) is not None:
        found |= {"read_from": shown["read_from"], "said": shown["raw"]}
        source, raw = shown["source"], shown["value"]
    elif pending := next((way for way in ("metric", "log") if evidence.get(way)), None):
        found["pending"] = pending
        return found, None
    else:
        return found, None
    number = _number(raw)
    if number is None:
        found["missing"] = found["read_from"]
        return found, None
    counted = _number((usage or {}).get("prompt_tokens")) or _number(expects.get("prompt_tokens"))
    length = _number(expects.get("compressible")) or counted  # of the context, where only it is compressed
    effective = convert(number, evidence.get("unit") or unit, unit, length=length)
    found |= {"source": source, "effective": effective}
    if effective is None or effective != number:
        found |= {"raw": number, "raw_unit": evidence.get("unit") or unit}
    return found, effective


def _of_cut(found: Json, cut: Mapping[str, Any], served: float | None) -> tuple[Json, float | None]:
    """A cut prompt: the server's own count of it, beside ours of the whole one. Ours alone proves nothing."""
    tokens, source = (served, "echoed") if served is not None and cut["exact"] else (cut["sent_tokens"], "configured")
    effective = float(tokens) if found["unit"] == Unit.TOKENS else tokens / cut["full_tokens"]
    read_from = "usage.prompt_tokens" if source == "echoed" else "our own count"
    tokens_too = {"kept_tokens": tokens, "full_tokens": cut["full_tokens"]}
    return {**found, "effective": effective, "source": source, "read_from": read_from, **tokens_too}, effective


def values_of(level: Level, size: PromptSize) -> dict[str, Any]:
    """What each of NAMES stands for; None: it has no value here."""
    compressible = size.context_tokens if level.mode == Mode.AGNOSTIC else size.prompt_tokens
    round_to, rounding = rounding_of(level)
    keep: int | None = None
    kept: float | None = None  # fraction
    policy: str = level.policy
    budget: float = level.budget
    if level.is_full or level.policy == TRUNCATE:  # a cut prompt's own cache stays whole
        policy, budget, keep, kept = "full", 1.0, compressible, 1.0
    elif level.unit == Unit.FRACTION:
        kept = level.budget
        if compressible:
            keep = tokens_kept(level.budget, Unit.FRACTION, compressible, round_to=round_to, rounding=rounding)
    elif level.unit == Unit.TOKENS:
        budget, keep = int(level.budget), in_blocks(int(level.budget), round_to, rounding)
        kept = min(1.0, keep / compressible) if compressible else None
    return {
        "policy": policy,
        "budget": budget,
        "keep_tokens": keep,
        "compression_ratio": None if kept is None else convert(kept, Unit.FRACTION, "compression_ratio"),
        "divisor": None if kept is None else convert(kept, Unit.FRACTION, "divisor"),
        "mode": level.mode,
        "context_chars": size.context_chars,
        "params": None if level.policy == TRUNCATE else level.params or None,
    }


def _template(level: Level) -> Any:
    return level.apply.get("body") if level.apply_via == "body" else None


def _names(node: Any) -> Iterator[tuple[str, bool]]:
    """Every placeholder, and whether it is a string of its own."""
    if isinstance(node, dict | list):
        for inner in node.values() if isinstance(node, dict) else node:
            yield from _names(inner)
    elif isinstance(node, str):
        for match in _PLACEHOLDER.finditer(node):
            if match.group(1):
                yield match.group(1).partition(".")[0], match.group(0) == node


def _fill(node: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(node, dict):
        filled = {key: _fill(value, values) for key, value in node.items()}
        return {key: value for key, value in filled.items() if value is not _DROP}
    if isinstance(node, list):
        return [value for value in (_fill(item, values) for item in node) if value is not _DROP]
    if not isinstance(node, str) or ("{" not in node and "}" not in node):
        return node
    whole = _PLACEHOLDER.fullmatch(node)
    if whole and whole.group(1):
        value = _look_up(values, whole.group(1))
        return _DROP if value is None else value
    missing = False

    def one(match: re.Match[str]) -> str:
        nonlocal missing
        name = match.group(1)
        if name is None:
            return match.group(0)[0]
        value = _look_up(values, name)
        missing |= value is None
        return str(value)

    text = _PLACEHOLDER.sub(one, node)
    return _DROP if missing else text


def _look_up(values: Mapping[str, Any], name: str) -> Any:
    head, _, rest = name.partition(".")
    value = values.get(head)
    return _dotted(value, rest) if rest and isinstance(value, dict) else None if rest else value


def _check(node: Any, at: str, level: Level) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            _check(value, f"{at}.{key}", level)
    elif isinstance(node, list):
        for idx, value in enumerate(node):
            _check(value, f"{at}[{idx}]", level)
    elif isinstance(node, str):
        for match in _PLACEHOLDER.finditer(node):
            name = match.group(1)
            if name is None:
                continue
            head, _, rest = name.partition(".")
            if head not in NAMES or (rest and head != "params"):
                raise ConfigError(
                    f"there is no placeholder {{{name}}}",
                    where=at,
                    do="Known: " + ", ".join(f"{{{n}}}" for n in (*NAMES[:-1], "params.NAME")) + ".",
                )
            if rest and not level.is_full and level.policy != TRUNCATE and _dotted(level.params, rest) is None:
                raise ConfigError(
                    f"{{{name}}}: level {level.series} {level.budget:g} has no parameter {rest}",
                    where=at,
                    do=f"Add {rest} to kv.params, or to the params of this policy or level.",
                )


def _dotted(node: Any, path: str) -> Any:
    for part in path.split("."):
        if type(node) is not dict:
            return None
        node = node.get(part)
    return node


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):  # an integer of 400 digits is no float
        return None
    return number if abs(number) < 1e300 else None
