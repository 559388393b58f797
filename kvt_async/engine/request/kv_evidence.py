"""What a reply says of the KV budget that was applied, set beside the budget that was asked for."""

from collections.abc import Callable, Mapping
from typing import Any

from kvt_async.contract.formulas.data_types import is_data_type, number_of
from kvt_async.contract.formulas.kv_budget import convert, tokens_kept
from kvt_async.contract.vocabulary import Mode, Unit, When
from kvt_async.engine.request.kv_fields import rounding_of
from kvt_async.engine.request.template import value_at
from kvt_async.records import Json, Level

_MOST_SAID = 200  # characters of a name that are kept
_WHILE_GENERATING = ("n_compressions", "kept_tokens", "peak_tokens")
_SHOWING = frozenset({"rounded", "cut", "server"})  # what beside kv.evidence says something of the applied budget


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
        **({"when": level.when} if level.decodes else {}),
    }

    def of(prompt_tokens: int | None, context_tokens: int | None) -> Json:
        expected = {**same, "prompt_tokens": prompt_tokens}
        compressible = prompt_tokens
        if agnostic:
            compressible = expected["compressible"] = context_tokens
        if rounds and compressible and not level.decodes:
            kept = tokens_kept(level.budget, level.unit, compressible, round_to=round_to, rounding=rounding)
            expected["rounded"] = float(kept) if level.unit == Unit.TOKENS else kept / compressible
        return expected

    return of


def read_evidence(
    expects: Mapping[str, Any], usage: Mapping[str, Any] | None, headers: Mapping[str, str]
) -> tuple[Json, float | None]:
    """({requested, effective, unit, source, ...}, effective budget in the level's unit or None: nothing shows it).

    `expects` is what `expectation` made, its `evidence` a validated kv.evidence. `source`: echoed (usage field or
    header), metric, json or log (what the server said before the first request, in `expects["server"]`), configured, or
    none; `pending` names what nobody read, `missing` what was looked for and not found.

    A level that evicts while it answers has what the reply says of that beside it: when, n_compressions, kept_tokens,
    peak_tokens. Its effective budget is None where nothing was compressed, or where the reply doesn't say how often.
    """
    evidence: Mapping[str, Any] = expects.get("evidence") or {}
    unit = expects["unit"]
    record: Json = {"requested": expects["requested"], "effective": None, "unit": unit, "source": "none"}
    if not evidence and _SHOWING.isdisjoint(expects):
        return record, None
    if (rounded := expects.get("rounded")) is not None:
        record["rounded"] = rounded
    if cut := expects.get("cut"):
        return _of_cut(record, cut, _number((usage or {}).get("prompt_tokens")))
    raw: Any = None
    source = "echoed"
    if path := evidence.get("usage"):
        record["read_from"], (head, _, last) = "usage." + path, path.rpartition(".")
        echo = value_at(usage, head) if head else usage
        if type(echo) is dict:
            raw = echo.get(last)
            if head:
                record["echo"] = echo
    elif name := evidence.get("header"):
        record["read_from"], raw = f"header {name}", headers.get(name.lower())
    elif evidence.get("configured"):
        configured = expects.get("rounded", expects.get("requested"))
        return {**record, "source": "configured", "effective": configured}, _number(configured)
    elif (shown := expects.get("server")) is not None:
        record |= {"read_from": shown["read_from"], "said": shown["raw"]}
        source, raw = shown["source"], shown["value"]
    elif pending := next((name for name in ("metric", "log", "json") if evidence.get(name)), None):
        record["pending"] = pending
        return record, None
    else:
        return record, None
    if "when" in expects:
        said = record.get("echo", {})
        record |= {name: _count(said.get(name)) for name in _WHILE_GENERATING} | {"when": said.get("when")}
        return _of_decoding(record, raw, source, evidence, expects["when"])
    number = _number(raw)
    if number is None and source == "echoed" and isinstance(raw, str):
        asked = record["requested"] if unit == Unit.BITS else None
        record["said"], number = raw[:_MOST_SAID], number_of(raw, asked)
    if number is None:
        record["missing"] = record["read_from"]
        return record, None
    counted = _number((usage or {}).get("prompt_tokens")) or _number(expects.get("prompt_tokens"))
    length = _number(expects.get("compressible")) or counted  # of the context, where only it is compressed
    raw_unit = evidence.get("unit") or (Unit.BITS if is_data_type(record.get("said")) else unit)
    effective = convert(number, raw_unit, unit, length=length)
    record |= {"source": source, "effective": effective}
    if effective is None or effective != number:
        record |= {"raw": number, "raw_unit": raw_unit}
    return record, effective


def _of_cut(record: Json, cut: Mapping[str, Any], served: float | None) -> tuple[Json, float | None]:
    """A cut prompt: the server's own count of it, beside ours of the whole one. Ours alone proves nothing."""
    tokens, source = (served, "echoed") if served is not None and cut["exact"] else (cut["sent_tokens"], "configured")
    effective = float(tokens) if record["unit"] == Unit.TOKENS else tokens / cut["full_tokens"]
    read_from = "usage.prompt_tokens" if source == "echoed" else "our own count"
    tokens_too = {"kept_tokens": tokens, "full_tokens": cut["full_tokens"]}
    return {**record, "effective": effective, "source": source, "read_from": read_from, **tokens_too}, effective


def _of_decoding(
    record: Json, raw: Any, source: str, evidence: Mapping[str, Any], when: str
) -> tuple[Json, float | None]:
    """What a level kept while it answered: the most that was held right after a compression."""
    said, unit = record.get("echo", {}), record["unit"]
    name = "compressed_tokens" if unit == Unit.TOKENS else "kept_fraction"
    raw_unit = unit if name in said else evidence.get("unit") or unit
    if name in said and record["read_from"].startswith("usage."):
        record["read_from"] = f"{record['read_from'].rpartition('.')[0]}.{name}"
    number = _number(said.get(name, raw))
    if record["n_compressions"] is None or record["n_compressions"] % 1:
        record["n_compressions"] = None
        place = record["read_from"].rpartition(".")[0]
        record["missing"] = f"{place if place.startswith('usage') else 'usage'}.n_compressions"
        return record, None
    later = record["n_compressions"] > 0
    was_compressed = later or when == When.BOTH
    # Lengths grow while tokens are generated, so a count is no share of them, nor a share a count.
    effective = convert(number, raw_unit, unit) if number is not None and was_compressed else None
    record |= {"source": source, "effective": effective}
    if later and effective is None:
        record["missing"] = record["read_from"]
    elif number is not None and effective != number:
        record |= {"raw": number, "raw_unit": raw_unit}
    return record, effective


def _count(value: Any) -> float | None:
    """What may be a number of things, or the mean of several; None: what is below 0 counts nothing."""
    number = _number(value)
    return number if number is not None and number >= 0 else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):  # an integer of 400 digits is no float
        return None
    return number if abs(number) < 1e300 else None
