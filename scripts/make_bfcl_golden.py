"""Scores of BFCL's official checker for replies made here, and how it offers functions made here: bfcl_ast.jsonl in
tests/analyzer/golden, bfcl_functions.jsonl in tests/data/golden.

    git clone https://github.com/ShishirPatil/gorilla
    git -C gorilla checkout 6ea57973c7a6097fd7c5915698c54c17c5b1b6c8
    python scripts/make_bfcl_golden.py gorilla/berkeley-function-call-leaderboard

Functions, accepted calls and replies are of our own making; of the checkout only its figures are kept. What it imports
to reach models (openai, tree_sitter and the like) is not needed and need not be installed. Each row: category, mode,
functions, golds, prediction (the reply's calls as kvt stores them, or its text), score; null where the official check
stops with an error. Of the functions: category, functions, tools, and the SHA-256 of the system prompt.
"""

import argparse
import copy
import hashlib
import json
import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

OUT = Path(__file__).parents[1] / "tests/analyzer/golden/bfcl_ast.jsonl"
OUT_FUNCTIONS = Path(__file__).parents[1] / "tests/data/golden/bfcl_functions.jsonl"
STUBS = "tenacity filelock openai overrides dotenv tree_sitter tree_sitter_java tree_sitter_javascript tqdm pandas"
KEPT = 0.25  # of the wrong replies, which are many
Json = dict[str, Any]
Case = tuple[str, str, list[Json], list[Json] | None, str]  # category, mode, functions, accepted, prediction


def _function(name: str, required: str, /, **properties: Any) -> Json:
    shaped = {key: {"type": kind} if isinstance(kind, str) else kind for key, kind in properties.items()}
    described = {key: {**kind, "description": f"The {key}."} for key, kind in shaped.items()}
    parameters = {"type": "dict", "properties": described, "required": required.split()}
    return {"name": name, "description": f"Does {name}.", "parameters": parameters}


def _list(items: str, word: str = "array") -> Json:
    return {"type": word, "items": {"type": items}}


FERRY = _function(
    "ferry.book", "route seats", route="string", seats="integer", price="float", car="boolean", day="string"
)
MIX = _function(
    "mix", "parts", parts=_list("integer"), shares=_list("float"), tags=_list("string"), at=_list("float", "tuple")
)
STORE = _function("store_item", "item", item="dict", rows=_list("dict"), note="any", on="boolean")
PING = _function("net.ping.host", "host", host="string", count="integer")
NONE = _function("tick", "")
PYTHON = (FERRY, MIX, STORE, PING, NONE)

