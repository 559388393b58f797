"""Prompts whose answers are scored (`bench.scored`): what may be asked of them, and the examples with their golds as
facts of the bench's own database, where a sweep has them.
"""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from kvt_async.bench.prompt_files import WHERE
from kvt_async.contract.bench_settings import WorkloadSettings
from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError
from kvt_async.contract.paths import manifest_path
from kvt_async.contract.schema import connect_for_writing
from kvt_async.contract.settings import UNPUBLISHED_MAX_TOKENS, Settings
from kvt_async.data.example_prompt import PromptRule
from kvt_async.data.identity import dataset_id
from kvt_async.data.manifest import ManifestHead, read_head, read_items
from kvt_async.data.manifest_store import store_manifest, stored_id
from kvt_async.data.prepare import prepare
from kvt_async.data.tasks import tasks_of

_BENCH_LENGTH = WorkloadSettings().output_tokens  # of a config that says nothing of it
_OTHER_ENDS = ("ignore_eos", "min_tokens")  # fields that change where an answer ends


def check_scored(settings: Settings) -> None:
    """Raise ConfigError where bench.scored asks for what can't be scored, or for answers that no sweep would get."""
    bench, work = settings.bench, settings.bench.workload
    if work.kind != "manifest":
        raise ConfigError(
            f"a workload of kind {work.kind} has nothing to score its answers by",
            where="bench.scored",
            do="Set bench.workload.kind: manifest; the prompts are then those of this config's `dataset`, or of the "
            "manifest.json that path names.",
        )
    if work.output_tokens not in (None, _BENCH_LENGTH):
        raise ConfigError(
            "answers that are scored end as a sweep's do, at decoding.max_tokens, and not at a length of the bench's",
            where="bench.workload.output_tokens",
            do="Leave it out, or set it to null.",
        )
    for where, body in (("bench.body", bench.body), ("decoding.extra_body", settings.decoding.extra_body)):
        for name in _OTHER_ENDS:
            if body.get(name):
                raise ConfigError(
                    f"{name} makes answers go on beyond their end, and these are to be scored",
                    where=f"{where}.{name}",
                    do=f"Leave it out: --override {where}.{name}=null.",
                )


def with_manifest(settings: Settings, say: Callable[[str], None], *, dry_run: bool) -> Settings:
    """The settings with the path of their manifest: without one, kind: manifest is the config's own `dataset`, prepared
    where that was not done yet, and asked as its task is published.

    Raises the errors of the data; MissingPrerequisiteError where a dry run would have to make it.
    """
    work = settings.bench.workload
    if work.kind != "manifest" or work.path is not None:
        return settings
    tasks = tasks_of(settings).tasks
    if len(tasks) > 1:
        raise ConfigError(
            f"a bench asks the prompts of one task, and this config has {len(tasks)}",
            where="tasks",
            do=f"Name one's file in {WHERE}.",
        )
    own = tasks[0].settings
    file = manifest_path(own.output.data_dir, dataset_id(own))
    if dry_run and not file.is_file():
        raise MissingPrerequisiteError(
            "the prompts are not prepared yet", where=str(file), do="Run `kvt prepare -c CONFIG` first."
        )
    path = str(file) if dry_run else str(prepare(own, report=say).path)
    workload = work.model_copy(update={"path": path})
    return own.model_copy(update={"bench": own.bench.model_copy(update={"workload": workload})})


def check_prompts(settings: Settings, file: Path, head: ManifestHead) -> None:
    """Raise ConfigError for a manifest whose prompts a bench would send otherwise than a sweep does."""
    rule = PromptRule(**head.prompt)
    if rule.endpoint != settings.prompt.endpoint or rule.writes_turns:
        why = "its chat template is written into completions" if rule.writes_turns else f"it is for {rule.endpoint}"
        raise ConfigError(
            f"a bench can't score answers to this manifest's prompts: {why}, and prompt.endpoint is "
            f"{settings.prompt.endpoint}",
            where=str(file),
            do="Prepare one for prompt.endpoint: chat.",
        )
    with_tools = next((entry.example_id for entry, example in read_items(file) if example.meta.get("tools")), None)
    if with_tools is not None:
        raise ConfigError(
            f"a bench sends no tools, and example {with_tools} offers some",
            where=f"{WHERE} ({file})",
            do="Score a task without tools under load, or set bench.scored: false.",
        )


def most_tokens(settings: Settings, head: ManifestHead) -> int:
    """Tokens that a sweep asks for: decoding.max_tokens, else what the task is published with."""
    if settings.decoding.max_tokens is not None:
        return settings.decoding.max_tokens
    return PromptRule(**head.prompt).task_max_new_tokens or UNPUBLISHED_MAX_TOKENS


def store_examples(db: Path, path: str, generation: int) -> str:
    """Write the manifest's examples with their golds into the database, once; return their dataset_id there. Raises
    KvtError where it holds something else under that id."""
    file = Path(path)
    with closing(connect_for_writing(db)) as conn:
        head = read_head(file)
        name = stored_id(conn, head, generation) if generation > 1 else head.dataset_id
        store_manifest(conn, file, dataset_id=name)
    return name
