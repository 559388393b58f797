"""Which entries of a manifest are turns of one conversation, and whether they can be sent as `workload` asks."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.labels import task_level
from kvt_async.contract.turn_settings import TurnSettings
from kvt_async.store.reader import Reader
from kvt_async.sweep.pending import SweepTask
from kvt_async.sweep.plan import Step

_NAMED = "SELECT 1 FROM examples WHERE dataset_id = ? AND example_id GLOB '*.t[1-9]*' LIMIT 1"  # from an index alone
_FIRST = """SELECT 1 FROM manifest_entries e JOIN examples x USING (dataset_id, example_id)
    WHERE e.dataset_id = ? AND e.seq < 16 AND instr(x.meta_json, '"conversation"') LIMIT 1"""
_TURNS = """SELECT e.seq, json_extract(x.meta_json, '$.conversation'), json_extract(x.meta_json, '$.turn'),
    ifnull(json_array_length(x.meta_json, '$.turns'), 0)
    FROM manifest_entries e JOIN examples x ON x.dataset_id = e.dataset_id AND x.example_id = e.example_id
    WHERE e.dataset_id = ? AND json_type(x.meta_json, '$.conversation') = 'text'
    AND json_type(x.meta_json, '$.turn') = 'integer' AND json_extract(x.meta_json, '$.turn') >= 0 ORDER BY e.seq"""


@dataclass(frozen=True, slots=True)
class Conversations:
    """By seq: `turn`, 0 where an entry is no turn of a conversation, and `first`, the entry that its conversation
    begins with, itself where it is none. Turns that are not asked for have no entry.

    `apart`: a conversation whose turns do not stand one behind the other; `without_history`: one with a turn that does
    not carry all turns before it. None: there is no such conversation.
    """

    turn: Sequence[int]
    first: Sequence[int]
    apart: str | None = None
    without_history: str | None = None


def read_conversations(reader: Reader, dataset_id: str) -> Conversations | None:
    """Those of a manifest; None where there are none. Other data sets cost a look into an index: later turns have ids
    that end with `.tN`; where a file names them otherwise, the first entries tell."""
    if not (reader.value(_NAMED, dataset_id) or reader.value(_FIRST, dataset_id)):
        return None
    n = reader.n_entries(dataset_id)
    turn, first = array("q", bytes(8 * n)), array("q", range(n))
    apart, without_history, begun = None, None, dict[str, int]()
    before: tuple[int, str, int] = (-2, "", -1)
    for seq, name, nth, n_earlier in reader.rows(_TURNS, dataset_id):
        turn[seq] = nth
        if before[:2] == (seq - 1, name) and nth > before[2]:
            first[seq] = first[seq - 1]
        elif name in begun:
            apart = apart or name
        begun.setdefault(name, seq)
        if n_earlier != nth:
            without_history = without_history or name
        before = (seq, name, nth)
    return Conversations(turn, first, apart, without_history) if any(turn) else None


def check_workload(reader: Reader, workload: TurnSettings, tasks: Sequence[SweepTask]) -> list[str]:
    """Notes about tasks that `workload` says nothing of. Raises ConfigError where it says nothing of any, and where a
    task's turns can't be sent as it asks.
    """
    if not workload.is_in_turns:
        return []
    key = "history" if workload.history == "own" else "reuse"
    asked = f"workload.{key}: {getattr(workload, key)}"
    without = []
    for task in tasks:
        conversations = read_conversations(reader, task.dataset_id)
        where = f"workload.{key} ({task.prepared.name})" if len(tasks) > 1 else f"workload.{key}"
        if conversations is None:
            without.append(task)
        elif conversations.apart is not None:
            raise ConfigError(
                f"the turns of conversation {conversations.apart} do not stand one behind the other in the manifest, "
                f"so {asked} can't send them in order",
                where=where,
                do="Prepare the data again under a new experiment.exp_group_id, or leave workload out.",
            )
        elif workload.history == "own" and conversations.without_history is not None:
            raise ConfigError(
                f"a later turn of conversation {conversations.without_history} does not carry the turns before it, so "
                "there is no history that could be the model's own",
                where=where,
                do="Set workload.history: golden, or a mode of the data set whose prompts hold the earlier turns.",
            )
    if len(without) == len(tasks):
        raise ConfigError(
            f"{getattr(workload, key)} is about conversations, and these data have none: no example is a later turn",
            where=f"workload.{key}",
            do="Leave workload out, or use data with conversations (a jsonl row with `conversation`, for one). Earlier "
            "turns that are part of a single prompt (meta.turns alone) are always sent as given.",
        )
    return [
        task_level(task.part.label or task.prepared.name, f"no conversations; {asked} makes no difference to it")
        for task in without
    ]


def chains(steps: Iterator[Step], first: Sequence[int], samples: int) -> Iterator[tuple[int, int, list[int]]]:
    """Steps of a plan -> (level, sample, entries) of each conversation, one conversation after the other: what is
    to be asked in this order."""
    for _, of_one in groupby(steps, key=lambda step: first[step[1] // samples]):
        entries: dict[tuple[int, int], list[int]] = {}
        for level, place in of_one:
            seq, sample = divmod(place, samples)
            entries.setdefault((level, sample), []).append(seq)
        for (level, sample), seqs in entries.items():
            yield level, sample, seqs
