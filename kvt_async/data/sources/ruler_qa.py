"""RULER's question answering: questions of SQuAD (qa_1) or HotpotQA (qa_2) among distractor passages.

The user supplies the file as published: SQuAD 2.0's dev-v2.0.json, HotpotQA's hotpot_dev_distractor_v1.json. Questions
come in the file's order; a question without an answer is left out.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from kvt_async.contract.errors import ConfigError
from kvt_async.data.sources.json_rows import BOM
from kvt_async.data.sources.kvtext_text import Dice
from kvt_async.data.sources.ruler_task import RulerItem, RulerTask
from kvt_async.data.sources.source import file_sha256, unreadable

FILES = {"qa_1": "dev-v2.0.json", "qa_2": "hotpot_dev_distractor_v1.json"}  # as published
ABOUT = {
    "qa_1": f"SQuAD questions among distractor passages; dataset.path: {FILES['qa_1']}",
    "qa_2": f"HotpotQA questions among distractor passages; dataset.path: {FILES['qa_2']}",
}
_OPENS = {"qa_1": b"{", "qa_2": b"["}  # SQuAD is published as one object, HotpotQA as a list
_ASK = "Answer the question based on the given documents. Only give me the answer and do not output any other words."
_TEMPLATE = f"{_ASK}\n\nThe following are given documents.\n\n{{context}}\n\n{_ASK}\n\nQuestion: {{question}}"
_PREFIX = " Answer:"
MAX_NEW_TOKENS = 32
METRIC = "string_match_part"


@dataclass(frozen=True, slots=True)
class PassageQuestion:
    """`needed`: passages that hold the answer; `near`: others of the same article, the first distractors."""

    text: str
    answers: tuple[str, ...]
    needed: tuple[int, ...]
    near: tuple[int, ...] = ()


def may_be(key: str, path: Path) -> bool:
    """Whether a file opens as the task's does. True where it can't be read: `load` says why."""
    try:
        with path.open("rb") as file:
            return file.read(64).removeprefix(BOM).lstrip()[:1] in (_OPENS[key], b"")
    except OSError:
        return True


def load(key: str, path: Path) -> tuple[RulerTask, str]:
    """The task over the passages of a file, and the file's SHA-256. Raises ConfigError where it is not that dataset."""
    try:
        data, digest = orjson.loads(path.read_bytes().removeprefix(BOM)), file_sha256(path)
    except (OSError, orjson.JSONDecodeError) as error:
        raise unreadable(path, error) from None
    read: dict[str, Callable[[Any], tuple[list[str], list[PassageQuestion]]]] = {"qa_1": _squad, "qa_2": _hotpot}
    try:
        passages, questions = read[key](data)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"this is not the file that {key} is made from ({type(error).__name__}: {error})"
        raise ConfigError(what, where=str(path), do=f"{ABOUT[key]}, as published.") from None
    if not questions:
        raise ConfigError("the file holds no question with an answer", where=str(path), do=ABOUT[key])

    def make(seed: str, index: int, length: int, essay: Sequence[str] | None) -> RulerItem:
        if index >= len(questions):
            raise ConfigError(
                f"{len(questions)} questions are too few for {index + 1} examples of one length",
                where=str(path),
                do="Lower dataset.params.per_length.",
            )
        return _item(seed, questions[index], passages)

    return RulerTask(key, ABOUT[key], _TEMPLATE, MAX_NEW_TOKENS, make, metric=METRIC), digest


def _item(seed: str, question: PassageQuestion, passages: Sequence[str]) -> RulerItem:
    """One unit of haystack is one passage. A longer text keeps the order of a shorter one's."""
    drawn = _distractors(seed, question, len(passages))

    def context(n: int) -> str:
        while len(drawn) < n:
            drawn.extend(drawn[: n - len(drawn)])  # all passages are in: they come again, as published
        placed = sorted(range(n), key=lambda i: hashlib.sha256(f"{seed} place {i}".encode()).digest())
        return "\n\n".join(f"Document {at}:\n{passages[drawn[i]]}" for at, i in enumerate(placed, start=1))

    return RulerItem(
        question=question.text,
        answers=question.answers,
        answer_prefix=_PREFIX,
        context=context,
        min_units=len(question.needed),
        meta={"haystack": "passages", "n_needed": len(question.needed)},
    )


def _distractors(seed: str, question: PassageQuestion, n: int) -> list[int]:
    """The passages that are needed, then those near by, then all others; either kind in seeded order."""
    dice, have = Dice(f"{seed} passages"), {*question.needed, *question.near}
    near = dice.sample(question.near, len(question.near))
    others = [i for i in range(n) if i not in have]
    return [*question.needed, *near, *dice.sample(others, len(others))]


def _squad(data: Any) -> tuple[list[str], list[PassageQuestion]]:
    articles = [article["paragraphs"] for article in data["data"]]
    number = _numbered(paragraph["context"] for paragraphs in articles for paragraph in paragraphs)
    questions = []
    for paragraphs in articles:
        places = [number[paragraph["context"]] for paragraph in paragraphs]
        for own, paragraph in zip(places, paragraphs, strict=True):
            near = tuple(dict.fromkeys(i for i in places if i != own))
            for item in paragraph["qas"]:
                answers = tuple(dict.fromkeys(answer["text"] for answer in item["answers"]))
                if answers and not item.get("is_impossible", False):
                    questions.append(PassageQuestion(item["question"], answers, (own,), near))
    return list(number), questions


def _hotpot(data: Any) -> tuple[list[str], list[PassageQuestion]]:
    def passages(record: Any) -> list[str]:
        return [f"{title}\n{''.join(sentences)}" for title, sentences in record["context"]]

    number = _numbered(passage for record in data for passage in passages(record))
    questions = [
        PassageQuestion(
            record["question"], (record["answer"],), tuple(dict.fromkeys(number[p] for p in passages(record)))
        )
        for record in data
        if record["answer"]
    ]
    return list(number), questions


def _numbered(passages: Iterator[str]) -> dict[str, int]:
    """Distinct passages in sorted order -> their places."""
    return {passage: i for i, passage in enumerate(sorted(set(passages)))}
