"""BFCL, the Berkeley Function Calling Leaderboard: its single-turn categories, in the two published ways to ask.

`dataset.params.mode`: `fc` (the functions go out as `tools`) or `prompt` (they stand in a system text, and the answer
is `[f(a=1)]`). Files are BFCL_v4_*.json as in the repository ShishirPatil/gorilla, or BFCL_v3_*.json as on the hub,
with `possible_answer/` beside; formats read at the repository's commit 6ea57973 (data, load_dataset_entry in utils.py).
Messages go out as published: all but the last are the context, and a system text with functions is one of them.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.metric_needs import BFCL_AST
from kvt_async.contract.formulas.prompt_text import CONVERSATION
from kvt_async.data.sources.bfcl_functions import hinted, system_text, tools
from kvt_async.data.sources.json_rows import wrong_type
from kvt_async.data.sources.published_files import OpenedFile, PublishedFile
from kvt_async.data.sources.published_source import Params, PublishedSource, PublishedTask, Record
from kvt_async.data.sources.source import Published, Row
from kvt_async.records import Example

REPO = "gorilla-llm/Berkeley-Function-Calling-Leaderboard"
REVISION = "61fc0608cfd831fcfbbaa676ebdfef0ed963eeda"
MODES = ("fc", "prompt")
MOST_TOKENS = 4096  # of an answer: what the repository's handlers of local models ask for

_NOT_PYTHON = ("simple_java", "simple_javascript")
_TASKS = {
    "simple_python": "one function, one call",
    "simple_java": "one function, one call, values in Java; mode fc only",
    "simple_javascript": "one function, one call, values in JavaScript; mode fc only",
    "multiple": "one call, of one of several functions",
    "parallel": "several calls of one function",
    "parallel_multiple": "several calls of several functions",
    "irrelevance": "no function fits: to call none is right",
    "live_simple": "users' own: one function, one call",
    "live_multiple": "users' own: one call, of one of several functions",
    "live_parallel": "users' own: several calls of one function",
    "live_parallel_multiple": "users' own: several calls of several functions",
    "live_irrelevance": "users' own: no function fits",
    "live_relevance": "users' own: to call any function is right",
}
_ON_HUB = {"simple_python": "simple", "simple_java": "java", "simple_javascript": "javascript"}  # names of version 3
_FOLDERS = ("", "bfcl_eval/data/", "berkeley-function-call-leaderboard/bfcl_eval/data/")  # of a checkout
_SCHEMA = (
    'A row of BFCL is {"id": "...", "question": [[{"role": "user", "content": "..."}]], "function": [...]}; one of '
    'possible_answer/ is {"id": "...", "ground_truth": [{"f": {"a": [1, ""]}}]}.'
)


class _AnswerFile(PublishedFile):
    """The file of possible answers, in `possible_answer` beside the questions."""

    def local(self, path: Path) -> Path | None:
        folder = path.parent if path.is_file() else path
        places = (folder / name for name in (self.path, *self.names))
        return next((place for place in places if place.is_file()), None)


def _files(key: str) -> tuple[PublishedFile, ...]:
    on_hub = f"BFCL_v3_{_ON_HUB.get(key, key)}.json"
    names = [(folder, f"BFCL_v{version}_{key}.json") for version in (4, 3) for folder in _FOLDERS]
    questions = PublishedFile(REPO, REVISION, on_hub, tuple(folder + name for folder, name in names))
    if "relevance" in key:
        return (questions,)
    beside = tuple(f"{folder}possible_answer/{name}" for folder, name in names)
    return questions, _AnswerFile(REPO, REVISION, f"possible_answer/{on_hub}", beside)


def _mode_of(params: Params) -> str:
    """Raises ConfigError for another mode than the two."""
    mode = params.get("mode", MODES[0])
    if mode not in MODES:
        raise ConfigError(
            f"bfcl has no mode {mode!r}",
            where="dataset.params.mode",
            do="Set it to fc (the functions go out as tools) or prompt (they stand in the system text).",
        )
    return str(mode)


def _task(key: str, params: Params) -> PublishedTask:
    mode = _mode_of(params)

    def rows(files: Sequence[OpenedFile]) -> Iterator[Row]:
        for where, record, truth in _paired(files):
            try:
                yield Row(parse(record, truth, key, mode, where), where)
            except KeyError as error:
                raise ConfigError(f"a parameter lacks the field {error.args[0]!r}", where=where, do=_SCHEMA) from None
            except (TypeError, AttributeError):
                raise ConfigError("a parameter is not described as in BFCL", where=where, do=_SCHEMA) from None

    return PublishedTask(Published(MOST_TOKENS, BFCL_AST), _files(key), rows, CONVERSATION)


def _unavailable(key: str, params: Params) -> str:
    if key in _NOT_PYTHON and _mode_of(params) == "prompt":
        return "answers in this language's syntax need its parser; dataset.params.mode: fc can be scored"
    return ""


def _paired(files: Sequence[OpenedFile]) -> Iterator[tuple[str, Record, Record | None]]:
    """(where, question, its possible answers): by their order, as the repository does."""
    if len(files) == 1:
        yield from ((where, record, None) for where, record in files[0].records())
        return
    answers = files[1].records()
    for where, record in files[0].records():
        _, truth = next(answers, ("", None))
        if truth is None:
            raise ConfigError("there are fewer possible answers than questions", where=str(files[1].path), do=_SCHEMA)
        yield where, record, truth
    if (more := next(answers, None)) is not None:
        raise ConfigError("there are more possible answers than questions", where=more[0], do=_SCHEMA)


def parse(record: Record, truth: Record | None, category: str, mode: str, where: str) -> Example:
    """Raises ConfigError naming the field that is no BFCL row's."""
    messages, functions = _messages(record, where), _functions(record, where)
    described = hinted(functions, category)
    if truth is not None and not functions:
        raise ConfigError("the row offers no function, and a call is expected", where=where, do=_SCHEMA)
    meta: dict[str, Any] = {"bfcl": {"category": category, "mode": mode, "functions": functions}}
    if mode == "prompt":
        text = system_text(described)
        if messages[0]["role"] == "system":
            messages[0] = {"role": "system", "content": f"{text}\n\n{messages[0]['content']}"}
        else:
            messages = [{"role": "system", "content": text}, *messages]
    else:
        meta["tools"] = tools(described)
        meta["cluster_key"] = hashlib.sha256(json.dumps(functions).encode()).hexdigest()[:16]
    *before, last = messages
    if before:
        meta["context_messages"] = [[message["role"], len(message["content"])] for message in before]
    context = "".join(message["content"] for message in before)
    return Example(str(record["id"]), last["content"], context, _golds(truth, where), meta)


