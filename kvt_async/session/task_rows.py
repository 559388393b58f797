"""The tasks of a group, as its rows have them: which data set each is, under which contract, with how many answers."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import orjson

from kvt_async.clock import utc_now
from kvt_async.contract.differing_fields import difference, flat
from kvt_async.contract.secrets import matches
from kvt_async.contract.settings import Settings
from kvt_async.records import Json, TaskPart
from kvt_async.session.experiment_rows import other_contract, rescores
from kvt_async.store.reader import Reader
from kvt_async.store.writer import Writer


def stored_tasks(reader: Reader, group: str, generation: int) -> dict[str, tuple[str, Json]]:
    """(dataset_id, contract) of every task that a generation has, by name."""
    sql = "SELECT task, dataset_id, contract_json FROM task_contracts WHERE exp_group_id = ? AND generation = ?"
    return {row[0]: (row[1], orjson.loads(row[2])) for row in reader.rows(sql, group, generation)}


def match_tasks(reader: Reader, group: str, generation: int, parts: Sequence[TaskPart]) -> list[TaskPart]:
    """The parts, each with the dataset that it has in this generation.

    Tasks are added to those that are there; a config that names none of them asks for others in their place.

    Raises ContractMismatchError that names every field stored and asked differently.
    """
    stored = stored_tasks(reader, group, generation)
    named = {dataset_id: name for name, (dataset_id, _) in stored.items()}
    others = bool(stored) and stored.keys().isdisjoint(part.name for part in parts)
    matched, details, advice = [], [], ""
    for part in parts:
        dataset_id, contract = stored.get(part.name, (None, None))
        compared = next(iter(stored.values()))[1] if others and len(stored) == 1 else contract
        if compared is not None and not matches(wanted := flat(part.contract), kept := flat(compared)):
            details += [f"{part.name}: {line}" if len(stored) > 1 else line for line in difference(kept, wanted)]
            advice = advice or rescores(kept, wanted)
        elif dataset_id is None and (name := named.get(part.manifest_id)) is not None:
            details.append(f"the task of {part.manifest_id}   stored {name}   asked {part.name}")
        matched.append(replace(part, stored_id=dataset_id))
    if others:
        details.append(f"tasks   stored {', '.join(stored)}   asked {', '.join(part.name for part in parts)}")
        advice += "To add tasks, name the stored ones beside them. "
    if details:
        raise other_contract(reader, group, details, advice)
    return matched


async def add_tasks(
    store: Writer, reader: Reader, settings: Settings, generation: int, parts: Sequence[TaskPart], session_id: str
) -> None:
    """Write a row for every task that the generation lacks, and for every number of answers that is asked first.

    A task that comes after an analysis is another look at the data, which the verdict over the tasks pays for.
    """
    group = settings.experiment.exp_group_id
    key, own = (group, generation), {"exp_group_id": group, "generation": generation}
    stored = stored_tasks(reader, group, generation)
    look = reader.value("SELECT max(look) FROM task_contracts WHERE exp_group_id = ? AND generation = ?", *key) or 1
    analysed = "SELECT 1 FROM analysis_state WHERE exp_group_id = ? AND generation = ? AND stage = 'analyze' LIMIT 1"
    look += bool(stored and reader.value(analysed, *key))
    for part in parts:
        if part.name not in stored:
            text = orjson.dumps(part.contract, option=orjson.OPT_SORT_KEYS).decode()
            row = {
                "task": part.name,
                "dataset_id": part.stored_id,
                "contract_json": text,
                "contract_sha256": hashlib.sha256(text.encode()).hexdigest(),
                "look": look,
                "created_at": utc_now(),
            }
            await store.insert("task_contracts", own | row)
        sql = "SELECT max(samples) FROM sample_plans WHERE exp_group_id = ? AND generation = ? AND dataset_id = ?"
        if part.samples > (reader.value(sql, *key, part.stored_id) or 0):
            row = {"dataset_id": part.stored_id, "samples": part.samples, "session_id": session_id}
            await store.insert("sample_plans", own | row | {"created_at": utc_now()})
