"""GPQA-Diamond (Rein et al., 2023): 198 questions of experts with four choices, Idavidrein/gpqa.

The prompt and the reading of answers are those of simple-evals at ee3b0318d8d1d9d72755a4120879be65f7c07e9e (common.py,
gpqa_eval.py); the answer length is lighteval v0.9.2's, the sampling that of DeepSeek-R1's generation_config.json.
A record: Question, Correct Answer, Incorrect Answer 1 to 3, Record ID, High-level domain, Subdomain, and others that
aren't read.
"""

import hashlib
import random
from collections.abc import Iterator
from typing import Any

from kvt_async.contract.errors import ConfigError
from kvt_async.data.sources.json_rows import text_field, text_or_number
from kvt_async.data.sources.published_files import PublishedFile
from kvt_async.data.sources.published_source import Params, PublishedSource, PublishedTask, Record, each_record
from kvt_async.data.sources.source import Published, content_id
from kvt_async.records import Example

TEMPLATE = (
    "{context}Answer the following multiple choice question. The last line of your response should be of the following "
    "format: 'Answer: $LETTER' (without quotes) where LETTER is one of ABCD. Think step by step before answering.\n\n"
    "{question}"
)
LETTERS = "ABCD"
_CHOICES = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
_SCHEMA = f"A row has the texts Question, {', '.join(_CHOICES)}."
_KEPT = ("High-level domain", "Subdomain")
_FILE = PublishedFile("Idavidrein/gpqa", "633f5ee89ab8ad4522a9f850766b73f62147ffdd", "gpqa_diamond.csv")


def example(record: Record, where: str, seed: int) -> Iterator[Example]:
    """A question with its choices in an order that the seed and its id alone decide."""
    choices = [text_or_number(record, name, where, _SCHEMA) for name in _CHOICES]
    asked = text_field(record, "Question", where, _SCHEMA)
    name = str(record.get("Record ID") or content_id(asked, "", choices))
    order = _order(seed, name)
    lines = [f"{letter}) {choices[place]}" for letter, place in zip(LETTERS, order, strict=True)]
    meta: dict[str, Any] = {key: record[key] for key in _KEPT if record.get(key)}
    question = f"{asked}\n\n" + "\n".join(lines)
    yield Example(
        name, question, "", (LETTERS[order.index(0)],), {**meta, "all_classes": list(LETTERS), "order": order}
    )


def _order(seed: int, name: str) -> list[int]:
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return random.Random(int.from_bytes(digest)).sample(range(4), 4)


def _task(key: str, params: Params) -> PublishedTask:
    seed = params.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ConfigError(
            f"the order of choices needs a whole number of 0 or more, not {seed!r}", where="dataset.params.seed"
        )
    return PublishedTask(
        Published(32_768, "gpqa_letter", temperature=0.6, top_p=0.95),
        (_FILE,),
        each_record(lambda record, where: example(record, where, seed)),
        TEMPLATE,
    )


SOURCE = PublishedSource(
    "gpqa_diamond", {"gpqa_diamond": "198 questions of experts, four choices"}, _task, params=("seed",)
)
