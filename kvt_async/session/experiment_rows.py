"""One invocation: who asked what, under which contract, for which runs. Everything is checked before it is written."""

import hashlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from secrets import token_hex

import orjson
import yaml

from kvt_async.clock import utc_now
from kvt_async.contract.differing_fields import difference, flat
from kvt_async.contract.errors import ContractMismatchError
from kvt_async.contract.formulas.sample_seed import base_seed
from kvt_async.contract.labels import task_level
from kvt_async.contract.load import dump_yaml, known_secrets, redact
from kvt_async.contract.secrets import Secrets, matches
from kvt_async.contract.settings import Settings
from kvt_async.contract.shards.shard import Shard
from kvt_async.contract.turn_settings import TurnSettings
from kvt_async.contract.urls import public_url
from kvt_async.records import Json, Level, Run, TaskPart
from kvt_async.store.reader import Reader
from kvt_async.store.writer import Writer


def find_generation(reader: Reader, settings: Settings, contract: Json, *, force: bool) -> int:
    """The generation to extend, or to open.

    Raises ContractMismatchError that names every field stored and asked differently, unless `force`.
    """
    group = settings.experiment.exp_group_id
    rows = reader.rows(
        "SELECT generation, contract_json FROM experiments WHERE exp_group_id = ? ORDER BY generation DESC LIMIT 1",
        group,
    )
    if not rows:
        return 1
    wanted = flat(contract)
    newest = int(rows[0]["generation"])
    stored = flat(orjson.loads(rows[0]["contract_json"]))
    if matches(wanted, stored):
        return newest
    if force:
        return newest + 1
    defaults = {f"workload.{key}": value for key, value in TurnSettings().model_dump().items()}  # not in a contract
    raise other_contract(reader, group, difference(defaults | stored, defaults | wanted))


def other_contract(reader: Reader, group: str, details: Sequence[str], advice: str = "") -> ContractMismatchError:
    """The refusal of a config that asks for something else than what a group was made from."""
    return ContractMismatchError(
        f"{group} was made under another contract; nothing was sent",
        where=str(reader.db),
        details=tuple(details),
        do=f"{advice}Choose a new experiment.exp_group_id, or pass --force to start a new generation beside the old "
        "one.",
    )


def rescores(stored: Json, wanted: Json) -> str:
    """What spares new requests where another metric is asked for; empty where it is the same."""
    metric = wanted.get("dataset.metric")
    if metric == stored.get("dataset.metric"):
        return ""
    return (
        f"To score the stored answers by {metric} send nothing: `kvt all -c CONFIG --metric {metric}`, with the config "
        "as it was. "
    )


def match_runs(
    reader: Reader, group: str, generation: int, levels: Sequence[Level], secrets: Secrets, part: TaskPart
) -> list[Run]:
    """The levels of a task with the run ids they have or will have.

    Raises ContractMismatchError where a stored run of the same name was served another way.
    """
    sql = """SELECT run_id, series, kv_budget, kv_unit, repeat_idx, kv_policy, kv_mode, kv_when, kv_params_json,
             apply_json
             FROM runs WHERE exp_group_id = ? AND generation = ? AND dataset_id = ?"""
    stored = {
        (r["series"], r["kv_budget"], r["kv_unit"], r["repeat_idx"]): r
        for r in reader.rows(sql, group, generation, part.stored_id)
    }
    runs = []
    for level in levels:
        row = stored.get((level.series, level.budget, level.unit, level.repeat_idx))
        if row is not None:
            kept: Json = {"policy": row["kv_policy"], "mode": row["kv_mode"], "when": row["kv_when"]}
            kept |= {"params": orjson.loads(row["kv_params_json"]), **orjson.loads(row["apply_json"])}
            wanted: Json = {"policy": level.policy, "mode": level.mode, "when": level.when}
            wanted |= {"params": level.params, **level_identity(level, secrets)}
            if not matches(flat(wanted), flat(kept)):
                raise ContractMismatchError(
                    f"level {task_level(part.label, level.label)} is stored with another identity; nothing was sent",
                    where=str(reader.db),
                    details=difference(flat(kept), flat(wanted)),
                    do="Give the level a telling entry in params, choose a new exp_group_id, or pass --force.",
                )
        own_id = make_run_id(group, generation, level, part.manifest_id, part.label)
        runs.append(Run(row["run_id"] if row else own_id, level, row is not None, part.label, part.stored_id or ""))
    return runs


def marked_stored(reader: Reader, group: str, runs: Sequence[Run]) -> list[Run]:
    """The same runs, those marked that have their row by now."""
    stored = {row[0] for row in reader.rows("SELECT run_id FROM runs WHERE exp_group_id = ?", group)}
    return [replace(run, stored=run.run_id in stored) for run in runs]


def level_identity(level: Level, secrets: Secrets) -> Json:
    """runs.apply_json: how the budget reaches the server and where its evidence is read. No secret is part of it: a
    renewed key makes no other level."""
    identity: Json = redact(secrets.json({"apply": level.apply, "evidence": level.evidence}))
    return identity


