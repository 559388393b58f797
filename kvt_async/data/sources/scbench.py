"""SCBench (Li et al., 2024): several questions over one long context, in its two published modes.

The files are microsoft/SCBench's `data/TASK.jsonl`, or the Parquet of the same rows: {"id"?, "context", "multi_turns":
[{"input", "answer", "options"?, "task"?, "name"?}, ...], "lang"?, "repo"?}. Fields, prompts, answer lengths and what is
scored were read in microsoft/MInference at fb56c917f618e8645f1cfc37535afd7424d78f0d (scbench/eval_utils.py,
run_scbench.py, compute_scores.py), types of fields on the data set's page.

`dataset.params.mode`: multi_turn (a turn's prompt holds the earlier questions with their gold answers) or scdq (same
context, different query: each question alone). `max_turns`: the first so many of a context's questions; null: all.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.conversation import turn_id
from kvt_async.data.sources.json_rows import wrong_type
from kvt_async.data.sources.published_files import OpenedFile, PublishedFile
from kvt_async.data.sources.published_source import Params, PublishedSource, PublishedTask, Record
from kvt_async.data.sources.source import Published, Row
from kvt_async.records import Example, Json

REPO, REVISION = "microsoft/SCBench", "f43226eed3a026f927a67c60739c228390d959c2"
MODES: Final = ("multi_turn", "scdq")
MAX_TURNS = 5  # the script's default
_SCHEMA = 'A row is {"context": ..., "multi_turns": [{"input": "...", "answer": ...}, ...]}.'
_BOOK = "Read the book and answer the question."
_CHOICE = "Question: {input}\nA. {0}\nB. {1}\nC. {2}\nD. {3}\n\nThe the correct answer is"  # as published
_TARGET = re.compile(r"The .+ is")


@dataclass(frozen=True, slots=True)
class _Task:
    """One task as published: `head` stands before the context, `question` is a turn's question around its `input`."""

    about: str
    max_new_tokens: int
    metric: str
    head: str = ""
    question: str = "{input}"


_TASKS: Final[Mapping[str, _Task]] = {
    "scbench_kv": _Task(
        *("values by their keys in a large JSON object", 150, "scbench_kv"),
        head="Extract the value corresponding to the specified key in the JSON object below.\n\n",
    ),
    "scbench_prefix_suffix": _Task("strings by their prefix and suffix", 150, "scbench_kv"),
    "scbench_vt": _Task("variables that get one value over several hops", 30, "scbench_vt"),
    "scbench_repoqa": _Task(
        *("functions of a repository by their description", 1024, "scbench_repoqa"),
        head="Based on the function description and code context, please retrieve and repeat the exact described "
        "function from the code context in a code block wrapped by ```:\n\n",
    ),
    "scbench_qa_eng": _Task(
        *("questions about a novel", 40, "scbench_qa_eng"),
        head=f"{_BOOK} Be very concise in your answer.\n\n",
        question="Question: {input}\nAnswer:",
    ),
    "scbench_qa_chn": _Task(
        *("questions about a Chinese book", 40, "scbench_qa_chn"),
        head="阅读以下书籍然后回答问题。\n\n",
        question="问题：{input}\n答案：",
    ),
    "scbench_choice_eng": _Task(
        *("questions about a novel, with four options", 40, "scbench_choice_eng"), head=f"{_BOOK}\n\n", question=_CHOICE
    ),
    "scbench_many_shot": _Task("learning from hundreds of examples", 10, "scbench_many_shot"),
    "scbench_summary": _Task("summaries of papers, one a turn", 200, "scbench_summary"),
    "scbench_mf": _Task("the largest, the median and the like of many numbers", 5, "scbench_mf"),
    "scbench_summary_with_needles": _Task("summaries and pass keys in turn", 800, "scbench_summary_with_needles"),
    "scbench_repoqa_and_kv": _Task("functions and values by keys in turn", 1024, "scbench_repoqa_and_kv"),
}
_OF_FUNCTIONS = ("scbench_repoqa", "scbench_repoqa_and_kv")
_MIXED = {
    "scbench_summary_with_needles": ("scbench_summary", "scbench_passkey"),
    "scbench_repoqa_and_kv": ("scbench_repoqa", "scbench_kv"),
}
_LISTED = ("scbench_qa_chn", "scbench_many_shot")  # a list of golds is scored as such, a text by its characters
_BEGUN = "This paper"  # so the script begins every answer of scbench_summary but a context's first, over several turns
_LEFT_OUT = (
    f'in scbench_summary answers to later turns are published to begin with "{_BEGUN}" behind the assistant header; a '
    "chat request can't carry that: it stands in the history, and the answer itself is not begun"
)


