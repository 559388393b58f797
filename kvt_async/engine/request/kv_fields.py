"""What a request carries of its level's KV budget: fields of its body, and headers.

A level says so in `Level.apply`: templates under `body` and `header`, whose placeholders are NAMES. One that has no
value here (say {keep_tokens} when nobody counted the tokens) drops the key it stands under.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.kv_budget import Rounding, convert, in_blocks, tokens_kept
from kvt_async.contract.formulas.prompt_text import unsaid_context
from kvt_async.contract.vocabulary import FULL, Mode, Spelling, Unit
from kvt_async.engine.request.template import fill, placeholders, value_at
from kvt_async.records import Headers, Json, Level

NAMES = (
    *("policy", "budget", "keep_tokens", "compression_ratio", "divisor"),
    *("mode", "when", "context_chars", "context_messages", "params"),
)
_SIZED, _SIZED_IN_TOKENS = frozenset({"keep_tokens", "context_chars"}), frozenset({"compression_ratio", "divisor"})


@dataclass(frozen=True, slots=True)
class PromptSize:
    """What is known about one prompt; None: nobody counted."""

    prompt_tokens: int | None = None
    context_tokens: int | None = None
    context_chars: int | None = None
    context_messages: int | None = None  # where the context is a conversation, which then has no number of characters


NOBODY_COUNTED = PromptSize()


def check_template(template: Any, where: str, level: Level) -> None:
    """Raises ConfigError naming the key of a placeholder that doesn't exist, or of a parameter the level lacks.

    `where`: the key of the config that holds the template.
    """
    for name, key, _ in placeholders(template, where):
        head, _, rest = name.partition(".")
        if head not in NAMES or (rest and head != "params"):
            raise ConfigError(
                f"there is no placeholder {{{name}}}",
                where=key,
                do="Known: " + ", ".join(f"{{{n}}}" for n in (*NAMES[:-1], "params.NAME")) + ".",
            )
        if rest and not level.serves_full and value_at(level.params, rest) is None:
            raise ConfigError(
                f"{{{name}}}: level {level.series} {level.budget:g} has no parameter {rest}",
                where=key,
                do=f"Add {rest} to kv.params, or to the params of this policy or level.",
            )


def kv_fields(level: Level, size: PromptSize) -> Json:
    """The fields to merge into the request body: `level.apply["body"]` with its placeholders filled.

    Full cache reads policy "full", budget 1.0. `keep_tokens` is contract.kv_budget's count of the L compressible tokens
    (the prompt's, or the context's where only the context is compressed), in whole blocks of kv.apply.round_to. While
    an answer is generated the tokens grow in number: then a fraction is no count, and a count is no fraction.
    """
    return fields_of(level, values_of(level, size))


def fields_of(level: Level, values: Mapping[str, Any]) -> Json:
    """`kv_fields` of values that are known already."""
    filled = fill(level.apply.get("body"), values)
    return filled if isinstance(filled, dict) else {}


def kv_headers(level: Level, size: PromptSize) -> Headers:
    """The request's own headers: `level.apply["header"]` with its placeholders filled; one without a value is left
    out. What is no text is written as JSON."""
    if not level.apply.get("header"):
        return ()
    filled = fill(level.apply["header"], values_of(level, size))
    return tuple(
        (name, value if isinstance(value, str) else orjson.dumps(value).decode()) for name, value in filled.items()
    )


def sized_names(level: Level) -> frozenset[str] | None:
    """The placeholders that the level fills differently from prompt to prompt; None: one stands inside other text."""
    names = _SIZED | _SIZED_IN_TOKENS if level.unit == Unit.TOKENS else _SIZED
    held = [(name.partition(".")[0], whole) for name, _, whole in placeholders(level.apply.get("body"))]
    sized = [(name, whole) for name, whole in held if name in names]
    return frozenset(name for name, _ in sized) if all(whole for _, whole in sized) else None


def rounding_of(level: Level) -> tuple[int, Rounding]:
    """Tokens of a block that the level's server keeps whole, and which way it rounds."""
    return level.apply.get("round_to", 1), level.apply.get("rounding", "up")


def check_context(level: Level, size: PromptSize) -> None:
    """Raises ConfigError where only the context is to be compressed, the context is a conversation, and the request
    would not say where that ends: the server would compress something else."""
    if level.mode != Mode.AGNOSTIC or level.serves_full or size.context_messages is None:
        return
    templates = (level.apply.get("body"), level.apply.get("header"))
    names = {name for template in templates for name, _, _ in placeholders(template)}
    if "context_chars" in names and "context_messages" not in names:
        raise unsaid_context(level.label)


def values_of(level: Level, size: PromptSize) -> dict[str, Any]:
    """What each of NAMES stands for; None: it has no value here. Raises ConfigError as `check_context`."""
    check_context(level, size)
    compressible = size.context_tokens if level.mode == Mode.AGNOSTIC else size.prompt_tokens
    round_to, rounding = rounding_of(level)
    keep: int | None = None
    kept: float | None = None  # fraction
    policy: str = level.policy
    budget: float = level.budget
    if level.serves_full:
        policy, budget, keep, kept = FULL, 1.0, compressible, 1.0
    elif level.unit == Unit.FRACTION:
        kept = level.budget
        if compressible and not level.decodes:
            keep = tokens_kept(level.budget, Unit.FRACTION, compressible, round_to=round_to, rounding=rounding)
    elif level.unit == Unit.TOKENS:
        budget, keep = int(level.budget), in_blocks(int(level.budget), round_to, rounding)
        kept = min(1.0, keep / compressible) if compressible and not level.decodes else None
    return {
        "policy": policy,
        "budget": budget,
        "keep_tokens": keep,
        "compression_ratio": None if kept is None else convert(kept, Unit.FRACTION, Spelling.COMPRESSION_RATIO),
        "divisor": None if kept is None else convert(kept, Unit.FRACTION, Spelling.DIVISOR),
        "mode": level.mode,
        "when": level.when,
        "context_chars": size.context_chars,
        "context_messages": size.context_messages,
        "params": None if level.cuts_prompts else level.params or None,
    }
