"""GSM8K (Cobbe et al., 2021): grade-school word problems, openai/gsm8k, 1,319 of them.

The prompt, its stop texts and the reading of answers are those of lm-evaluation-harness' task gsm8k_cot_zeroshot at
4e7e0d47f33bc71070c1d38394bafbb52b117163; the answer length is that of Llama 3's evaluation (eval_details.md), since the
harness' default of 256 tokens cuts answers. A record: question, answer (the solution, then `#### ` and the number).
"""

from collections.abc import Iterator

from kvt_async.data.sources.json_rows import text_field, text_or_number
from kvt_async.data.sources.published_files import PublishedFile
from kvt_async.data.sources.published_source import Params, PublishedSource, PublishedTask, Record, each_record
from kvt_async.data.sources.source import Published, content_id
from kvt_async.records import Example

TEMPLATE = "{context}Q: {question}\nA: Let's think step by step."
_SCHEMA = 'A row of GSM8K is {"question": "...", "answer": "...\\n#### 72"}.'
FILE = PublishedFile(
    "openai/gsm8k",
    "e53f048856ff4f594e959d75785d2c2d37b678ee",
    "main/test-00000-of-00001.parquet",
    names=("test.jsonl", "test.parquet", "gsm8k.jsonl", "gsm8k.parquet"),
)


def example(record: Record, where: str) -> Iterator[Example]:
    """The number behind `####` is the gold; the solution before it is left out."""
    question = text_field(record, "question", where, _SCHEMA)
    number = text_or_number(record, "answer", where, _SCHEMA).rpartition("####")[2].strip()
    yield Example(content_id(question, "", [number]), question, "", (number,), {})


def _task(key: str, params: Params) -> PublishedTask:
    return PublishedTask(
        Published(1024, "gsm8k_number", ["Q:", "</s>", "<|im_end|>"], temperature=0.0),
        (FILE,),
        each_record(example),
        TEMPLATE,
    )


SOURCE = PublishedSource("gsm8k", {"gsm8k": "word problems of grade school, solved step by step"}, _task)
