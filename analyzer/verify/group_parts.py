"""`kvt verify` of a group that lies in several databases: each is checked by itself, and they must fit together.

What is derived from all of them can't be made again from one: a merge makes it checkable.
"""

from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

from analyzer.verify.differences import Findings
from analyzer.verify.verification import ANALYSED, Checked, verify, verify_facts
from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.shards.group_databases import GroupDatabase, group_databases
from kvt_async.contract.shards.shard import Shard
from kvt_async.contract.vocabulary import NODE_REPEATS

_DERIVED = "rows made from all parts of the group: `kvt merge` makes them checkable"
_SCORES = "scores that are held against answers in another part: `kvt merge` makes them checkable"


def verify_group(
    db: Path, data_dir: Path | None = None, progress: Callable[[str], None] = lambda _: None
) -> tuple[Findings, list[Checked]]:
    """Findings about the facts of every database of a group, and about what is derived from each alone.

    Raises ContractMismatchError and DriftError where they are not parts of one group, and as `verify` does.
    """
    members = group_databases(db)
    if members == (GroupDatabase(db),):
        return verify(db, data_dir, progress)
    facts, generations = Findings(), list[Checked]()
    for member in members:
        name = "its own database" if member.part is None else str(Shard(*member.part))
        if _is_of_levels(member.db):
            facts.merge(verify_facts(member.db, data_dir, progress))
            facts.cannot_check(_SCORES, _count(member.db, ["scores"]))
            continue
        of_facts, of_generations = verify(member.db, data_dir, progress)
        facts.merge(of_facts)
        for checked in of_generations:
            checked.part = name
        generations += of_generations
    n = sum(len(member.without) for member in members)
    if n:
        facts.notes.append(f"{n:,} requests are in several databases; the history that a merge would keep is read")
    if db.is_file() and not any(member.db == db for member in members):
        facts.cannot_check(_DERIVED, _count(db, ANALYSED))
    return facts, generations


def _is_of_levels(db: Path) -> bool:
    with closing(connect_for_reading(db)) as conn:
        return bool(conn.execute("SELECT 1 FROM runs WHERE repeat_idx > ? LIMIT 1", (NODE_REPEATS,)).fetchone())


def _count(db: Path, tables: Iterable[str]) -> int:
    with closing(connect_for_reading(db)) as conn:
        return sum(int(conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0]) for table in tables)