def _task(key: str, params: Params) -> PublishedTask:
    mode, most = params.get("mode", MODES[0]), params.get("max_turns", MAX_TURNS)
    if mode not in MODES:
        raise ConfigError(
            f"mode must be {' or '.join(MODES)}, not {mode!r}",
            where="dataset.params.mode",
            do="multi_turn: earlier questions and their gold answers stand in the prompt; scdq: each question alone.",
        )
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
        raise ConfigError(
            f"max_turns must be a whole number above 0, not {most!r}",
            where="dataset.params.max_turns",
            do=f"The first so many turns of each context; the published default is {MAX_TURNS}, null takes all.",
        )
    of = _TASKS[key]
    names = (f"{key}.jsonl", f"{key}.parquet", f"{key}/test-00000-of-00001.parquet")
    return PublishedTask(
        published=Published(of.max_new_tokens, of.metric),
        files=(PublishedFile(REPO, REVISION, f"data/{key}.jsonl", names),),
        rows=lambda files: _rows(key, files[0], mode, most),
        template=of.head + ("{context}\n\n{question}" if mode == "multi_turn" else "{context}{question}"),
        notes=(_LEFT_OUT,) if key == "scbench_summary" and mode == "multi_turn" else (),
    )


SOURCE: Final = PublishedSource(
    name="scbench",
    tasks={key: of.about for key, of in _TASKS.items()},
    task=_task,
    params=("mode", "max_turns"),
)


def _rows(key: str, file: OpenedFile, mode: str, most: int | None) -> Iterator[Row]:
    needles = _needles(key, file, most) if key in _OF_FUNCTIONS else {}
    for n, (where, record) in enumerate(file.records()):
        turns = _turns(record, where, most)
        shared: Json = {} if record.get("id") is None else {"id": record["id"]}
        if key in _OF_FUNCTIONS:
            shared |= {"lang": record["lang"], "repo": record["repo"], "needles": needles[record["repo"]]}
        asked = _questions(key, turns, mode, where)
        history: list[list[str]] = []
        context = _context(key, record, turns, mode, where)
        for k, (turn, question) in enumerate(zip(turns, asked, strict=True)):
            meta = {**shared, "conversation": str(n), "turn": k, "turns": list(history) if mode == "multi_turn" else []}
            place = f"{where}, multi_turns[{k}]"
            golds, of_turn = _golds(key, turn, place)
            yield Row(Example(turn_id(str(n), k), question, context, golds, {**meta, **of_turn}), place)
            history.append([question, _told(key, turn, k)])


def _turns(record: Record, where: str, most: int | None) -> list[Record]:
    turns = record.get("multi_turns")
    if not isinstance(turns, list) or not turns:
        raise wrong_type("multi_turns", "a list of turns", turns, where, _SCHEMA)
    for k, turn in enumerate(turns):
        if not isinstance(turn, dict) or not isinstance(turn.get("input"), str) or turn.get("answer") is None:
            raise wrong_type(f"multi_turns[{k}]", 'a turn with "input" and "answer"', turn, where, _SCHEMA)
    return turns[:most]


def _context(key: str, record: Record, turns: Sequence[Record], mode: str, where: str) -> str:
    """Numbers stand in the prompt as Python writes a list. Before them scbench_mf has what the first turn asks for; in
    scdq it has the first turn's whole question."""
    context = record["context"] if "context" in record else record.get("input")
    if isinstance(context, list):
        context = str(context)
    if not isinstance(context, str):
        raise wrong_type("context", "a text, or a list of numbers", context, where, _SCHEMA)
    if key != "scbench_mf":
        return context
    asked = turns[0]["input"]
    return f"{_asked_for(asked, where) if mode == 'multi_turn' else asked}\n\n{context}"


