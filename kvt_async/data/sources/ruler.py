"""ruler: synthetic long-context tasks of a chosen length in the served model's own tokens, generated, seeded.

`dataset.params`: lengths (tokens of the rendered prompt plus the answer; default [4096]), per_length (examples of each;
default binning.n_per_bin), seed (42), reserve (tokens kept for the answer; default the task's published number), essay
(a text file for the essay haystacks; default our own essay-like text). qa_1 and qa_2 read the questions of another
dataset from dataset.path.

The published answer prefix ("The special magic number for X ... is") ends the prompt on the completions endpoint. With
a chat template it belongs after the assistant header, where a user message can't reach: prompt.answer_prefix: turn puts
it there, over either endpoint; without that a chat request leaves it out, and it is said.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.length_names import DEFAULT_LENGTHS
from kvt_async.contract.paths import data_path
from kvt_async.contract.settings import Settings
from kvt_async.data.sources import ruler_qa
from kvt_async.data.sources.ruler_qa import FILES
from kvt_async.data.sources.ruler_task import RulerItem, RulerTask
from kvt_async.data.sources.ruler_tasks import TASKS as GENERATED
from kvt_async.data.sources.ruler_text import sentences_of
from kvt_async.data.sources.source import (
    ExampleSource,
    Published,
    Row,
    check_most,
    check_params,
    did_you_mean,
    file_sha256,
    unreadable,
)
from kvt_async.records import Example

REVISION = "ruler-1"  # raise it when the same arguments make other text
PARAMS = ("lengths", "per_length", "seed", "reserve", "essay")
TASKS = {**{key: task.about for key, task in GENERATED.items()}, **ruler_qa.ABOUT}
PUBLISHED = {
    **{key: Published(task.max_new_tokens, task.metric) for key, task in GENERATED.items()},
    **dict.fromkeys(FILES, Published(ruler_qa.MAX_NEW_TOKENS, ruler_qa.METRIC)),
}


def file_of(task: str, path: str | None) -> str | None:
    """Of `dataset.path`, what this task reads: nothing where it is generated or the file is another's, the published
    file of it where the path is a folder.
    """
    if task not in FILES or path is None:
        return None
    at = data_path(path)
    if at.is_dir():
        return f"{path.rstrip('/')}/{FILES[task]}" if (at / FILES[task]).is_file() else None
    return path if ruler_qa.may_be(task, at) else None


def lacks(task: str, path: str | None) -> str:
    """What the config does not give for a task; empty: it can be made."""
    if task not in FILES or file_of(task, path) is not None:
        return ""
    return f"it needs a file of questions ({ruler_qa.ABOUT[task].rpartition('; ')[2]})"


def list_tasks(path: str | None) -> list[tuple[str, str]]:
    """(key, what it is, metric and answer length, whether it can be made without a file or from that of `path`)."""
    rows = []
    for key, about in TASKS.items():
        own, needs = PUBLISHED[key], lacks(key, path)
        made = f"from {file_of(key, path)}" if key in FILES and not needs else "made here"
        what = about.partition("; dataset.path")[0]
        rows.append((key, f"{what}; {own.metric}, {own.max_new_tokens} tokens; {needs or made}"))
    return rows


def check(settings: Settings) -> None:
    task, params = settings.dataset.task_key, settings.dataset.params
    if task not in TASKS:
        raise ConfigError(f"ruler has no task {task!r}", where="dataset.task", do=did_you_mean(task, tuple(TASKS)))
    from_file = task in ruler_qa.ABOUT
    if from_file and settings.dataset.path is None:
        raise ConfigError(f"{task} needs a file of questions", where="dataset.path", do=f"{ruler_qa.ABOUT[task]}.")
    if not from_file and settings.dataset.path is not None:
        raise ConfigError(f"{task} is generated and reads no file", where="dataset.path", do="Leave dataset.path null.")
    check_params(params, PARAMS, "ruler")
    lengths = params.get("lengths", list(DEFAULT_LENGTHS))
    if not isinstance(lengths, list) or not lengths or not all(_is_count(n) for n in lengths):
        raise ConfigError(
            f"lengths must be a list of token counts, not {lengths!r}",
            where="dataset.params.lengths",
            do="For example [4096, 8192].",
        )
    for key in ("per_length", "seed", "reserve"):
        if key in params and not _is_count(params[key]):
            raise ConfigError(f"{key} must be a whole number above 0", where=f"dataset.params.{key}")
    for key, value in (("lengths", max(lengths)), *((key, params.get(key, 1)) for key in ("per_length", "reserve"))):
        check_most(key, value)
    if "essay" in params and not isinstance(params["essay"], str):
        raise ConfigError("essay must be the path of a text file", where="dataset.params.essay")


def open_source(settings: Settings) -> ExampleSource:
    """Raises ConfigError for a task that can't be generated. A length that its shortest prompt exceeds has no examples,
    and `remarks` say so; that is an error where no length is left.
    """
    from kvt_async.data.tokens import load_tokenizer

    check(settings)
    params, essay, revision = settings.dataset.params, None, REVISION
    if settings.dataset.task_key in GENERATED:
        task = GENERATED[settings.dataset.task_key]
    else:
        task, digest = ruler_qa.load(settings.dataset.task_key, data_path(settings.dataset.path or ""))
        revision = f"{REVISION} questions sha256:{digest}"
    if task.essay and "essay" in params:
        essay, digest = _essay(data_path(params["essay"]))
        revision = f"{REVISION} essay sha256:{digest}"
    notes = []
    if settings.prompt.endpoint == "chat" and settings.prompt.answer_prefix is None:
        notes.append(
            f"{task.key}: over chat the published answer prefix is not sent (prompt.answer_prefix: turn begins the "
            "assistant's turn with it; prompt.endpoint: completions ends a plain prompt with it)"
        )
    if task.essay and essay is None:
        notes.append(f"{task.key}: the haystack is kvt's own essay-like text; dataset.params.essay names another")
    tokenizer, remarks = load_tokenizer(settings), list[str]()

    def rows() -> Iterator[Row]:
        fit = Fit(_counter(settings, task), int(params.get("reserve", task.max_new_tokens)))
        too_short: dict[int, TooShortError] = {}
        n_made = 0
        for length in params.get("lengths", list(DEFAULT_LENGTHS)):
            for index in range(params.get("per_length", settings.binning.n_per_bin)):
                seed = f"ruler {task.key} {params.get('seed', 42)} {length} {index}"
                item = task.make(seed, index, length, essay)
                try:
                    example = fit.example(item, task.key, length, index, settings)
                except TooShortError as error:
                    if index:
                        raise  # some of this length can be made
                    too_short[length] = error
                    break
                yield Row(example, f"ruler {task.key} {length} #{index}")
                n_made += 1
        if not n_made and too_short:
            raise next(iter(too_short.values()))
        remarks[:] = [f"{error.what}: this length has no examples" for error in too_short.values()]

    return ExampleSource(
        revision=f"{revision} tokenizer:{tokenizer.sha256[:16]}",
        metric=task.metric,
        rows=rows,
        template=task.template,
        max_new_tokens=task.max_new_tokens,
        notes=tuple(notes),
        remarks=remarks,
        published=True,
    )


class TooShortError(ConfigError):
    """A length that the shortest prompt of a task exceeds."""


class Fit:
    """The largest haystack whose prompt leaves `reserve` tokens of the asked length."""

    def __init__(self, count: Callable[[Example], int], reserve: int) -> None:
        self._count, self._reserve = count, reserve
        self._last: dict[int, int] = {}  # length -> units of the item before: the next one is close

    def example(self, item: RulerItem, key: str, length: int, index: int, settings: Settings) -> Example:
        behind = settings.prompt.endpoint == "completions" and settings.prompt.answer_prefix is None
        prefix = item.answer_prefix if behind else ""

        def build(units: int) -> Example:
            context, question = item.context(units), item.question + prefix
            digest = hashlib.sha256(f"{context}\x1f{question}".encode()).hexdigest()[:8]
            meta: dict[str, Any] = {"task": key, "length": length, "haystack_units": units, **item.meta}
            meta["answer_prefix"] = item.answer_prefix
            return Example(f"{key}-{length}-{index:05d}-{digest}", question, context, item.answers, meta)

        def fits(units: int) -> bool:
            return self._count(build(units)) + self._reserve <= length

        low = item.min_units
        if not fits(low):
            least = self._count(build(low)) + self._reserve
            raise TooShortError(
                f"{length} tokens are too few for {key}: its shortest prompt and the answer take {least}",
                where="dataset.params.lengths",
                do=f"Ask for {least} or more, or lower dataset.params.reserve ({self._reserve}).",
            )
        guess, step = max(low, self._last.get(length, low)), 1
        if fits(guess):
            low = guess
            while fits(low + step):
                low, step = low + step, step * 2
            high = low + step
        else:
            high = guess
            while guess - step > low and not fits(guess - step):
                high, step = guess - step, step * 2
            low = max(low, guess - step)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        self._last[length] = low
        return build(low)


def _counter(settings: Settings, task: RulerTask) -> Callable[[Example], int]:
    """Tokens of an example's prompt exactly as `prepare` counts them."""
    from kvt_async.data.example_prompt import is_templated, prompt_rule, served_text
    from kvt_async.data.tokens import load_tokenizer

    tokenizer = load_tokenizer(settings)
    rule = prompt_rule(settings, ExampleSource("", "", lambda: iter(()), template=task.template), tokenizer)
    special = not is_templated(rule, tokenizer)

    def count(example: Example) -> int:
        return tokenizer.count([served_text(rule, tokenizer, rule.messages(example))], special=special)[0]

    return count


def _essay(path: Path) -> tuple[list[str], str]:
    try:
        sentences, digest = list(sentences_of(path.read_text(encoding="utf-8-sig"))), file_sha256(path)
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from None
    if not sentences:
        raise ConfigError("the essay file is empty", where=str(path), do="Set dataset.params.essay to a text file.")
    return sentences, digest


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
