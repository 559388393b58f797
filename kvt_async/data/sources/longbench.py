"""LongBench and LongBench-E from the published data.zip: a local archive or folder, else the hub at a pinned revision.

Rows have input, context, answers, length (words), dataset, language, all_classes, _id. `input` becomes the question,
`_id` the example_id; every field but input, context and answers stays in meta. `dataset.params.metric` scores with
another metric than the task's own, for example classification_fixed; `dataset.params.max_line_mb` (64) is the longest
line that is read, as with jsonl.
"""

from collections.abc import Callable, Iterator
from typing import Any

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.metric_needs import check_known
from kvt_async.contract.paths import data_path
from kvt_async.contract.settings import Dataset, Settings
from kvt_async.data.sources.json_rows import (
    MAX_LINE_MB,
    answer_list,
    bounded_lines,
    check_max_line,
    json_object,
    text_field,
)
from kvt_async.data.sources.longbench_archive import BROKEN, Member, find_member, hub_listing, hub_zip, local_listing
from kvt_async.data.sources.longbench_tasks import E_TASKS, TASKS, LongBenchTask
from kvt_async.data.sources.source import ExampleSource, Published, Row, check_params, content_id, did_you_mean
from kvt_async.records import Example

_SCHEMA = (
    'A row of LongBench is {"input": "...", "context": "...", "answers": ["..."], "all_classes": null, "_id": "..."}. '
    "Your own data: dataset.name: jsonl."
)
E_BUCKETS = ((4000, "0-4k"), (8000, "4-8k"))  # LongBench-E's own, by `length` in words; else 8k+


def check(settings: Settings) -> None:
    task_of(settings)
    check_params(settings.dataset.params, ("metric", "max_line_mb"), settings.dataset.name)
    check_max_line(settings.dataset.params)
    check_known(metric_of(settings), "dataset.params.metric")


def metric_of(settings: Settings) -> str:
    """The task's own metric, or dataset.params.metric."""
    return str(settings.dataset.params.get("metric", task_of(settings).scored_by))


def task_of(settings: Settings) -> LongBenchTask:
    """Raises ConfigError for a key that is not exactly one of the tasks."""
    name, key = settings.dataset.name, settings.dataset.task_key
    tasks = tasks_of(name)
    if key in tasks:
        return tasks[key]
    advice = did_you_mean(key.removesuffix("_e"), tuple(tasks))
    if name == "longbench_e" and key in TASKS:
        advice = f"LongBench-E does not include it; dataset.name: longbench does. {advice}"
    raise ConfigError(f"{name} has no task {key!r}", where="dataset.task", do=f"{advice} See `kvt tasks {name}`.")


def tasks_of(name: str) -> dict[str, LongBenchTask]:
    """The published tasks of longbench or longbench_e."""
    return E_TASKS if name == "longbench_e" else TASKS


def published(dataset: Dataset) -> Published | None:
    task = tasks_of(dataset.name).get(dataset.task_key)
    return Published(task.max_new_tokens, task.scored_by) if task else None


def file_name(name: str, key: str) -> str:
    """The file of a task in the archive."""
    return f"{key}_e.jsonl" if name == "longbench_e" else f"{key}.jsonl"


def lacks(key: str, dataset: Dataset) -> str:
    """What a local archive or folder does not hold for a task; empty: it has it, or there is none to look into."""
    names = local_listing(data_path(dataset.path)) if dataset.path is not None else None
    file = file_name(dataset.name, key)
    return f"{dataset.path} holds no data/{file}" if names is not None and file not in names else ""


def open_source(settings: Settings) -> ExampleSource:
    """Raises ConfigError when the task is unknown or the archive is missing, broken, or lacks the task."""
    check(settings)
    task, dataset = task_of(settings), settings.dataset
    file = file_name(dataset.name, task.key)
    if dataset.path is not None:
        member, pinned = find_member(data_path(dataset.path), file), ""
    else:
        archive, revision = hub_zip(settings)
        member, pinned = find_member(archive, file), f"{revision} "
    max_line_mb = dataset.params.get("max_line_mb", MAX_LINE_MB)
    notes = []
    if not task.chat_template and settings.prompt.endpoint == "chat":
        notes.append(f"{task.key} is published without a chat template; prompt.endpoint: completions sends it that way")
    return ExampleSource(
        revision=f"{pinned}sha256:{member.sha256}",
        metric=metric_of(settings),
        rows=lambda: read(member, in_e=dataset.name == "longbench_e", max_line_mb=max_line_mb),
        template=task.template,
        max_new_tokens=task.max_new_tokens,
        chat_template=task.chat_template,
        first_line_only=task.first_line_only,
        notes=tuple(notes),
        published=True,
    )


def read(member: Member, *, in_e: bool = False, max_line_mb: float = MAX_LINE_MB) -> Iterator[Row]:
    """Stream one task's rows. A published `_id` that comes again gets #2, #3: nobody can correct the archive."""
    seen: dict[str, int] = {}
    try:
        with member.open() as file:
            for where, line in bounded_lines(file, member.where, max_line_mb):
                example = parse(line, where, in_e=in_e)
                seen[example.example_id] = n = seen.get(example.example_id, 0) + 1
                if n > 1:
                    answers, meta = example.answers, example.meta
                    again = f"{example.example_id}#{n}"
                    example = Example(again, example.question, example.context, answers, meta)
                yield Row(example, where)
    except BROKEN as error:
        raise ConfigError(f"the archive is broken: {error}", where=member.where, do="Get it again.") from None


def parse(line: bytes, where: str, *, in_e: bool = False) -> Example:
    record = json_object(line, where, _SCHEMA)
    for name in ("input", "context", "answers"):
        if name not in record:
            raise ConfigError(f"the field {name!r} is missing", where=where, do=_SCHEMA)
    question, context = (text_field(record, name, where, _SCHEMA) for name in ("input", "context"))
    answers = answer_list(record["answers"], where, _SCHEMA)
    meta: dict[str, Any] = {k: v for k, v in record.items() if k not in ("input", "context", "answers")}
    if in_e and isinstance(length := record.get("length"), int):
        meta["length_bucket"] = next((label for bound, label in E_BUCKETS if length < bound), "8k+")
    given = record.get("_id")
    return Example(str(given) if given else content_id(question, context, answers), question, context, answers, meta)


def list_tasks(name: str, settings: Settings, report: Callable[[str], None]) -> list[tuple[str, str]]:
    """The archive's own list where one is at hand or the hub answers; else the published one, and `report` says so."""
    tasks = tasks_of(name)
    configured = settings.dataset.path if settings.dataset.name in ("longbench", "longbench_e") else None
    if configured is not None:
        names, source = local_listing(data_path(configured)), configured
    else:
        names, source = hub_listing(settings)
    if names is None:
        report(f"{source}; this is the published list, not confirmed")
        keys = list(tasks)
    else:
        report(f"from {source}")
        suffix = "_e.jsonl" if name == "longbench_e" else ".jsonl"
        keys = sorted(
            n.removesuffix(suffix) for n in names if n.endswith(suffix) and (suffix != ".jsonl" or n[:-6] in tasks)
        )
    rows = []
    for key in keys:
        task = tasks.get(key)
        says = f"{task.about}; {task.scored_by}, {task.max_new_tokens} tokens" if task else "not known to this kvt"
        rows.append((key, says))
    return rows