def _messages(record: Record, where: str) -> list[dict[str, str]]:
    question = record.get("question")
    messages = question[0] if isinstance(question, list) and len(question) == 1 else None
    if not isinstance(messages, list) or not all(_is_message(message) for message in messages) or "id" not in record:
        raise ConfigError("the field 'question' is no conversation of one turn", where=where, do=_SCHEMA)
    if not messages or messages[-1]["role"] != "user":
        raise ConfigError("the conversation does not end with the user", where=where, do=_SCHEMA)
    return list(messages)


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


def _functions(record: Record, where: str) -> list[dict[str, Any]]:
    functions = record.get("function")
    shaped = isinstance(functions, list) and all(
        isinstance(function, dict)
        and isinstance(function.get("name"), str)
        and isinstance(function.get("description"), str)
        and isinstance(function.get("parameters"), dict)
        and isinstance(properties := function["parameters"].get("properties"), dict)
        and all(isinstance(parameter, dict) for parameter in properties.values())
        for function in functions
    )
    if not shaped or not isinstance(functions, list):
        raise wrong_type(
            "function", "a list of functions with name, description and parameters", functions, where, _SCHEMA
        )
    return functions


def _golds(truth: Record | None, where: str) -> tuple[str, ...]:
    """The possible answers as JSON text; none for (ir)relevance."""
    if truth is None:
        return ()
    calls = truth.get("ground_truth")
    shaped = isinstance(calls, list) and all(
        isinstance(call, dict) and len(call) == 1 and _are_lists(next(iter(call.values()))) for call in calls
    )
    if not shaped or not calls:
        raise wrong_type("ground_truth", "a list of calls {name: {parameter: [values]}}", calls, where, _SCHEMA)
    return (json.dumps(calls, ensure_ascii=False),)


def _are_lists(parameters: object) -> bool:
    return isinstance(parameters, dict) and all(isinstance(values, list) for values in parameters.values())


SOURCE = PublishedSource(
    "bfcl",
    _TASKS,
    _task,
    ("mode",),
    unavailable=_unavailable,
    notes=(
        "multi_turn, memory, web_search and format_sensitivity are not offered: their score needs the functions to be "
        "executed, or other prompts.",
    ),
)
