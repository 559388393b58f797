"""Whether calls are those that the Berkeley Function Calling Leaderboard accepts: its AST check, rule by rule.

An accepted call is {function: {parameter: [accepted values]}}; "" among them: the parameter may be left out. Values are
compared as Python compares them after its type rules; texts without spaces and `,./-_*^`, in lower case, `'` as `"`.
Java's and JavaScript's values come as texts and are read first.

Source: ast_checker.py (ShishirPatil/gorilla, Apache-2.0) at the commit that scripts/make_bfcl_golden.py names; equal
on tests/analyzer/golden/bfcl_ast.jsonl. Its quirks are kept, and named where they are. Where it would stop with an
error (a list where a dictionary is due), the call is wrong.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from analyzer.metrics.bfcl_literals import Literals

Call = Mapping[str, Any]
Accepted = Mapping[str, Mapping[str, Sequence[Any]]]

_PYTHON = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
}
_NESTED = ("array", "tuple")
_LEFT_OUT = re.compile(r"[ ,./\-_*^]")


class Checker:
    """The functions of one entry. `literals`: how values of another language than Python are read; None: Python.
    `dots_replaced`: functions are called with `_` for `.`, as they were offered."""

    def __init__(
        self, functions: Sequence[Mapping[str, Any]], literals: Literals | None, *, dots_replaced: bool
    ) -> None:
        self._functions, self._literals, self._dots_replaced = functions, literals, dots_replaced

    def accepts(self, category: str, calls: Sequence[Call], accepted: Sequence[Accepted]) -> bool:
        """`calls` are [{name: {parameter: value}}]; in any order where the category is a parallel one."""
        if len(calls) != (len(accepted) if "parallel" in category or "multiple" in category else 1):
            return False
        if "parallel" in category:
            return self._any_order(calls, accepted)
        name = next(iter(accepted[0])) if "multiple" in category else None
        return self._is_call(self._function(name), calls[0], accepted[0])

    def called_as(self, name: str) -> str:
        return name.replace(".", "_") if self._dots_replaced else name

    def has_parameters(self, call: Call) -> bool:
        """Whether a call's function is offered, all required parameters are given, and no unknown one is."""
        for name, given in call.items():
            parameters = next((f["parameters"] for f in self._functions if self.called_as(f["name"]) == name), None)
            if parameters is None or not given.keys() >= set(parameters.get("required") or ()):
                return False
            if not given.keys() <= set(parameters.get("properties") or ()):
                return False
        return True

    def _any_order(self, calls: Sequence[Call], accepted: Sequence[Accepted]) -> bool:
        """Each accepted call takes the first of the remaining calls that it fits."""
        left = list(calls)
        for wanted in accepted:
            function = self._function(next(iter(wanted)))
            at = next((n for n, call in enumerate(left) if self._is_call(function, call, wanted)), None)
            if at is None:
                return False
            del left[at]
        return True

    def _function(self, name: str | None) -> Mapping[str, Any] | None:
        """By name; the only one of a simple category."""
        if name is None:
            return self._functions[0]
        return next((function for function in self._functions if function["name"] == name), None)

    def _is_call(self, function: Mapping[str, Any] | None, call: Call, wanted: Accepted) -> bool:
        if function is None:
            return False
        try:
            return self._fits(function, call, next(iter(wanted.values())))
        except (KeyError, TypeError, AttributeError, IndexError, ValueError, NotImplementedError):
            return False  # the official check has no rule for such a value

    def _fits(self, function: Mapping[str, Any], call: Call, accepted: Mapping[str, Sequence[Any]]) -> bool:
        name, parameters = self.called_as(function["name"]), function["parameters"]
        if name not in call:
            return False
        given, properties = call[name], parameters["properties"]
        if any(required not in given for required in parameters["required"]):
            return False
        for parameter, value in given.items():
            if parameter not in properties or parameter not in accepted:
                return False
            if not self._is_value(properties[parameter], value, accepted[parameter]):
                return False
        return all(parameter in given or "" in values for parameter, values in accepted.items())

    def _is_value(self, parameter: Mapping[str, Any], value: Any, accepted: Sequence[Any]) -> bool:
        word = parameter["type"]
        if self._literals is None:
            kind: Any = _PYTHON[word]
            inner = _PYTHON[parameter["items"]["type"]] if word in _NESTED else None
            if word == "tuple" and type(value) is tuple:
                value = list(value)
            if word == "float" and type(value) is int:
                value = float(value)
        else:
            if type(value) is not str:
                return False
            kind = self._literals.kinds[word]
            items = parameter["items"]["type"] if word in self._literals.lists else None
            inner = self._literals.kinds[items] if items is not None else None
            value = self._literals.read(value, word, items)
        has_type, is_variable = _typed(value, accepted, kind, inner)
        if not has_type:
            return False
        if not is_variable:  # a variable's name is compared as it stands
            if kind is dict:
                return _is_dict(value, accepted)
            if kind is list and inner is dict:
                return _is_list_of_dicts(value, accepted)
            if kind is str:
                return standard(value) in [standard(text) for text in accepted if type(text) is str]
            if kind is list:
                return _standard_items(value) in [_standard_items(items) for items in accepted]
        return value in accepted


def standard(text: str) -> str:
    return _LEFT_OUT.sub("", text).lower().replace("'", '"')


def _typed(value: Any, accepted: Sequence[Any], kind: Any, inner: Any) -> tuple[bool, bool]:
    """Whether a value has its type, and whether it is a variable's name: the accepted values are of another type.

    A quirk: where a list may be left out ("" is accepted), its items may be of any type.
    """
    of_accepted = next((type(item) for item in accepted if item != ""), None)
    is_variable = of_accepted is not None and of_accepted is not kind
    if type(value) is not kind:
        return of_accepted is not None and type(value) is of_accepted, True
    if inner is None:
        return True, is_variable
    fits = any(
        type(items) is not list or all(_typed(item, items, inner, None)[0] for item in value) for items in accepted
    )
    return fits, is_variable


def _is_dict(value: Mapping[str, Any], accepted: Sequence[Any]) -> bool:
    return any(_is_one_dict(value, wanted) for wanted in accepted if wanted != "")


def _is_one_dict(value: Mapping[str, Any], wanted: Mapping[str, Sequence[Any]]) -> bool:
    for key, item in value.items():
        if key not in wanted or _standard(item) not in _standard_items(wanted[key]):
            return False
    return all(key in value or "" in items for key, items in wanted.items())


def _is_list_of_dicts(value: Sequence[Any], accepted: Sequence[Any]) -> bool:
    """In order. A quirk: an empty list is right where the parameter may be left out."""
    return any(
        len(value) == len(wanted) and all(_is_dict(item, [one]) for item, one in zip(value, wanted, strict=True))
        for wanted in accepted
    )


def _standard_items(items: Sequence[Any]) -> list[Any]:
    return [_standard(item) for item in items]


def _standard(item: Any) -> Any:
    return standard(item) if type(item) is str else item
