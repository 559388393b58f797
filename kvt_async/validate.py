"""What `validate`, `resolve` and `tasks` answer. Nothing is created and nothing is sent."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kvt_async.contract import plugin_registry
from kvt_async.contract.errors import ConfigError, GuardError, MissingPrerequisiteError
from kvt_async.contract.formulas.model_config import token_bytes_of
from kvt_async.contract.load import secret
from kvt_async.contract.paths import manifest_path, run_paths
from kvt_async.contract.plugin_registry import Kind
from kvt_async.contract.settings import EngineSettings, Settings


def validate(settings: Settings, *, deep: bool = False) -> dict[str, Any]:
    """Everything that can be checked before the first request; raises ConfigError, deep: GuardError on disparity."""
    from kvt_async.data.identity import dataset_id as dataset_id_of
    from kvt_async.data.prepare import check_data
    from kvt_async.data.tasks import naming, tasks_of
    from kvt_async.sweep.sweep import checked_levels
    from kvt_async.ways.levels import NO_BASELINE

    tasks = tasks_of(settings)
    for task in tasks.tasks:
        with naming(task, tasks):
            check_data(task.settings)
    _check_chosen(settings, [task.name for task in tasks.tasks])
    checked = checked_levels(settings)
    notes = [*tasks.notes, *(note for note in checked.notes if note != NO_BASELINE), *_about_the_key(settings.engine)]
    if settings.model.config is not None:
        serving = settings.analysis.serving
        token_bytes = token_bytes_of(settings.model.config, bits=serving.cache_bits if serving else None)
        if token_bytes.value is None:
            notes.append(f"{token_bytes.path}: bytes of a cached token unknown: {token_bytes.why}")
    levels = checked.levels
    dataset_ids = {task.name: dataset_id_of(task.settings) for task in tasks.tasks}
    facts: dict[str, Any] = {
        "exp_group_id": settings.experiment.exp_group_id,
        **_one_or_several("dataset_id", dataset_ids),
        "levels": len(levels),
        "series": list(dict.fromkeys(level.series for level in levels)),
    }
    if notes:
        facts["notes"] = notes
    if not any(level.is_full for level in levels):
        facts["cannot_judge"] = NO_BASELINE
    if deep:
        for task in tasks.tasks:
            with naming(task, tasks):
                facts["parity"] = _parity(settings, dataset_ids[task.name])
    return facts


def _check_chosen(settings: Settings, names: Sequence[str]) -> None:
    """Raises ConfigError where analysis.tasks names a task that neither the config has nor its group's database."""
    db = run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path).db
    known = dict.fromkeys(names)
    from kvt_async.contract.schema import connect_for_reading

    if settings.analysis.tasks and db.is_file():
        with closing(connect_for_reading(db)) as conn:
            stored = "SELECT DISTINCT task FROM task_contracts WHERE exp_group_id = ? ORDER BY task"
            known |= dict.fromkeys(row[0] for row in conn.execute(stored, (settings.experiment.exp_group_id,)))
    if unknown := [name for name in settings.analysis.tasks or () if name not in known]:
        raise ConfigError(
            f"there is no task {unknown[0]!r}", where="analysis.tasks", do=f"The tasks: {', '.join(known)}."
        )


def valid_lines(config: str, facts: dict[str, Any]) -> list[str]:
    """What `validate` found, for people."""
    lines = [f"{config} is valid" + (", but nothing in it can be judged" if "cannot_judge" in facts else "")]
    for name, value in facts.items():
        if name in ("notes", "cannot_judge"):
            lines += [f"  note: {note}" for note in ([value] if isinstance(value, str) else value)]
        elif isinstance(value, dict):
            lines += [f"  {name}: {len(value)}", *(f"    {key}: {inner}" for key, inner in value.items())]
        else:
            lines.append(f"  {name}: {', '.join(value) if isinstance(value, list) else value}")
    return lines


def _one_or_several(name: str, of_task: dict[str, str]) -> dict[str, Any]:
    """What a fact is called: `dataset_id` of one task, `dataset_ids` by the names of several."""
    return {name: next(iter(of_task.values()))} if len(of_task) == 1 else {f"{name}s": of_task}


def _about_the_key(engine: EngineSettings) -> list[str]:
    """A sentence where a key is named, or needed by any host that isn't this one, and there is none."""
    is_named = engine.api_key_env != EngineSettings.model_fields["api_key_env"].default
    is_remote = (urlsplit(engine.base_url).hostname or "") not in ("127.0.0.1", "localhost", "::1")
    if not (is_named or is_remote) or engine.headers or secret(engine.api_key_env) is not None:
        return []
    return [f"engine.api_key_env names {engine.api_key_env}, which is not set: no key will be sent"]


