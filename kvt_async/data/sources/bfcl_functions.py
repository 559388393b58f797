"""How BFCL describes its functions to a model: as tools of a chat request, or in a system text.

Source: ShishirPatil/gorilla at 6ea57973: add_language_specific_hint_to_function_doc (utils.py), convert_to_tool for
OpenAI-compatible servers (model_handler/utils.py), the default system prompt (constants/default_prompts.py). Equal on
tests/data/golden/bfcl_functions.jsonl.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

Function = Mapping[str, Any]

SYSTEM = (
    "You are an expert in composing functions.You are given a question and a set of possible functions. Based on the "
    "question, you will need to make one or more function/tool calls to achieve the purpose. If none of the functions "
    "can be used, point it out. If the given question lacks the parameters required by the function, also point it "
    "out.\n\nYou should only return the function calls in your response.\n\nIf you decide to invoke any of the "
    "function(s), you MUST put it in the format of [func_name1(params_name1=params_value1, "
    "params_name2=params_value2...), func_name2(params)].  You SHOULD NOT include any other text in the response.\n\n"
    "At each turn, you should try your best to complete the tasks requested by the user within the current turn. "
    "Continue to output functions to call until you have fulfilled the user's request to the best of your ability. "
    "Once you have no more functions to call, the system will consider the current turn complete and proceed to the "
    "next turn or task.\n\nHere is a list of functions in json format that you can invoke.\n{functions}\n"
)
"""The published text to the letter, its slips too (`functions.You`)."""

_JSON_TYPES = {
    **dict.fromkeys(("integer", "byte", "short", "long", "Bigint"), "integer"),
    **dict.fromkeys(("number", "float", "double"), "number"),
    **dict.fromkeys(("string", "any", "Any", "char", "String"), "string"),
    **dict.fromkeys(("boolean", "bool"), "boolean"),
    **dict.fromkeys(("array", "list", "tuple", "ArrayList", "Array", "Queue", "Stack"), "array"),
    **dict.fromkeys(("dict", "object", "HashMap", "Hashtable"), "object"),
}
_SYNTAX = {"simple_java": "Java 8 SDK", "simple_javascript": "JavaScript"}
_LISTS = {"simple_java": ("ArrayList", "Array"), "simple_javascript": ("array",)}


def hinted(functions: Sequence[Function], category: str) -> list[dict[str, Any]]:
    """With the language named in each description; Java's and JavaScript's parameters are texts, and say of what."""
    syntax = _SYNTAX.get(category, "Python 3")
    described = []
    for function in functions:
        parameters = function["parameters"]
        if category in _SYNTAX:
            properties = {k: _as_text(v, category) for k, v in parameters["properties"].items()}
            parameters = {**parameters, "properties": properties}
        note = f" Note that the provided function is in {syntax} syntax."
        described.append({**function, "description": function["description"] + note, "parameters": parameters})
    return described


def system_text(functions: Sequence[Function]) -> str:
    return SYSTEM.replace("{functions}", json.dumps(list(functions), indent=4))


def tools(functions: Sequence[Function]) -> list[dict[str, Any]]:
    """As `tools` of a chat request: JSON Schema's types, and `_` for `.` in names, which the API doesn't allow."""
    offered = []
    for function in functions:
        parameters = function["parameters"]
        parameters = {**parameters, "type": "object", "properties": _properties(parameters["properties"])}
        name = function["name"].replace(".", "_")
        offered.append({"type": "function", "function": {**function, "name": name, "parameters": parameters}})
    return offered


def _as_text(parameter: Function, category: str) -> dict[str, Any]:
    kind, language = parameter["type"], "Java" if category == "simple_java" else "JavaScript"
    shown = dict(parameter)
    if kind == "any":
        note = f" This parameter can be of any type of {language} object in string representation."
    else:
        note = f" This is {language} {kind} type parameter in string representation."
    if kind in _LISTS[category]:
        note += f" The list elements are of type {parameter['items']['type']}; they are not in string representation."
        del shown["items"]
    if kind == "dict" and "properties" in parameter and language == "JavaScript":
        schema = json.dumps(parameter["properties"])
        note += f" The dictionary entries have the following schema; they are not in string representation. {schema}"
        del shown["properties"]
    return {**shown, "description": parameter["description"] + note, "type": "string"}


def _properties(properties: Mapping[str, Function]) -> dict[str, Any]:
    return {name: _schema(parameter) for name, parameter in properties.items()}


def _schema(parameter: Function) -> dict[str, Any]:
    """One parameter. Nested ones are converted as deep as the official converter goes."""
    word = parameter.get("type")
    schema = {**parameter, "type": _JSON_TYPES.get(word, "string") if word is not None else "string"}
    if word == "float":
        schema["format"] = "float"
        schema["description"] = f"{parameter.get('description', '')} This is a float type value."
    if schema["type"] in ("array", "object"):
        if "properties" in schema:
            schema["properties"] = _properties(schema["properties"])
        elif "items" in schema:
            schema["items"] = _items(schema["items"])
    return schema


def _items(items: Function) -> dict[str, Any]:
    schema = {**items, "type": _JSON_TYPES[items["type"]]}
    if schema["type"] == "array" and "items" in schema:
        schema["items"] = {**schema["items"], "type": _JSON_TYPES[schema["items"]["type"]]}
    elif schema["type"] == "object" and "properties" in schema:
        schema["properties"] = _properties(schema["properties"])
    return schema
