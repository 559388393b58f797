"""What a shard sends of a group's plan: its part of the entries or of the levels, without what is settled elsewhere.

Elsewhere is where the group's other databases are at hand: its own one, once something was merged or sent without
shards, and shards of another n. Shards of one n need not see each other.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from kvt_async.contract.errors import ConfigError, GuardError
from kvt_async.contract.formulas.shard_of import shard_of
from kvt_async.contract.labels import entry_of
from kvt_async.contract.settings import Settings
from kvt_async.contract.shards.shard import Shard, shard_databases
from kvt_async.contract.vocabulary import NODE_REPEATS
from kvt_async.records import Level, Run
from kvt_async.store.lock import holder
from kvt_async.store.reader import Reader
from kvt_async.sweep.plan import either
from kvt_async.ways.levels import make_levels
from kvt_async.ways.registry import way_of

NODE_ENTRIES = 50  # entries at which the servers of --shard-levels are compared, over all tasks
_CONTEXTS = """SELECT x.context_sha256 FROM manifest_entries e JOIN examples x ON x.dataset_id = e.dataset_id
    AND x.example_id = e.example_id WHERE e.dataset_id = ? ORDER BY e.seq"""
_FIRST_VERSION = "SELECT count(*) FROM manifest_entries WHERE dataset_id = ? AND version = 1"


@dataclass(frozen=True, slots=True)
class ShardPart:
    """`elsewhere`: databases in which requests of this shard may be settled already; `n_tasks` of the group."""

    shard: Shard
    elsewhere: tuple[Path, ...]
    n_tasks: int
    _entries: dict[str, bytearray] = field(default_factory=dict)  # by data set: 1 for each entry of the part

    def entries(self, reader: Reader, dataset_id: str, seed: int) -> bytearray:
        """One byte per entry of a manifest: 1 where this shard sends it. `seed`: the task's sampling.seed."""
        mask = self._entries.get(dataset_id)
        if mask is None:
            if self.shard.by == "levels":
                mask = bytearray(b"\1" * reader.n_entries(dataset_id))
            else:
                contexts = (row[0] for row in reader.rows(_CONTEXTS, dataset_id))
                mask = bytearray(i == self.shard.i for i in shard_of(contexts, self.shard.n, seed))
            self._entries[dataset_id] = mask
        return mask

    def entries_at(self, reader: Reader, run: Run, seed: int) -> bytearray:
        """The same for one level: where it compares the servers it is asked for a few entries only."""
        mask = self.entries(reader, run.dataset_id, seed)
        if run.level.repeat_idx <= NODE_REPEATS:
            return mask
        few = bytearray(len(mask))
        for seq in node_entries(reader, run.dataset_id, self.n_tasks, seed):
            few[seq] = 1
        return few

    def settled_elsewhere(self, run: Run, n: int, samples: int) -> bytearray:
        """One byte per answer, 1 where another database of the group has settled it; `n` entries."""
        whole = bytearray(n * samples)
        for db in self.elsewhere:
            with closing(Reader(db)) as reader:
                theirs = reader.value("SELECT count(*) FROM manifest_entries WHERE dataset_id = ?", run.dataset_id)
                settled = reader.settled(run.run_id, max(n, theirs), samples=samples)
                whole = either(whole, settled[: n * samples])
        return whole

    def begun_elsewhere(
        self, reader: Reader, run: Run, seed: int, states: Collection[str]
    ) -> Iterator[tuple[Path, list[str]]]:
        """Databases with the request_ids of this shard's part of a run that are in one of these states there."""
        wanted = self.entries_at(reader, run, seed)
        for db in self.elsewhere:
            with closing(Reader(db)) as other:
                ids = [each for each in other.in_states(run.run_id, states) if _holds(wanted, each)]
            if ids:
                yield db, ids


def _holds(mask: bytearray, request_id: str) -> bool:
    seq, _ = entry_of(request_id)
    return seq < len(mask) and bool(mask[seq])