def _questions(key: str, turns: Sequence[Record], mode: str, where: str) -> list[str]:
    """What each turn asks. Quirk kept of scbench_mf over several turns: every later question begins with what the last
    turn asks for, not its own."""
    if key != "scbench_mf":
        return [_question(_TASKS[key], turn, f"{where}, multi_turns[{k}]") for k, turn in enumerate(turns)]
    targets = [_asked_for(turn["input"], where) for turn in turns]
    if mode == "multi_turn":
        return [turn["input"] if k == 0 else f"{targets[-1]}\n\n{turn['input']}" for k, turn in enumerate(turns)]
    return [f"{target}\n\n{turn['input']}" for target, turn in zip(targets, turns, strict=True)]


def _question(of: _Task, turn: Record, where: str) -> str:
    options = turn.get("options") or []
    if of.question is not _CHOICE:
        return of.question.format(input=turn["input"])
    if not _are_texts(options) or len(options) != 4:
        raise wrong_type("options", "a list of four texts", options, where, _SCHEMA)
    return of.question.format(*options, input=turn["input"])


def _told(key: str, turn: Record, k: int) -> str:
    """What later turns are told was answered."""
    return f"{_BEGUN if key == 'scbench_summary' and k else ''}{turn['answer']}"


def _asked_for(question: str, where: str) -> str:
    """'... The largest number is' -> 'What is the largest number?'."""
    if (match := _TARGET.search(question)) is None:
        raise ConfigError("a question of scbench_mf has 'The ... is' in it", where=where, do=_SCHEMA)
    return f"What is {match.group().lower()[:-3]}?"


def _golds(key: str, turn: Record, where: str) -> tuple[tuple[str, ...], Json]:
    """The golds that the task's metric reads, and the turn's own fields in meta."""
    answer: Any = turn["answer"]
    meta: Json = {}
    kind = key
    if key in _MIXED:
        kind = str(turn.get("task"))
        if kind not in _MIXED[key]:
            raise ConfigError(
                f"the field 'task' of a turn is {' or '.join(_MIXED[key])}, not {kind!r}", where=where, do=_SCHEMA
            )
        meta["task"] = kind
    if kind == "scbench_repoqa":
        meta["func_name"] = turn["name"]
    if kind == "scbench_choice_eng":
        options = turn["options"]
        if answer not in options:
            raise ConfigError("the answer is none of the options", where=where, do=_SCHEMA)
        return (answer, "ABCD"[options.index(answer)]), meta
    if kind == "scbench_vt" and _are_texts(answer):
        return tuple(answer), meta
    if kind in _LISTED:
        meta["labels"] = "list" if _are_texts(answer) else "text"
        if _are_texts(answer):
            return tuple(answer), meta
    if kind in ("scbench_passkey", "scbench_mf") and isinstance(answer, list) and answer:
        answer = answer[0]
    if kind == "scbench_mf" and isinstance(answer, int | float) and not isinstance(answer, bool):
        return (str(answer),), meta
    if not isinstance(answer, str) or kind in ("scbench_vt", "scbench_mf"):
        wants = {"scbench_vt": "a list of texts", "scbench_mf": "a number"}.get(kind, "a text")
        raise wrong_type("answer", wants, answer, where, _SCHEMA)
    return (answer,), meta


def _are_texts(answer: object) -> bool:
    return isinstance(answer, list) and bool(answer) and all(isinstance(text, str) for text in answer)


def _needles(key: str, file: OpenedFile, most: int | None) -> dict[str, list[list[str]]]:
    """[name, code] of all functions that are asked for in each repository: an answer has to fit the right one best."""
    needles: dict[str, list[list[str]]] = {}
    for where, record in file.records():
        for field in ("lang", "repo"):
            if not isinstance(record.get(field), str):
                raise wrong_type(field, "a text", record.get(field), where, _SCHEMA)
        of_repo = needles.setdefault(record["repo"], [])
        for k, turn in enumerate(_turns(record, where, most)):
            if key == "scbench_repoqa" or turn.get("task") == "scbench_repoqa":
                if not isinstance(turn.get("name"), str) or not isinstance(turn["answer"], str):
                    raise wrong_type(f"multi_turns[{k}]", "a function with its name", turn, where, _SCHEMA)
                of_repo.append([turn["name"], turn["answer"]])
    return needles