ACCEPTED: dict[str, list[Json]] = {
    "ferry.book": [
        {
            "route": ["Oslo-Kiel", "Oslo to Kiel"],
            "seats": [2],
            "price": ["", 49.5],
            "car": ["", True],
            "day": ["May 1, 2031"],
        },
        {"route": ["Aland"], "seats": [3, "n_seats"], "price": [50.0, 50], "day": ["", "it's Monday"]},
        {"route": ["a_b*c^d"], "seats": [0], "car": [False]},
    ],
    "mix": [
        {
            "parts": [[1, 2, 3], [3, 2, 1]],
            "shares": ["", [0.5, 0.25]],
            "tags": [["Red, green", "blue"]],
            "at": ["", [1.0, 2.0]],
        },
        {"parts": [[]], "shares": [[1, 2]], "at": [[3, 4]]},
        {"parts": ["numbers"], "tags": ["", []]},
    ],
    "store_item": [
        {
            "item": [{"name": ["Pen", "pen box"], "n": [3], "tint": ["", "blue"]}],
            "rows": ["", [{"a": [1]}, {"a": [2]}]],
        },
        {"item": ["", {"name": ["X-1"]}], "note": ["any thing", "7"], "on": [True, "flag"]},
        {"item": ["record"], "rows": [[{"k": ["v_1"], "l": ["", 2]}]]},
    ],
    "net.ping.host": [{"host": ["example.org"], "count": ["", 4]}, {"host": ["::1", "localhost"]}],
    "tick": [{}],
}
VALUES: tuple[Any, ...] = (
    "Oslo-Kiel", "oslo  kiel", "Oslo/Kiel", "n_seats", "Aland.", "", "May 1 2031", 'it"s monday', "its monday", "abcd",
    0, 1, 2, 3, -3, 4, 2.0, 49.5, 50, 50.0, True, False, None, "2", "True", "numbers", "record", "any-thing",
    "7", 7, "flag",
    [], [1, 2, 3], [1, 2], [1.0, 2.0], [0.5, 0.25], [3, 4], [1, 2, "3"], ["red green", "BLUE"], ["red"],
    [True, 2, 3], "v1",
    {}, {"name": "pen"}, {"name": "PEN BOX", "n": 3}, {"name": "Pen", "n": 3, "tint": "Blue"}, {"name": "Pen", "n": 4},
    {"name": "x1"}, {"n": 3}, {"name": "Pen", "n": 3, "size": 1}, [{"a": 1}, {"a": 2}], [{"a": 2}, {"a": 1}],
    [{"a": 1}],
    [{"k": "V1"}], [{"k": "v1", "l": 2}], [{"k": "v1", "l": 3}], [{}], [[1]], {"name": ["Pen"]}, 1e3, 10**20,
)  # fmt: skip
TEXTS = (
    "", " ", "[]", "tick()", "[tick()]", "[tick( )]\n", "```\n[tick()]\n```", "```python\n[tick()]\n```",
    "[tick()", "tick()]",
    "[tick(), tick()]", "tick(), tick()", "I can't do that.", "None", "tick", "[tick]", "'[tick()]'",
    "[tick()]'", "\ttick()",
    "[tick()] Done.", "Sure: [tick()]", "[tick()]\n[tick()]", "[tick(1)]", "[tick(a=1)]", "[tick(**x)]",
    "[tick(*x)]", "{}",
    '{"name": "tick", "arguments": {}}', '[{"name": "tick", "arguments": {}}]', "[[tick()]]", "(tick(),)",
    "[tick() for i in x]",
    "<tool_call>{\"name\": \"tick\", \"arguments\": {}}</tool_call>", "net.ping.host(host='example.org')",
    "[net.ping.host(host='::1')]", "[net_ping_host(host='::1')]", "[net.ping.host('::1')]", "[x().ping(host='::1')]",
    "[net.ping.host(host=localhost)]", "[net.ping.host(host='local' + 'host')]", "[net.ping.host(host=local.host)]",
    "[net.ping.host(host='example.org', count=2*2)]", "[net.ping.host(host='example.org', count=2+2, )]",
    "[net.ping.host(host='example.org', count=-4)]", "[net.ping.host(host='example.org', count=+4)]",
    "[net.ping.host(host='example.org', count=8//2)]", "[net.ping.host(host='example.org', count=8/2)]",
    "[net.ping.host(host='example.org', count=--4)]", "[net.ping.host(host='example.org', count=n+1)]",
    "[net.ping.host(host='example.org', count=2**2)]", "[net.ping.host(host='example.org', count=(1<<3)-4)]",
    "[net.ping.host(host='example.org', count=4,)]", "[net.ping.host(host='example.org', count=4 if x else 5)]",
    "[net.ping.host(host=f'example.org')]", "[net.ping.host(host=b'::1')]", "[net.ping.host(host=...)]",
    "[net.ping.host(host='example.org', count=len('four'))]", "[net.ping.host(host=get(name='x'))]",
    "[net.ping.host(host=hosts[0])]", "[net.ping.host(host=hosts[0:1])]", "[net.ping.host(host=lambda: 1)]",
    "[net.ping.host(host=not True)]", "[net.ping.host(host={'a': 1})]", "[net.ping.host(host={1, 2})]",
    "[net.ping.host(host={[1]: 2})]", "[net.ping.host(host=x == 1)]", "[net.ping.host(host=\"example.org\")]  # done",
    "[net.ping.host(host='example\\.org')]", "[net.ping.host(host='example.org', host='::1')]",
    "[net.ping.host(host=('local', 'host'))]", "[net.ping.host(host='''localhost''')]", "[net.ping.host(host=true)]",
)  # fmt: skip