def path_lines(paths: dict[str, Any]) -> list[str]:
    """What `resolve` found, for people."""
    lines = []
    for name, value in paths.items():
        several = isinstance(value, dict)
        lines += (
            [f"{name}:", *(f"  {key}: {inner}" for key, inner in value.items())] if several else [f"{name}: {value}"]
        )
    return lines


def resolved_paths(settings: Settings, *, of_database: bool = False) -> dict[str, Any]:
    """Where everything of this experiment lies. `of_database`: its tasks are those that the database has, so that no
    file which a stored config names is looked at.
    """
    from kvt_async.data.identity import dataset_id as dataset_id_of
    from kvt_async.data.tasks import tasks_of

    paths = run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path)
    dataset_ids = _stored_ids(paths.db, settings.experiment.exp_group_id) if of_database else {}
    if not dataset_ids:
        dataset_ids = {task.name: dataset_id_of(task.settings) for task in tasks_of(settings).tasks}
    manifests = {name: str(manifest_path(settings.output.data_dir, each)) for name, each in dataset_ids.items()}
    return {
        **_one_or_several("dataset_id", dataset_ids),
        "run_dir": str(paths.run_dir),
        "db": str(paths.db),
        **_one_or_several("manifest", manifests),
        "plots": str(paths.plots),
        "report_md": str(paths.report_md),
        "report_html": str(paths.report_html),
    }


def _stored_ids(db: Path, group: str) -> dict[str, str]:
    """dataset_id by task, of the group's newest generation."""
    from kvt_async.contract.schema import connect_for_reading

    sql = (
        "SELECT task, dataset_id FROM task_contracts WHERE exp_group_id = ?1 AND generation = "
        "(SELECT max(generation) FROM task_contracts WHERE exp_group_id = ?1) ORDER BY created_at"
    )
    with closing(connect_for_reading(db)) as conn:
        return dict(conn.execute(sql, (group,)).fetchall())


def datasets() -> list[tuple[str, str]]:
    """(name, where its tasks come from and which they are) of every dataset; nothing is looked up."""
    from kvt_async.data.sources import ruler_qa, ruler_tasks
    from kvt_async.data.sources.kvtext import TASKS
    from kvt_async.data.sources.shelf import SHELF

    return [
        ("kvtext", f"made here: {', '.join(TASKS)}"),
        ("ruler", f"made here: {', '.join(ruler_tasks.TASKS)}; from a file of questions: {', '.join(ruler_qa.FILES)}"),
        ("longbench", "from the hub, or a data.zip of yours: `kvt tasks longbench` lists them"),
        ("longbench_e", "the same with evenly spread lengths: `kvt tasks longbench_e`"),
        *(
            (name, f"from the hub, or published files of yours: {_about(source.tasks)}")
            for name, source in SHELF.items()
        ),
        ("jsonl", "a file of your own; dataset.task is your label for it"),
        *((name, "of a plugin") for name in plugin_registry.names(Kind.SOURCE)),
    ]


def _about(tasks: Mapping[str, str]) -> str:
    """What the one task is; of several their keys."""
    return next(iter(tasks.values())) if len(tasks) == 1 else ", ".join(tasks)


def dataset_tasks(name: str, path: str | None, report: Callable[[str], None] = lambda _: None) -> list[tuple[str, str]]:
    """(exact key, description) of every task; `report` is told where the list comes from.

    Raises ConfigError for an unknown dataset.
    """
    from kvt_async.contract.load import load_settings
    from kvt_async.data.sources import list_tasks

    settings = load_settings(None)
    if path is not None:
        dataset = settings.dataset.model_copy(update={"name": name, "path": path})
        settings = settings.model_copy(update={"dataset": dataset})
    return list_tasks(name, settings, report=report)


def _parity(settings: Settings, dataset_id: str) -> str:
    from kvt_async.contract.schema import connect_for_reading
    from kvt_async.data.manifest_store import verify_parity

    manifest = manifest_path(settings.output.data_dir, dataset_id)
    if not manifest.is_file():
        raise MissingPrerequisiteError(
            "there is no manifest yet", where=str(manifest), do="Run `kvt prepare -c CONFIG` first."
        )
    paths = run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path)
    conn = connect_for_reading(paths.db)
    try:
        differences = verify_parity(conn, manifest)
    finally:
        conn.close()
    if differences:
        raise GuardError(
            "manifest.json and the database disagree",
            where=f"{manifest} and {paths.db}",
            details=tuple(differences[:20]),
            do="One of them was changed by hand. Restore it, or prepare under a new experiment.exp_group_id.",
        )
    return "manifest.json and database agree"
