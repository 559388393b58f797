"""Values of Java and JavaScript as the Berkeley Function Calling Leaderboard reads them out of texts.

`new int[]{1, 2}`, `new HashMap<String, Integer>() {{ put("a", 1); }}`, `[1, 'b']`, `{a: 1}`: by patterns, not by a
parser, so nested brackets and commas inside of texts are read as there. What fits no pattern stays the text it was.
Where the official pattern may take forever on a text that it does not fit (`[[1],[1],...` without an end), the same
matches are found by position.

Source: java_type_converter.py and js_type_converter.py, at the commit that scripts/make_bfcl_golden.py names; equal on
tests/analyzer/golden/bfcl_ast.jsonl.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

Read = Callable[[str, str, str | None], Any]


@dataclass(frozen=True)
class Literals:
    """A language's types. `kinds`: its type words -> the Python type of a value read; `lists`: words whose items have
    a type of their own; `read(text, word, word of the items)`: the value, or the text itself. A word that the official
    reader can't read is a NotImplementedError."""

    kinds: Mapping[str, type]
    lists: Collection[str]
    read: Read


MOST_CHARACTERS = 2000
"""Of a text that is read as a list or a map; a longer one stays a text. The patterns take its square, or worse."""

_WHOLE = re.compile(r"^-?\d+$")
_DECIMAL = re.compile(r"^-?\d+(\.\d+)?$")
_JAVA_FLOAT = re.compile(r"^-?\d+(\.\d+)?([eE][+-]?\d+)?[fF]$")
_JAVA_DOUBLE = re.compile(r"^-?\d+(\.\d+)?([eE][+-]?\d+)?$")
_JAVA_LONG = re.compile(r"^-?\d+[lL]$")
_AS_LIST = re.compile(r"new\s+ArrayList<\w*>\(Arrays\.asList\((.+?)\)\)")
_ADDED = re.compile(r"new\s+ArrayList<\w*>\(\)\s*\{\{\s*")
_ADD = re.compile(r"add\((.+?)\)")
_EMPTY_LIST = re.compile(r"new\s+ArrayList<\w*>\(\)")
_ARRAY = re.compile(r"new\s+\w+\[\]\s*\{(.*?)\}")
_MAP = re.compile(r"new\s+HashMap<")
_PUTS = re.compile(r">\s*\(\)\s*\{([^}]*)\}")
_PUT = re.compile(r'put\("(.*?)",\s*(.*?)\)')
_EMPTY_MAP = re.compile(r"new\s+HashMap<.*?>\s*\(\)")
_JS_TABLES = ((re.compile(r"\[\s*\["), "]"), (re.compile(r"new\s+Array\(\s*\["), ")"))
_JS_NEXT = re.compile(r",\s*\[")
_SPACE = re.compile(r"\s*")
_JS_ROW = re.compile(r"\[(.*?)\]")
_JS_LIST = re.compile(r"\[(.*?)\]|\bnew\s+Array\((.*?)\)")
_JS_OBJECT = re.compile(r"\{(.*?)\}")
_JS_PAIR = re.compile(r"([^:]+):\s*+(.*?)(?:,\s*(?=[^,]+:)|$)")
_JS_BIGINT = re.compile(r"^-?\d+n$")


def _java(text: str, word: str, items: str | None = None) -> Any:
    if word in ("Array", "ArrayList", "HashMap") and len(text) > MOST_CHARACTERS:
        return text
    match word:
        case "byte" | "short" | "integer":
            return int(text) if _WHOLE.match(text) else text
        case "float":
            return float(text.rstrip("\n")[:-1]) if _JAVA_FLOAT.match(text) else text
        case "double":
            return float(text) if _JAVA_DOUBLE.match(text) else text
        case "long":
            return int(text.rstrip("\n")[:-1]) if _JAVA_LONG.match(text) else text
        case "boolean":
            return text == "true" if text in ("true", "false") else text
        case "Array":
            array = _ARRAY.search(text)
            return [_java_item(x.strip(), items) for x in array[1].split(",") if x.strip()] if array else text
        case "ArrayList":
            return _array_list(text, items)
        case "HashMap":
            return _hash_map(text)
        case "char" | "String" | "any":
            return text
    raise NotImplementedError(word)


def _java_item(text: str, items: str | None) -> Any:
    return _java(text, items) if items else _java_value(text)


def _array_list(text: str, items: str | None) -> Any:
    if listed := _AS_LIST.search(text):
        texts = [item.strip() for item in listed[1].split(",")]
    elif (added := _added(text)) is not None:
        texts = [item.strip() for item in _ADD.findall(added)]
    else:
        return [] if _EMPTY_LIST.search(text) else text
    return [item[1:-1] if items in ("char", "String") else _java_item(item, items) for item in texts]


def _added(text: str) -> str | None:
    """What stands in the double braces of a list: at least a character, a space only where there is nothing else."""
    if (opened := _ADDED.search(text)) is None:
        return None
    start = opened.end()
    end = text.find("}}", start + 1)
    if end < 0 and opened.group()[-1].isspace():
        start -= 1
        end = text.find("}}", start + 1)
    return text[start:end] if end >= 0 else None