JAVA = (
    _function("Reel.spin", "n", n="integer", far="long", x="float", y="double", on="boolean", mark="char",
              name="String"),
    _function("Box.fill", "items", items=_list("String", "ArrayList"), sizes=_list("integer", "Array"), map="HashMap",
              any="any", more=_list("double", "ArrayList"), flags=_list("boolean", "Array")),
)  # fmt: skip
JAVA_ACCEPTED: dict[str, list[Json]] = {
    "Reel.spin": [
        {
            "n": [3],
            "far": ["", 5],
            "x": ["", 2.5],
            "y": ["", 0.5, 1000.0],
            "on": [True],
            "mark": ["", "c"],
            "name": ["", "The End"],
        },
        {"n": ["count"], "on": ["", False], "name": ["new Name()"]},
    ],
    "Box.fill": [
        {"items": [["a", "b c"]], "sizes": ["", [1, 2]], "map": ["", {"k": ["v"], "n": [1]}], "any": ["", "new X(1)"]},
        {"items": [[]], "more": [[1.0, 2.5]], "flags": [[True, False]], "map": [{}]},
        {"items": ["list"], "map": ["table"]},
    ],
}
JAVA_TEXTS = (
    "3", "-3", "3L", "5L", "5l", "5", "2.5f", "2.5F", "2.5", "1e3", "0.5", ".5", "true", "false", "True", "'c'",
    "c", "the end",
    '"The End"', "count", "new Name()", 'new ArrayList<>(Arrays.asList("a", "b c"))', "new ArrayList<>()",
    "list", "table",
    'new ArrayList<String>(Arrays.asList("a", "b, c"))', 'new ArrayList<String>() {{ add("a"); add("b c"); }}',
    "new X(1)",
    "new int[]{1, 2}", "new int[] { 1 , 2 }", "new int[]{}", "new int[]{1, 2.0}", "new boolean[]{true, false}",
    "{1, 2}",
    'new HashMap<String, Object>() {{ put("k", "v"); put("n", 1); }}', "new HashMap<>()",
    "new HashMap<String, Integer>() {}",
    'new HashMap<String, Object>() { { put("k", "V"); put("n", 1L); } }',
    "new ArrayList<Double>(Arrays.asList(1.0, 2.5))",
    'new HashMap<String, Object>() {{ put("k", "v"); }}', "new ArrayList<Integer>(Arrays.asList(1, 2))", "null",
    "", "3\n",
)  # fmt: skip
JAVASCRIPT = (
    _function("draw", "n", n="integer", x="float", big="Bigint", on="Boolean", name="String", any="any"),
    _function("lay.out", "rows", rows=_list("String"), sizes=_list("integer"), style="dict", grid=_list("array"),
              items=_list("dict"), raw=_list("float")),
)  # fmt: skip
JAVASCRIPT_ACCEPTED: dict[str, list[Json]] = {
    "draw": [
        {"n": [3], "x": ["", 2.5], "big": ["", 12], "on": [True], "name": ["", "The End"], "any": ["", "() => 1"]},
        {"n": ["count"], "on": ["", False], "name": ["title"]},
    ],
    "lay.out": [
        {"rows": [["a", "b c"]], "sizes": ["", [1, 2]], "style": ["", {"k": ["v"], "n": [1], "on": ["", True]}]},
        {"rows": ["", []], "grid": ["", [[1, 2], [3, 4]]], "items": ["", [{"k": [1]}, {"k": [2]}]], "raw": ["", [1.5]]},
        {"rows": ["list"], "style": ["theme", {}]},
    ],
}
JAVASCRIPT_TEXTS = (
    "3", "-3", "3n", "12n", "12", "2.5", "2", "true", "false", "True", "'The End'", '"the end"', "title",
    "count", "() => 1", "list",
    "['a', 'b c']", '["a","b c"]', "[a, b c]", "new Array('a', 'b c')", "[]", "[1, 2]", "[ 1,2 ]",
    "new Array(1, 2)", "[1.5]",
    "{k: 'v', n: 1}", '{"k": "V", "n": 1, "on": true}', "{}", "{k: 'v', n: [1]}", "{k: {n: 1}}", "theme",
    "[[1, 2], [3, 4]]",
    "[ [1,2],[3,4] ]", "new Array([1, 2], [3, 4])", "[{k: 1}, {k: 2}]", "[{'k': 1}]", "null", "", "{ }",
    "{k: 'v'}", "1_0",
)  # fmt: skip