def make_run_id(group: str, generation: int, level: Level, dataset_id: str = "", task: str = "") -> str:
    """A run's id: readable, and unique over groups, generations and tasks (full-3f9a01c2, vt-full-81c24d07).

    `task` names a task where its group has several. A stage of a bench has no dataset_id.
    """
    dataset = (dataset_id,) if dataset_id else ()
    key = (group, generation, *dataset, level.series, level.budget, level.unit, level.repeat_idx)
    digest = hashlib.sha256(orjson.dumps(key)).hexdigest()[:8]
    name = level.series if level.is_full or level.is_constrained else f"{level.series}-{level.budget:g}"
    name = f"{task}-{name}" if task else name
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", name + (f"-r{level.repeat_idx}" if level.repeat_idx else ""))
    return f"{slug[:60]}-{digest}"


async def add_generation(store: Writer, reader: Reader, settings: Settings, contract: Json, generation: int) -> None:
    """Write the generation's row in `experiments` unless it is there."""
    group = settings.experiment.exp_group_id
    if reader.value("SELECT 1 FROM experiments WHERE exp_group_id = ? AND generation = ?", group, generation):
        return
    text = orjson.dumps(contract, option=orjson.OPT_SORT_KEYS).decode()
    await store.insert(
        "experiments",
        {
            "exp_group_id": group,
            "generation": generation,
            "created_at": utc_now(),
            "contract_json": text,
            "contract_sha256": hashlib.sha256(text.encode()).hexdigest(),
        },
    )


async def add_session(
    store: Writer,
    settings: Settings,
    generation: int,
    order_seed: int | None,
    notes: Sequence[str] = (),
    shard: Shard | None = None,
) -> str:
    """Write the session's row and return its id."""
    group, now = settings.experiment.exp_group_id, utc_now()
    session_id = f"{now[:19].replace('-', '').replace(':', '')}-{token_hex(4)}"
    config = dump_yaml(settings)
    await store.insert(
        "sessions",
        {
            "session_id": session_id,
            "exp_group_id": group,
            "generation": generation,
            "started_at": now,
            "command": command_line(settings),
            "config_yaml": config,
            "config_sha256": hashlib.sha256(config.encode()).hexdigest(),
            "kvt_version": metadata.version("kvt"),
            "git_commit": git_commit(),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "engine_loop": settings.engine.loop + ("+lean" if settings.engine.transport == "lean" else ""),
            "concurrency": settings.limits.concurrency,
            "order_seed": order_seed,
            "shard_i": shard.i if shard else None,
            "shard_n": shard.n if shard else None,
            "host": platform.node() or None,
            "notes_json": orjson.dumps(list(notes)).decode() if notes else None,
        },
    )
    return session_id


async def add_runs(
    store: Writer,
    settings: Settings,
    runs: Sequence[Run],
    *,
    dataset_id: str,
    generation: int,
    template_version: str,
    engine_name: str,
) -> None:
    """Write a row in `runs` for every level of a task that has none; `settings` are those of the task."""
    secrets = known_secrets(settings)
    plain = secrets.json(settings.decoding.model_dump(mode="json", exclude={"samples"}))
    plain["seed"] = base_seed(settings.decoding)
    decoding = orjson.dumps(plain, option=orjson.OPT_SORT_KEYS).decode()
    for run in runs:
        level = run.level
        if run.stored:
            continue
        await store.insert(
            "runs",
            {
                "run_id": run.run_id,
                "exp_group_id": settings.experiment.exp_group_id,
                "generation": generation,
                "dataset_id": dataset_id,
                "model_name": settings.model.name,
                "base_url": public_url(level.endpoints[0]),
                "engine_name": engine_name,
                "series": level.series,
                "kv_policy": level.policy,
                "kv_budget": level.budget,
                "kv_unit": level.unit,
                "kv_mode": level.mode,
                "kv_when": level.when,
                "is_full": int(level.is_full),
                "kv_apply": level.apply_via,
                "kv_params_json": orjson.dumps(level.params, option=orjson.OPT_SORT_KEYS).decode(),
                "apply_json": orjson.dumps(level_identity(level, secrets), option=orjson.OPT_SORT_KEYS).decode(),
                "repeat_idx": level.repeat_idx,
                "prompt_template_version": template_version,
                "decoding_json": decoding,
                "level_idx": level.level_idx,
                "created_at": utc_now(),
            },
        )


def command_line(settings: Settings | None = None) -> str:
    """The arguments as typed, secrets masked: known ones, and what may be one by its name."""
    name = os.path.basename(sys.argv[0])
    words = ["kvt" if name in ("kvt", "__main__.py") else name, *(_without_secrets(word) for word in sys.argv[1:])]
    text = " ".join(f"'{w}'" if re.search(r"[\s\[\]{}*?$]", w) else w for w in words)
    return known_secrets(settings).text(text) if settings else text


def _without_secrets(word: str) -> str:
    option, key = ("--override=", word[11:]) if word.startswith("--override=") else ("", word)
    key, sep, text = key.partition("=")
    if not sep:
        return option + str(redact(key))
    hidden = "secret" if "headers" in key else key.rpartition(".")[2]
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    if isinstance(value, dict | list) and (shown := redact(value, hidden)) != value:
        text = orjson.dumps(shown, default=str).decode()  # a secret may lie deeper: engine={headers: {...}}
    return f"{option}{key}={redact(text, hidden)}"


def git_commit() -> str | None:
    """Commit of the working directory where it is a checkout, '-dirty' appended if it has changes."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None if described.returncode == 0 else None
