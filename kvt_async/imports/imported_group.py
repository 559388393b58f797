"""Logs of other tools -> the facts of a group, in one transaction: all levels that were given, or none."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex

import orjson

from kvt_async.clock import utc_now
from kvt_async.contract.errors import ContractMismatchError
from kvt_async.contract.paths import run_paths
from kvt_async.contract.schema import connect_for_writing
from kvt_async.contract.schema_tables import columns_of
from kvt_async.contract.settings import Settings
from kvt_async.contract.waiting import transaction
from kvt_async.imports.foreign_log import ForeignAnswer, ForeignLog
from kvt_async.imports.imported_rows import (
    FROM,
    ImportSession,
    Row,
    answer_rows,
    experiment_row,
    run_row,
    session_end_row,
    session_row,
    task_rows,
)
from kvt_async.imports.imported_tasks import ImportedTask, compare, tasks_of
from kvt_async.records import Level
from kvt_async.session.experiment_rows import command_line, make_run_id
from kvt_async.store.lock import hold


@dataclass(frozen=True, slots=True)
class ImportedRun:
    """What came of one log: answers taken, their mean, and what the tool itself prints."""

    level: str
    task: str
    measure: str
    n: int
    n_failed: int
    mean: float
    own_mean: float | None  # None: the log doesn't hold it, or only a part of it was taken
    path: str
    is_new: bool

    @property
    def agrees(self) -> bool | None:
        """Whether the means are equal; None: there is no other."""
        return None if self.own_mean is None else abs(self.mean - self.own_mean) <= 1e-9


def import_logs(
    settings: Settings, logs: Sequence[tuple[Level, Sequence[ForeignLog]]], say: Callable[[str], None]
) -> list[ImportedRun]:
    """Write the logs of every level into the group of `settings`, which is made where there is none. A level that is
    there with the same answers is left alone.

    Raises ConfigError where levels have no task in common, answer other prompts, or a score is none;
    ContractMismatchError where the group holds other data, or a level that was imported from another file.
    """
    tasks = tasks_of(logs)
    for task in tasks:
        compare(task, say)
    decoding = settings.decoding.model_copy(update={"samples": max(task.epochs for task in tasks)})
    settings = settings.model_copy(update={"decoding": decoding})
    paths = run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path)
    paths.run_dir.mkdir(parents=True, exist_ok=True)
    session_id = f"{utc_now()[:19].replace('-', '').replace(':', '')}-{token_hex(4)}"
    with (
        hold(paths.db, command_line(settings), utc_now()),
        closing(connect_for_writing(paths.db)) as conn,
        transaction(conn, paths.db),
    ):
        writer = _Writer(conn, ImportSession(settings.experiment.exp_group_id, session_id), tasks, paths.db)
        writer.refuse_others()
        return writer.write(settings)


@dataclass(frozen=True, slots=True)
class _Writer:
    conn: sqlite3.Connection
    session: ImportSession
    tasks: Sequence[ImportedTask]
    db: Path

    def refuse_others(self) -> None:
        """Raises ContractMismatchError where the group was swept, or holds other tasks."""
        group, sql = self.session.group, "SELECT contract_json FROM experiments WHERE exp_group_id = ?"
        contract = self.conn.execute(sql, (group,)).fetchone()
        if contract is None:
            return
        if FROM not in orjson.loads(contract[0]):
            raise ContractMismatchError(
                f"{group} was not imported: its answers were sent by kvt",
                where=str(self.db),
                do="Import under another --group.",
            )
        sql = "SELECT task, dataset_id FROM task_contracts WHERE exp_group_id = ?"
        stored, given = dict(self.conn.execute(sql, (group,))), {task.name: task.dataset_id for task in self.tasks}
        if stored == given:
            return
        raise ContractMismatchError(
            f"{group} holds other data; nothing was imported",
            where=str(self.db),
            details=tuple(
                f"{name}   stored {stored.get(name, 'nothing')}   given {given.get(name, 'nothing')}"
                for name in sorted({*stored, *given})
                if stored.get(name) != given.get(name)
            ),
            do="A level that lacks examples changes what is compared: import all levels together under a new --group, "
            "or choose the same task, metric and filter.",
        )

    def write(self, settings: Settings) -> list[ImportedRun]:
        sql = "SELECT 1 FROM experiments WHERE exp_group_id = ?"
        is_first = not self.conn.execute(sql, (self.session.group,)).fetchone()
        if is_first:
            self._insert(experiment_row(self.session, self.tasks[0].first.tool_name, settings.model.name))
        self._insert(session_row(self.session, settings, list(dict.fromkeys(self._notes()))))
        for task in self.tasks if is_first else ():
            for row in task_rows(self.session, task):
                self._insert(row)
        done = [self._run(task, level, log) for task in self.tasks for level, log in task.logs]
        self._insert(session_end_row(self.session))
        return done

    def _notes(self) -> Iterator[str]:
        """What a reader of the report is to know of where its numbers come from."""
        for task in self.tasks:
            for _, log in task.logs:
                yield (
                    f"{task.name}: imported from {log.tool}, which gave the scores ({log.measure}). When and how it "
                    "sent its requests is not known, nor what the server said; that budgets were applied is the "
                    "importer's word."
                )
                yield from log.notes
            if task.left_out:
                yield f"{task.name}: {task.left_out} examples were not in the files of all levels and were left out."

    def _run(self, task: ImportedTask, level: Level, log: ForeignLog) -> ImportedRun:
        """Write the run of a log with its answers, or find that it is there."""
        run_id = make_run_id(self.session.group, 1, level, task.dataset_id, task.name if len(self.tasks) > 1 else "")
        is_new = not self.conn.execute("SELECT 1 FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        if is_new:
            sql = "SELECT count(DISTINCT series || ' ' || kv_budget || ' ' || repeat_idx) FROM runs WHERE run_id <> ?"
            (level_idx,) = self.conn.execute(sql, (run_id,)).fetchone()
            self._insert(run_row(self.session, run_id, task.dataset_id, replace(level, level_idx=level_idx), log))
        seqs, scores, n_failed = {name: seq for seq, name in enumerate(task.questions)}, [], 0
        for answer in log.answers():
            if answer.example_id not in seqs or answer.epoch >= task.epochs:
                continue
            n_failed += answer.score is None
            scores.append(answer.score or 0.0)
            request_id = f"{run_id}:{seqs[answer.example_id]}" + (f".{answer.epoch}" if answer.epoch else "")
            if is_new:
                for row in answer_rows(self.session, request_id, answer, level, log):
                    self._insert(row)
            elif not self._has(request_id, answer):
                raise ContractMismatchError(
                    f"{level.label} of {self.session.group} was imported from a file with other answers",
                    where=str(log.path),
                    details=(f"example {answer.example_id} differs",),
                    do="Import it under another --group, or as a repeat or another series.",
                )
        return ImportedRun(
            level=level.label,
            task=task.name,
            measure=log.measure,
            n=len(scores),
            n_failed=n_failed,
            mean=sum(scores) / len(scores),
            own_mean=None if task.left_out else log.mean,
            path=str(log.path),
            is_new=is_new,
        )

    def _has(self, request_id: str, answer: ForeignAnswer) -> bool:
        """Whether this very answer is stored."""
        sql = "SELECT text, json_extract(usage_json, '$.given.score') FROM responses WHERE request_id = ?"
        row = self.conn.execute(sql, (request_id,)).fetchone()
        return row is None if answer.score is None else row == (answer.text, answer.score)

    def _insert(self, row: Row) -> None:
        table, values = row
        names = [name for name in columns_of(table) if name in values]
        marks = ", ".join(f":{name}" for name in names)
        self.conn.execute(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", values)