def node_entries(reader: Reader, dataset_id: str, n_tasks: int, seed: int) -> list[int]:
    """seq of the entries at which every shard of --shard-levels answers full cache: the same in all, drawn with `seed`
    from the manifest's first version; a task's share of NODE_ENTRIES."""
    n = reader.value(_FIRST_VERSION, dataset_id)
    drawn = sorted(range(n), key=lambda seq: hashlib.sha256(f"{seed}:node:{seq}".encode()).digest())
    return sorted(drawn[: -(-NODE_ENTRIES // n_tasks)])


def part_of_group(shard: Shard, beside: Sequence[Path], n_tasks: int) -> ShardPart:
    """The part of a shard. `beside`: the group's other databases; of the entries' shards, those of one n share none."""
    apart = f"-of-{shard.n}.sqlite" if shard.by == "entries" else "\0"
    return ShardPart(shard, tuple(db for db in beside if not db.name.endswith(apart)), n_tasks)


def refuse_beside_others(own: Path, shard: Shard) -> None:
    """Raises GuardError where a runner is at work that may send the same requests, and ConfigError where shards of this
    n were made by the other rule."""
    for db in (own, *shard_databases(own)):
        is_sibling = db.name.endswith(f"-of-{shard.n}.sqlite")
        if not is_sibling and (at_work := holder(db)) is not None:
            raise GuardError(
                f"another runner sends this group in other parts: {at_work}",
                where=str(db),
                do=f"Wait for it or stop it; then {shard} sends what is left.",
            )
        if is_sibling and (by := _sent_by(db)) is not None and by != shard.by:
            option = "--shard-levels" if by == "levels" else "--shard"
            raise ConfigError(
                f"{db.name} was made with {option}; parts of one number are made by one rule",
                where=str(db),
                do=f"Pass {option} {shard.i}/{shard.n}, or take another number of parts.",
            )


def _sent_by(db: Path) -> str | None:
    """By which rule a shard was made; None: no level was begun in it."""
    try:
        with closing(Reader(db)) as reader:
            most = reader.value("SELECT max(repeat_idx) FROM runs")
    except GuardError:  # no database yet
        return None
    return None if most is None else "levels" if most > NODE_REPEATS else "entries"


def levels_of(settings: Settings, shard: Shard | None) -> list[Level]:
    """The levels of a config; a shard of levels also has a repeat of full cache of its own."""
    levels = list(make_levels(settings).levels)
    if shard is None or shard.by != "levels":
        return levels
    return [*(replace(full, repeat_idx=NODE_REPEATS + shard.i) for full in levels[:1] if full.is_full), *levels]


def levels_sent(settings: Settings, runs: Sequence[Run], shard: Shard) -> set[tuple[str, float, str, int]]:
    """Keys (series, budget, unit, repeat) of the levels that a shard of levels sends, of all that the config has.

    Levels of one server stay together, as do full cache and its repeats. Servers are dealt in order, each to the shard
    that has fewest levels so far. Raises ConfigError where there are more shards than servers.
    """
    levels = [run for run in runs if run.level.repeat_idx <= NODE_REPEATS]
    way = way_of(settings.kv.apply.via)
    servers = [[run] for run in levels] if way.one_server else way.groups(settings, levels)
    groups: list[list[Run]] = []
    for served in servers:
        first = next((group for group in groups if any(run.level.is_full for run in group)), None)
        if first is not None and all(run.level.is_full for run in served):
            first += served
        else:
            groups.append(list(served))
    if shard.n > len(groups):
        raise ConfigError(
            f"{shard.n} shards, but there are {len(groups)} groups of levels that could be served apart",
            where="--shard-levels",
            do=f"Use at most {len(groups)} shards, or --shard, which splits the entries.",
        )
    weights, sent = [0] * shard.n, set[tuple[str, float, str, int]]()
    for group in groups:
        to = weights.index(min(weights))
        weights[to] += len(group)
        if to == shard.i - 1:
            sent |= {key_of(run.level) for run in group}
    return sent


def key_of(level: Level) -> tuple[str, float, str, int]:
    """What tells a level of a task from its others."""
    return level.series, level.budget, level.unit, level.repeat_idx


def together(shard: Shard, settings: Settings) -> str:
    """What all shards may send at once, as a sentence: nothing divides the limits between them."""
    n, limits = shard.n, settings.limits
    parts = [f"{n} x {limits.concurrency:,} = {n * limits.concurrency:,} requests in flight"]
    for what, limit in (("requests", limits.requests_per_minute), ("tokens", limits.tokens_per_minute)):
        if limit is not None:
            parts.append(f"{n} x {limit:,.12g} = {n * limit:,.12g} {what} a minute")
    return (
        f"{shard}: the limits are each shard's own. {n} shards at once may send {' and '.join(parts)}; where one "
        f"server serves them all, divide limits by {n}"
    )
