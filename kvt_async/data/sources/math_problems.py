"""MATH-500 and the AIME of 2024 and 2025: problems whose answer is one expression, asked for in a box.

The prompt is that of lighteval v0.9.2 (8d9ecd66c2c2e235c06848b48fbca41655084fdc, default_prompts.py: math_500,
aime_prompt_fn), the answer length its generation_size of math_500 and aime24. Sampling is that of DeepSeek-R1's
generation_config.json (temperature 0.6, top_p 0.95), with which these tasks are commonly run. Records:
HuggingFaceH4/MATH-500: problem, solution, answer, subject, level, unique_id.
HuggingFaceH4/aime_2024: id, problem, solution, answer, url, year. math-ai/aime25: problem, answer, id.
"""

from collections.abc import Iterator

from kvt_async.contract.formulas.metric_needs import MATH_VERIFY
from kvt_async.data.sources.json_rows import text_field, text_or_number
from kvt_async.data.sources.published_files import PublishedFile
from kvt_async.data.sources.published_source import Params, PublishedSource, PublishedTask, Record, each_record
from kvt_async.data.sources.source import Published
from kvt_async.records import Example

TEMPLATE = (
    "{context}Solve the following math problem efficiently and clearly.  The last line of your response should be of "
    "the following format: 'Therefore, the final answer is: $\\boxed{ANSWER}$. I hope it is correct' (without quotes) "
    "where ANSWER is just the final number or expression that solves the problem. Think step by step before "
    "answering.\n\n{question}"
)
PUBLISHED = Published(32_768, MATH_VERIFY, temperature=0.6, top_p=0.95)
_SCHEMA = 'A row is {"problem": "...", "answer": "...", "unique_id" or "id": "..."}.'
_KEPT = ("subject", "level", "year", "url")
_MATH500 = PublishedFile(
    "HuggingFaceH4/MATH-500", "ff5b20257d8185524591543f8ff5993951537bb8", "test.jsonl", names=("math500.jsonl",)
)
_AIME24 = PublishedFile(
    "HuggingFaceH4/aime_2024",
    "2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
    "data/train-00000-of-00001.parquet",
    names=("aime24.parquet", "aime24.jsonl", "aime_2024.parquet", "aime_2024.jsonl"),
)
_AIME25 = PublishedFile(
    "math-ai/aime25",
    "563bb8404243c5f09de6ec262f2db674fe5bce9b",
    "test.jsonl",
    names=("aime25.jsonl", "aime25.parquet"),
)


def example(record: Record, where: str) -> Iterator[Example]:
    """A problem and its answer as published; the solution is left out."""
    name = text_or_number(record, "unique_id" if "unique_id" in record else "id", where, _SCHEMA)
    problem = text_field(record, "problem", where, _SCHEMA)
    answer = text_or_number(record, "answer", where, _SCHEMA).strip()
    meta = {key: record[key] for key in _KEPT if record.get(key) is not None}
    yield Example(name, problem, "", (answer,), meta)


def _source(name: str, about: str, file: PublishedFile) -> PublishedSource:
    def task(key: str, params: Params) -> PublishedTask:
        return PublishedTask(PUBLISHED, (file,), each_record(example), TEMPLATE)

    return PublishedSource(name, {name: about}, task)


MATH500 = _source("math500", "500 competition problems in seven subjects", _MATH500)
AIME24 = _source("aime24", "30 problems of the AIME of 2024, answers 0 to 999", _AIME24)
AIME25 = _source("aime25", "30 problems of the AIME of 2025, answers 0 to 999", _AIME25)
