"""IFEval (Zhou et al., 2023): prompts with one to three instructions that a program can check. No golds.

Format read in google-research/instruction_following_eval/data/input_data.jsonl; `google/IFEval` on the hub calls it
ifeval_input_data.jsonl: `key`, `prompt`, `instruction_id_list` and `kwargs`, the arguments of each instruction. Where a
table was made of it, arguments that an instruction doesn't have are null.
"""

from collections.abc import Iterator
from typing import Any

from kvt_async.contract.errors import ConfigError
from kvt_async.data.sources.json_rows import wrong_type
from kvt_async.data.sources.published_files import PublishedFile
from kvt_async.data.sources.published_source import Params, PublishedSource, PublishedTask, Record, each_record
from kvt_async.data.sources.source import Published
from kvt_async.records import Example

MOST_TOKENS = 1280  # the task in lm-evaluation-harness; the authors publish no limit
TEMPLATE = "{context}{question}"  # the prompt alone: there is no context
_MOST_INSTRUCTIONS = 3
_FILE = PublishedFile(
    "google/IFEval",
    "966cd89545d6b6acfd7638bc708b98261ca58e84",
    "ifeval_input_data.jsonl",
    names=("input_data.jsonl",),
)
_SCHEMA = 'A line is {"key": 7, "prompt": "...", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}.'


def _task(key: str, params: Params) -> PublishedTask:
    least = params.get("min_instructions", 1)
    if not isinstance(least, int) or isinstance(least, bool) or not 1 <= least <= _MOST_INSTRUCTIONS:
        raise ConfigError(
            f"min_instructions must be a whole number from 1 to {_MOST_INSTRUCTIONS}, not {least!r}",
            where="dataset.params.min_instructions",
            do="It leaves out the prompts with fewer instructions.",
        )

    def parse(record: Record, where: str) -> Iterator[Example]:
        example = _example(record, where)
        if not 0 < len(example.meta["instruction_id_list"]) < least:  # none at all is a fault, which prepare names
            yield example

    return PublishedTask(Published(MOST_TOKENS, "ifeval_strict"), (_FILE,), each_record(parse), template=TEMPLATE)


def _example(record: Record, where: str) -> Example:
    prompt, names, given = record["prompt"], record["instruction_id_list"], record["kwargs"]
    if not isinstance(prompt, str) or not prompt.strip():
        raise wrong_type("prompt", "a text", prompt, where, _SCHEMA)
    for name, value in (("instruction_id_list", names), ("kwargs", given)):
        if not isinstance(value, list):
            raise wrong_type(name, "a list", value, where, _SCHEMA)
    meta = {"instruction_id_list": names, "kwargs": [_without_nulls(each) for each in given]}
    return Example(str(record["key"]), prompt, "", (), meta)


def _without_nulls(arguments: Any) -> Any:
    if not isinstance(arguments, dict):
        return {} if arguments is None else arguments
    return {name: value for name, value in arguments.items() if value is not None}


SOURCE = PublishedSource(
    "ifeval",
    {"ifeval": "instructions that a program can check, one to three at once"},
    _task,
    params=("min_instructions",),
)
