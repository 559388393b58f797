"""Tool calls: whether an answer makes the right ones, with the right arguments. docs/DATA.md lists the rules.

An answer is right when each of its calls can be read, fits its tool's JSON Schema, and all of them together are one of
the alternatives that the golds give. Each part is judged alone, so that what is broken can be told: `judged`.
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from analyzer.metrics import Meta, call_judge, metric
from analyzer.metrics.call_score import CallScore
from analyzer.metrics.calls_in_text import Call, calls_of
from kvt_async.contract.formulas.metric_needs import TOOL_CALL

_MOST = 100  # calls of one answer that are held against a schema: no task expects more


def _is_formed(prediction: str, meta: Meta) -> bool:
    """Whether every call that is made can be read and fits its schema; no call at all has no fault of form."""
    parts = judged(prediction, (), meta)
    return parts.json_valid and parts.schema_valid


@metric(TOOL_CALL, format_ok=_is_formed, needs_meta=("tools",), reads_calls=True)
def tool_call(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """1.0 if the answer's calls are those of one alternative, else 0.0. No gold: it is right to make no call."""
    return float(judged(prediction, golds, meta).is_right)


@call_judge(TOOL_CALL)
def judged(prediction: str, golds: Sequence[str], meta: Meta) -> CallScore:
    """`prediction`: stored calls as JSON, or the text of a reply without any. `meta`: holds the example's `tools`."""
    tools, calls = tools_of(meta), calls_of(prediction)
    json_valid = all(call.arguments is not None for call in calls)
    schema_valid = json_valid and all(tools.fits(call) is None for call in calls[:_MOST])
    if not schema_valid:
        return CallScore(json_valid, False, False, False)
    alternatives = [wanted for gold in golds if (wanted := expected(gold)) is not None] if golds else [[]]
    called = sorted(call.name for call in calls)
    named = [wanted for wanted in alternatives if sorted(call.name for call in wanted) == called]
    names = bool(named) and all(tools.has(call.name) for call in calls)
    return CallScore(True, True, names, names and any(tools.same(calls, wanted) for wanted in named))


def expected(gold: str) -> list[Call] | None:
    """The calls that a gold stands for, none for an empty one; None: it is neither."""
    if gold.strip() in ("", "[]"):
        return []
    calls = calls_of(gold)
    return calls if calls and all(call.arguments is not None for call in calls) else None


def fault_of_gold(gold: str, meta: Meta) -> str:
    """Why no answer can match a gold, as a clause; empty where one can."""
    calls, tools = expected(gold), tools_of(meta)
    if calls is None:
        return "it is no call: {name, arguments} as JSON, or a list of these"
    for call in calls:
        if not tools.has(call.name):
            return f"the row has no tool {call.name!r}"
        if (fault := tools.fits(call)) is not None:
            return fault
    return ""


class Tools:
    """The functions that an example offers, with their schemas; without any, every name and argument is possible."""

    def __init__(self, tools: Sequence[Any]) -> None:
        functions = [
            tool["function"] for tool in tools if isinstance(tool, dict) and isinstance(tool.get("function"), dict)
        ]
        self._schemas = {function.get("name"): function.get("parameters") or {} for function in functions}
        self._validators: dict[str, Any] = {}

    def has(self, name: str) -> bool:
        return not self._schemas or name in self._schemas

    def fits(self, call: Call) -> str | None:
        """Why a call's arguments don't fit its tool's schema; None: they do, or nothing is known of the tool."""
        schema = self._schemas.get(call.name)
        if not schema:
            return None
        if call.name not in self._validators:
            self._validators[call.name] = _validator(schema)
        return _fault(self._validators[call.name], call.arguments)

    def broken(self) -> str | None:
        """What is no JSON Schema among the parameters, as a sentence; None: nothing."""
        for name, schema in self._schemas.items():
            if (fault := _fault_of_schema(schema)) is not None:
                return f"the parameters of the tool {name!r} are no JSON Schema: {fault}"
        return None

    def same(self, calls: Sequence[Call], wanted: Sequence[Call]) -> bool:
        """Whether these are the calls wanted, in any order."""
        left = [(call.name, self._filled(call)) for call in wanted]
        for call in calls:
            arguments = self._filled(call)
            at = next((n for n, (name, want) in enumerate(left) if name == call.name and _same(arguments, want)), None)
            if at is None:
                return False
            del left[at]
        return not left

    def _filled(self, call: Call) -> Any:
        return _with_defaults(call.arguments, self._schemas.get(call.name))


def tools_of(meta: Meta) -> Tools:
    tools = meta.get("tools")
    return _tools(json.dumps(tools) if isinstance(tools, list) else "[]")


@lru_cache(maxsize=1024)  # by their text: many examples offer the same ones, and compiling a schema takes time
def _tools(text: str) -> Tools:
    return Tools(json.loads(text))


def _validator(schema: Mapping[str, Any]) -> Any:
    """Nothing is fetched: a `$ref` to anywhere outside of the schema can't be resolved."""
    import jsonschema_specifications
    from jsonschema.validators import Draft202012Validator, validator_for

    kind = validator_for(schema, default=Draft202012Validator)
    return kind(schema, registry=jsonschema_specifications.REGISTRY)


def _fault(validator: Any, arguments: Any) -> str | None:
    from jsonschema.exceptions import UndefinedTypeCheck, UnknownType, best_match
    from referencing.exceptions import Unresolvable

    try:
        error = best_match(validator.iter_errors(arguments))
    except (Unresolvable, UnknownType, UndefinedTypeCheck, RecursionError, re.error) as fault:
        return f"its tool's schema can't be applied: {type(fault).__name__}"
    if error is None:
        return None
    where = "".join(f"[{key!r}]" for key in error.absolute_path)
    return f"arguments{where} don't fit the tool's schema: {error.message[:200]}"


def _fault_of_schema(schema: Mapping[str, Any]) -> str | None:
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft202012Validator, validator_for

    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except (SchemaError, RecursionError) as error:
        return str(getattr(error, "message", error))[:200]
    return None


def _with_defaults(value: Any, schema: Any) -> Any:
    """The value with the defaults of what is missing, inside of objects and lists too."""
    if not isinstance(schema, dict):
        return value
    if isinstance(value, list):
        return [_with_defaults(item, schema.get("items")) for item in value]
    properties = schema.get("properties")
    if not isinstance(value, dict) or not isinstance(properties, dict):
        return value
    filled = {key: _with_defaults(item, properties.get(key)) for key, item in value.items()}
    for key, inner in properties.items():
        if isinstance(inner, dict) and "default" in inner and key not in filled:
            filled[key] = inner["default"]
    return filled


def _same(a: Any, b: Any) -> bool:
    """Whether two JSON values are the same: 1 is 1.0 and not true, keys have no order, a text is compared in composed
    Unicode and without white space around it."""
    if isinstance(a, str) and isinstance(b, str):
        return _plain(a) == _plain(b)
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(value, b[key]) for key, value in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()