def cases(rng: random.Random) -> Iterator[Case]:
    for function in PYTHON:
        name = function["name"]
        for accepted in ACCEPTED[name]:
            for arguments in _arguments(rng, function, accepted, VALUES, 70):
                yield from _single(rng, "simple_python", function, accepted, arguments)
    yield from _several(rng)
    for text in TEXTS:
        modes = ("prompt",) if '"arguments"' in text else ("prompt", "fc")  # calls in a text: kvt's own rule in mode fc
        for category in ("irrelevance", "live_relevance", "live_irrelevance"):
            yield from ((category, mode, [NONE, PING], None, text) for mode in modes)
        for mode in modes:
            yield "simple_python", mode, [NONE], [{"tick": {}}], text
            yield "live_multiple", mode, [PING, NONE], [{"net.ping.host": ACCEPTED["net.ping.host"][0]}], text
            yield "simple_python", mode, [PING], [{"net.ping.host": ACCEPTED["net.ping.host"][1]}], text
    for written in ("", "{", "[]", "null", "{}", '"{}"', '{"host": NaN}', "7", '{"host": "::1"} '):
        stored = json.dumps([{"name": "net_ping_host", "arguments": written, "id": "a"}])
        for category in ("irrelevance", "live_relevance", "simple_python"):
            golds = None if "relevance" in category else [{"net.ping.host": ACCEPTED["net.ping.host"][1]}]
            yield category, "fc", [PING], golds, stored
    for language, functions, table, texts in (
        ("java", JAVA, JAVA_ACCEPTED, JAVA_TEXTS),
        ("javascript", JAVASCRIPT, JAVASCRIPT_ACCEPTED, JAVASCRIPT_TEXTS),
    ):
        for function in functions:
            for accepted in table[function["name"]]:
                for parameter in function["parameters"]["properties"]:
                    for value in texts:
                        only = {"parameters": {**function["parameters"], "required": []}}
                        one = {parameter: accepted.get(parameter, ["", "x"])}
                        calls = [(function["name"], {parameter: value})]
                        yield f"simple_{language}", "fc", [function | only], [{function["name"]: one}], _stored(calls)
                for arguments in _arguments(rng, function, accepted, (*texts, 3, True), 40):
                    yield from _single(rng, f"simple_{language}", function, accepted, arguments)


def _arguments(rng: random.Random, function: Json, accepted: Json, values: tuple[Any, ...], n: int) -> Iterator[Json]:
    """Accepted ones, then those with one or two parameters changed, left out or added."""
    yield {key: next(v for v in options if v != "") for key, options in _open(accepted).items()}
    names = list(function["parameters"]["properties"])
    for _ in range(n if names else 3):
        made = {}
        for name, options in _open(accepted).items():
            chosen = rng.choice(options)
            if chosen != "":
                made[name] = chosen
        for _ in range(rng.choice((0, 1, 1, 1, 2))):
            name = rng.choice([*names, "other"])
            if rng.random() < 0.25:
                made.pop(name, None)
            else:
                made[name] = rng.choice(values)
        yield made


