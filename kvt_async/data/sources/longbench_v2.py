"""LongBench v2: 503 multiple-choice questions about contexts of 8 thousand to 2 million words.

Read in the repository THUDM/LongBench at 2e00731 (pred.py, prompts/, README) and in the hub's file list of
zai-org/LongBench-v2 (the new name of THUDM/LongBench-v2). data.json is a list of objects with _id, domain, sub_domain,
difficulty, length, question, choice_A to choice_D, answer and context; `dataset.params` may name domains, difficulties
and lengths to keep.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from kvt_async.contract.errors import ConfigError
from kvt_async.data.sources.json_rows import text_field
from kvt_async.data.sources.published_files import PublishedFile
from kvt_async.data.sources.published_source import Params, PublishedSource, PublishedTask, Record, each_record
from kvt_async.data.sources.source import Published, did_you_mean
from kvt_async.records import Example

NAME = "longbench_v2"
FILE = PublishedFile(
    "zai-org/LongBench-v2", "2b48e494f2c7a2f0af81aae178e05c7e1dde0fe9", "data.json", names=("data.jsonl",)
)
TEMPLATE = (  # prompts/0shot.txt; the question is $Q$ with the choices below it
    "Please read the following text and answer the question below.\n\n<text>\n{context}\n</text>\n\n"
    "What is the correct answer to this question: {question}\n\n"
    'Format your response as follows: "The correct answer is (insert answer here)".'
)
ANSWER_TOKENS = 128
LETTERS = "ABCD"
MARKS = {"question": "$Q$", **{f"choice_{letter}": f"$C_{letter}$" for letter in LETTERS}}
"""The script's marks, in the order in which it fills them."""
FILTERS: Mapping[str, tuple[str, ...]] = {
    "domain": (
        "Single-Document QA",
        "Multi-Document QA",
        "Long In-context Learning",
        "Long-dialogue History Understanding",
        "Code Repository Understanding",
        "Long Structured Data Understanding",
    ),
    "difficulty": ("easy", "hard"),
    "length": ("short", "medium", "long"),
}
_SCHEMA = (
    'A row of LongBench v2 is {"_id": "...", "domain": "...", "sub_domain": "...", "difficulty": "easy", "length": '
    '"short", "question": "...", "choice_A": "...", ..., "choice_D": "...", "answer": "A", "context": "..."}.'
)


def _task(key: str, params: Params) -> PublishedTask:
    rows = each_record(partial(_examples, wanted={name: _chosen(params, name) for name in FILTERS if name in params}))
    return PublishedTask(Published(ANSWER_TOKENS, "longbench_v2_letter", temperature=0.1), (FILE,), rows, TEMPLATE)


def _chosen(params: Params, name: str) -> frozenset[str]:
    """What a filter names, one value or a list. Raises ConfigError for a value that no row has."""
    given = params[name]
    values = given if isinstance(given, list) else [given]
    for value in values:
        if value not in FILTERS[name]:
            raise ConfigError(
                f"no row of {NAME} has the {name} {value!r}",
                where=f"dataset.params.{name}",
                do=did_you_mean(str(value), FILTERS[name]),
            )
    return frozenset(values)


def _examples(record: Record, where: str, *, wanted: Mapping[str, frozenset[str]]) -> Iterator[Example]:
    """The example of a row; none where a filter leaves it out."""
    if any(text_field(record, name, where, _SCHEMA) not in values for name, values in wanted.items()):
        return
    texts = {name: text_field(record, name, where, _SCHEMA).strip() for name in ("context", *MARKS)}
    filled = {"context": texts["context"]}
    for name, mark in MARKS.items():  # as the script does: also where a document or a question holds such a mark
        filled = {other: text.replace(mark, texts[name]) for other, text in filled.items()} | {name: texts[name]}
    answer = text_field(record, "answer", where, _SCHEMA)
    choices = "\n".join(f"({letter}) {filled[f'choice_{letter}']}" for letter in LETTERS)
    meta: dict[str, Any] = {
        name: value for name, value in record.items() if name not in ("question", "context", "answer")
    }
    meta["all_classes"] = list(LETTERS)
    question = f"{filled['question']}\nChoices:\n{choices}"
    yield Example(text_field(record, "_id", where, _SCHEMA), question, filled["context"], (answer,), meta)


SOURCE = PublishedSource(
    name=NAME, tasks={NAME: "503 multiple-choice questions about long contexts"}, task=_task, params=tuple(FILTERS)
)