def _hash_map(text: str) -> Any:
    if (opened := _MAP.search(text)) and (puts := _PUTS.search(text, opened.end())):
        return {key: _java_value(value.strip()) for key, value in _PUT.findall(puts[1])}
    return {} if _EMPTY_MAP.search(text) else text


def _java_value(text: str) -> Any:
    """A value whose type nobody gave."""
    if text.startswith('"') and text.endswith('"'):
        return text[1:-1]
    if _JAVA_LONG.match(text):
        return int(text[:-1])
    if _JAVA_FLOAT.match(text):
        return float(text[:-1])
    return _plain_value(text)


def _plain_value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text


def _javascript(text: str, word: str, items: str | None = None) -> Any:
    if word in ("array", "dict") and len(text) > MOST_CHARACTERS:
        return text
    match word:
        case "String":
            return text[1:-1] if _is_quoted(text) else text
        case "integer":
            return int(text) if _WHOLE.match(text) else text
        case "float":
            return float(text) if _DECIMAL.match(text) else text
        case "Bigint":
            return int(text[:-1]) if _JS_BIGINT.match(text) else text
        case "Boolean":
            return text == "true" if text in ("true", "false") else text
        case "array":
            return _js_list(text.strip(), items)
        case "dict":
            return _js_object(text.strip())
        case "any":
            return text
    raise NotImplementedError(word)


def _is_quoted(text: str) -> bool:
    return any(text.startswith(mark) and text.endswith(mark) for mark in "\"'")


def _js_list(text: str, items: str | None) -> Any:
    if (table := _js_table(text)) is not None:
        return [_js_row(n, row) for n, row in enumerate(_JS_ROW.findall(table))]
    array = _JS_LIST.match(text)
    if not array:
        return text
    inside = next((part.strip() for part in array.groups() if part is not None), "")
    elements = [element.strip() for element in inside.split(",")] if inside else []
    if not items:
        return [_js_value(element) for element in elements]
    try:
        return [_javascript(e, items, "String" if e.startswith(("'", '"')) else None) for e in elements]
    except (NotImplementedError, RecursionError):
        return text


def _js_table(text: str) -> str | None:
    r"""What `\[\s*\[.*?\]\s*(,\s*\[.*?\]\s*)*\]` matches at the start, or the same in `new Array(...)`.

    A row ends at the first bracket on its line behind which the rest fits. Each is looked at once, from the last on.
    """
    head, close = next(((head, close) for opening, close in _JS_TABLES if (head := opening.match(text))), (None, ""))
    if head is None:
        return None
    ends: dict[int, int] = {}  # where a row may end -> where the table then does

    def end_of_row(start: int) -> int | None:
        line = text.find("\n", start)
        return next((ends[at] for at in reversed(ends) if at >= start and (line < 0 or at < line)), None)

    for at in (place for place in reversed(range(len(text))) if text[place] == "]"):
        after = _SPACE.match(text, at + 1)
        behind = after.end() if after else at + 1
        if text.startswith(close, behind):
            ends[at] = behind + 1
        elif (following := _JS_NEXT.match(text, behind)) and (end := end_of_row(following.end())) is not None:
            ends[at] = end
    end = end_of_row(head.end())
    return None if end is None else text[:end]


def _js_row(n: int, row: str) -> list[Any]:
    row = row.strip()
    return [_js_value(element) for element in (row.removeprefix("[") if n == 0 else row).split(",")]


def _js_object(text: str) -> Any:
    if text == "{}":
        return {}
    literal = _JS_OBJECT.match(text)
    if not literal:
        return text
    pairs = {}
    for key, value in _JS_PAIR.findall(literal[1]):
        pairs[key.strip().strip("'\"")] = _js_member(value.strip())
    return pairs


def _js_member(text: str) -> Any:
    if text.startswith("[") and text.endswith("]"):
        return _js_list(text, None)
    if text.startswith("{") and text.endswith("}"):
        return _js_object(text)
    return _js_value(text.strip("'\""))


def _js_value(text: str) -> Any:
    text = text.strip()
    return text[1:-1] if _is_quoted(text) else _plain_value(text)


JAVA = Literals(
    {
        **dict.fromkeys(("byte", "short", "integer", "long"), int),
        **dict.fromkeys(("float", "double"), float),
        **dict.fromkeys(("Array", "ArrayList", "Queue", "Stack"), list),
        **dict.fromkeys(("HashMap", "Hashtable"), dict),
        **dict.fromkeys(("char", "String", "any"), str),
        "boolean": bool,
        "Set": set,
    },
    ("Array", "ArrayList"),
    _java,
)
JAVASCRIPT = Literals(
    {
        **dict.fromkeys(("integer", "Bigint"), int),
        **dict.fromkeys(("String", "any"), str),
        "float": float,
        "Boolean": bool,
        "dict": dict,
        "array": list,
    },
    ("array",),
    _javascript,
)