def _open(accepted: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Accepted values as a model would write them: dictionaries with one of their values each."""
    return {key: [_plain(value) for value in options] for key, options in accepted.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: next((v for v in options if v != ""), "") for key, options in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _single(rng: random.Random, category: str, function: Json, accepted: Json, arguments: Json) -> Iterator[Case]:
    name, golds = function["name"], [{function["name"]: accepted}]
    yield category, "fc", [function], golds, _stored([(name, arguments)])
    if category == "simple_python":
        calls = [(name, arguments)] if rng.random() < 0.97 else [(name, arguments)] * 2
        yield category, "prompt", [function], golds, _written(rng, calls)


def _several(rng: random.Random) -> Iterator[Case]:
    for _ in range(260):
        category = rng.choice(("multiple", "live_multiple", "parallel", "parallel_multiple", "live_parallel"))
        functions = rng.sample(PYTHON, 1 if category in ("parallel", "live_parallel") else rng.randint(2, 3))
        n = rng.randint(1, 3) if "parallel" in category else 1
        wanted = [rng.choice(functions)["name"] for _ in range(n)]
        golds = [{name: rng.choice(ACCEPTED[name])} for name in wanted]
        calls = []
        for one in golds:
            ((name, accepted),) = one.items()
            function = next(f for f in PYTHON if f["name"] == name)
            calls.append(
                (name, rng.choice(list(_arguments(rng, function, accepted, VALUES, 1))[: rng.choice((1, 1, 2))]))
            )
        if rng.random() < 0.5:
            rng.shuffle(calls)
        if rng.random() < 0.15:
            calls.append(rng.choice(calls))
        if rng.random() < 0.1:
            calls.pop()
        yield category, "fc", functions, golds, _stored(calls)
        yield category, "prompt", functions, golds, _written(rng, calls)


def _stored(calls: list[tuple[str, Json]]) -> str:
    named = [{"name": name.replace(".", "_"), "arguments": json.dumps(args), "id": "c"} for name, args in calls]
    return json.dumps(named)


def _written(rng: random.Random, calls: list[tuple[str, Json]]) -> str:
    texts = [f"{name}({', '.join(f'{key}={value!r}' for key, value in args.items())})" for name, args in calls]
    joined = ", ".join(texts)
    return rng.choice((f"[{joined}]", f"[{joined}]", joined, f"```\n[{joined}]\n```", f" [{joined}] \n"))


class Official:
    """The checkout's own runner, one entry at a time, with the handler of OpenAI-compatible servers."""

    def __init__(self, checkout: Path) -> None:
        sys.modules.update({name: MagicMock() for name in STUBS.split()})
        sys.modules["bfcl_eval.constants.model_config"] = MagicMock(
            MODEL_CONFIG_MAPPING={
                "fc": MagicMock(underscore_to_dot=True),
                "prompt": MagicMock(underscore_to_dot=False),
            }
        )
        sys.path.insert(0, str(checkout))
        from bfcl_eval import utils  # type: ignore[import-not-found]
        from bfcl_eval.constants.enums import Language, ModelStyle, ReturnFormat  # type: ignore[import-not-found]
        from bfcl_eval.constants.type_mappings import GORILLA_TO_OPENAPI  # type: ignore[import-not-found]
        from bfcl_eval.eval_checker import eval_runner  # type: ignore[import-not-found]
        from bfcl_eval.model_handler import utils as handlers  # type: ignore[import-not-found]
        from bfcl_eval.model_handler.api_inference.openai_completion import (  # type: ignore[import-not-found]
            OpenAICompletionsHandler,
        )

        self._utils, self._handlers = utils, handlers
        self._style = GORILLA_TO_OPENAPI, ModelStyle.OPENAI_COMPLETIONS
        self._runner, self._handler = eval_runner, OpenAICompletionsHandler
        self._languages = {
            "simple_java": (Language.JAVA, ReturnFormat.JAVA),
            "simple_javascript": (Language.JAVASCRIPT, ReturnFormat.JAVASCRIPT),
        }
        self._python = Language.PYTHON, ReturnFormat.PYTHON

    def score(self, case: Case) -> float | None:
        category, mode, functions, accepted, prediction = case
        handler = object.__new__(self._handler)
        handler.is_fc_model = mode == "fc"
        result: Any = prediction
        if mode == "fc" and prediction[:1] == "[" and '"id"' in prediction:
            result = [{call["name"]: call["arguments"]} for call in json.loads(prediction)]
        entry = {"function": functions, "question": [], "id": f"{category}_0"}
        if accepted is None:
            scored = self._runner._evaluate_single_relevance_entry(handler, "x", result, entry, mode, category)
        else:
            language, form = self._languages.get(category, self._python)
            try:
                scored = self._runner._evaluate_single_ast_entry(
                    handler, "x", result, accepted, entry, mode, category, language, form
                )
            except (TypeError, AttributeError, KeyError, ValueError, IndexError):
                return None
        return float(scored["valid"])

    def offered(self, category: str, functions: list[Json]) -> Json:
        """The tools and the system prompt's hash of functions in a category."""
        entry = {"id": f"{category}_0", "function": copy.deepcopy(functions)}
        (entry,) = self._utils.add_language_specific_hint_to_function_doc([entry])
        messages = [{"role": "user", "content": "x"}]
        system, _ = self._handlers.system_prompt_pre_processing_chat_model(messages, entry["function"], entry["id"])
        digest = hashlib.sha256(system["content"].encode()).hexdigest()
        return {"tools": self._handlers.convert_to_tool(entry["function"], *self._style), "system_sha256": digest}


DEEP = _function(
    "deep.er",
    "a",
    a={
        "type": "dict",
        "properties": {"b": {"type": "float", "description": "B."}, "c": _list("dict"), "d": {"enum": [1]}},
    },
    e={"type": "array", "items": {"type": "dict", "properties": {"f": {"type": "tuple", "items": {"type": "float"}}}}},
    g={"type": "array", "items": {"type": "array", "items": {"type": "float"}}},
    h={"type": "number"},
    i={"type": "string", "enum": ["x", "y"], "default": "x", "optional": True},
    j={"type": "thing", "format": "date"},
)
STYLE = _function("style", "s", s={"type": "dict", "properties": {"k": {"type": "String", "description": "K."}}})


def functions_offered(official: Official) -> Iterator[Json]:
    cases = [("simple_python", [f]) for f in (*PYTHON, DEEP)] + [
        ("live_multiple", [*PYTHON, DEEP]),
        ("irrelevance", []),
    ]
    cases += [("simple_java", [f]) for f in JAVA] + [("simple_javascript", [f]) for f in (*JAVASCRIPT, STYLE)]
    for category, functions in cases:
        yield {"category": category, "functions": functions, **official.offered(category, functions)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="the folder berkeley-function-call-leaderboard of a checkout")
    official, chance = Official(parser.parse_args().checkout), random.Random(21)
    rows: dict[str, None] = {}
    for category, mode, functions, accepted, prediction in cases(random.Random(20)):
        golds = [] if accepted is None else [json.dumps(accepted)]
        row: Json = {"category": category, "mode": mode, "functions": [f["name"] for f in functions], "golds": golds}
        row["prediction"], row["score"] = prediction, official.score((category, mode, functions, accepted, prediction))
        if category.startswith("simple_java"):
            row["required"] = functions[0]["parameters"]["required"]
        if row["score"] != 0 or chance.random() < KEPT:
            rows[json.dumps(row)] = None
    table = {"functions": {f["name"]: f for f in (*PYTHON, *JAVA, *JAVASCRIPT)}}
    OUT.write_text("".join(line + "\n" for line in (json.dumps(table), *rows)))
    scores = [json.loads(row)["score"] for row in rows]
    OUT_FUNCTIONS.write_text("".join(json.dumps(row) + "\n" for row in functions_offered(official)))
    print(f"{len(scores)} rows, {scores.count(1.0)} right, {scores.count(None)} that the official check stops at")


if __name__ == "__main__":
    main()
