"""Function calls as the Berkeley Function Calling Leaderboard's prompt asks for them: `[f(a=1), g(b="x")]`.

Read with Python's own parser, value by value, as its default_decode_ast_prompting does; nothing is ever run. It takes
sums and the like (`a=2*3`) to `eval`: here arithmetic over literals is worked out, and what else stands in one can't be
read, where `eval` might call a function of the name.
"""

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any

Decoded = list[dict[str, Any]]
"""[{function: {parameter: value}}, ...]."""

_MOST_BITS = 4096  # of a number that arithmetic makes, and characters of a text
_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitOr: operator.or_,
    ast.BitAnd: operator.and_,
    ast.BitXor: operator.xor,
}
_SIGNS: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Invert: operator.invert,
}


class Undecodable(Exception):
    """What stands there is no list of calls."""


def decoded(text: str) -> Decoded:
    """The calls of a whole text, with or without brackets and a fence around it. Raises Undecodable."""
    text = text.strip("`\n ")
    text = text if text.startswith("[") else f"[{text}"
    text = text if text.endswith("]") else f"{text}]"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a backslash that escapes nothing
            body = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Undecodable(type(error).__name__) from None
    if isinstance(body, ast.Call):
        return [_call(body)]
    if not isinstance(body, ast.List | ast.Tuple | ast.Set) or not all(isinstance(e, ast.Call) for e in body.elts):
        raise Undecodable("no list of calls")
    try:
        return [_call(element) for element in body.elts if isinstance(element, ast.Call)]
    except (RecursionError, TypeError, ArithmeticError, ValueError) as error:
        raise Undecodable(type(error).__name__) from None


def _call(call: ast.Call) -> dict[str, Any]:
    """Positional arguments are left out: the official reader doesn't see them."""
    parts, function = list[str](), call.func
    while isinstance(function, ast.Attribute):
        parts.append(function.attr)
        function = function.value
    if isinstance(function, ast.Name):
        parts.append(function.id)
    return {".".join(reversed(parts)): {keyword.arg: _value(keyword.value) for keyword in call.keywords}}


def _value(node: ast.expr | None) -> Any:
    match node:
        case ast.Constant(value=value):
            return "..." if value is Ellipsis else value
        case ast.UnaryOp(operand=ast.Constant() as operand):
            return _SIGNS[ast.USub](operand.value)  # whatever the sign: `+1` is -1, and `not True` too
        case ast.List(elts=elements):
            return [_value(element) for element in elements]
        case ast.Tuple(elts=elements):
            return tuple(_value(element) for element in elements)
        case ast.Dict(keys=keys, values=values):
            return {_value(key): _value(value) for key, value in zip(keys, values, strict=True)}
        case ast.BinOp():
            return _arithmetic(node)
        case ast.Name(id=name):
            return name
        case ast.Call(keywords=[]):
            return ast.unparse(node)
        case ast.Call():
            return _call(node)
        case ast.Subscript(value=of, slice=at):
            return f"{ast.unparse(of)}[{ast.unparse(at)}]"
    raise Undecodable(type(node).__name__)


def _arithmetic(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.List(elts=elements):
            return [_arithmetic(element) for element in elements]
        case ast.Tuple(elts=elements):
            return tuple(_arithmetic(element) for element in elements)
        case ast.UnaryOp(op=sign, operand=operand):
            return _SIGNS[type(sign)](_arithmetic(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            a, b = _arithmetic(left), _arithmetic(right)
            _check_size(type(op), a, b)
            return _OPERATORS[type(op)](a, b)
    raise Undecodable(type(node).__name__)


def _check_size(op: type[ast.operator], a: Any, b: Any) -> None:
    """Raises Undecodable where the result would be of no use and of any size."""
    if op is ast.Mod and isinstance(a, str | bytes):  # "%999999999d" % 1
        raise Undecodable("a text is no number")
    if any(isinstance(x, float | complex) for x in (a, b)):
        return
    size = _bits(a) * abs(b) if op is ast.Pow else _bits(a) + b if op is ast.LShift else 0
    if (_product(a, b) if op is ast.Mult else size) > _MOST_BITS:
        raise Undecodable("too large")


def _product(a: Any, b: Any) -> int:
    lengths = [len(x) for x in (a, b) if isinstance(x, str | bytes | list | tuple)]
    times = [x for x in (a, b) if isinstance(x, int)]
    return lengths[0] * times[0] if lengths and times else sum(map(_bits, times))


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0
