"""Making a manifest from a source, and growing one: count, bin, choose, write.

Memory is flat in the number of examples: they are counted in batches, wait in a temporary SQLite file beside the
manifest, and are written from there; only lengths, ids of chosen examples and one batch are held.
"""

import contextlib
import errno
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kvt_async.contract.errors import ConfigError, StoreError
from kvt_async.contract.files import scratch_folder
from kvt_async.contract.formulas.conversation import unit_of
from kvt_async.contract.formulas.prompt_text import tool_fields
from kvt_async.contract.local_faults import file_error
from kvt_async.contract.settings import Settings
from kvt_async.data import bins
from kvt_async.data.batches import batches
from kvt_async.data.conversations import whole_conversations
from kvt_async.data.count import count_batch
from kvt_async.data.example_prompt import PromptRule, tools_counted
from kvt_async.data.golds import GoldCheck
from kvt_async.data.manifest import ManifestEntry, ManifestHead, read_items, write_manifest
from kvt_async.data.sources import ExampleSource, asked_lengths, binned_by
from kvt_async.data.spool import Spool
from kvt_async.data.tokens import PromptTokenizer
from kvt_async.records import Example

Progress = Callable[[int], None]
"""Called with the number of rows counted so far."""


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What turns rows into counted examples."""

    source: ExampleSource
    rule: PromptRule
    tokenizer: PromptTokenizer
    progress: Progress


@dataclass(slots=True)
class RowTally:
    """What is worth saying about the rows once they are counted."""

    rows: int = 0
    conversations: int = 0  # 0: none; a row that is no turn is not among them
    no_context: int = 0
    no_answers: int = 0
    cut: int = 0
    tools: int = 0  # rows that offer tools
    tools_counted: str = ""
    of_golds: list[str] = field(default_factory=list)
    spans: dict[int, tuple[int, int]] = field(default_factory=dict)  # bin_idx -> its shortest and longest chosen prompt


def make_manifest(
    path: Path, settled: Mapping[str, Any], settings: Settings, ingredients: Ingredients
) -> tuple[ManifestHead, RowTally]:
    """Write version 1. `settled` are the fields of the head that config and source settle before any row is read.

    Raises ConfigError when there are no examples, none within explicit edges, or golds that can't be scored.
    """
    binning, sampling, tally = settings.binning, settings.sampling, RowTally()
    golds = GoldCheck(ingredients.source.metric, ingredients.source.published)
    with _spool_beside(path) as spool:
        _fill(spool, ingredients, tally, golds)
        tally.of_golds = golds.remarks()
        tally.tools_counted = tools_counted(ingredients.rule, ingredients.tokenizer) if tally.tools else ""
        if not tally.rows:
            where = settings.dataset.path or f"{settings.dataset.name} {settings.dataset.task}"
            params = ", ".join(name for name in settings.dataset.params if name != "metric")
            filters = f", and whether dataset.params ({params}) leaves all rows out" if params else ""
            do = f"Check dataset.path and dataset.task{filters}."
            raise ConfigError("the source holds no examples", where=where, do=do)
        tally.conversations = spool.n_conversations
        lengths = spool.group()
        edges = _edges(settings, lengths.units)
        available = bins.counts(lengths.examples, edges)
        units = bins.counts(lengths.units, edges)
        chosen: list[tuple[str, int, int]] = []
        rows = []
        for row in bins.bins_of(edges):
            within = spool.candidates(row.lo_tokens, row.hi_tokens)
            taken = bins.choose(within, binning.n_per_bin, sampling.strategy, sampling.seed)
            examples = [example for unit in taken for example in spool.examples_of(unit)]
            chosen += [(c.example_id, row.bin_idx, 1) for c in examples]
            if examples:
                of_prompts = [c.token_len for c in examples]
                tally.spans[row.bin_idx] = (min(of_prompts), max(of_prompts))
            counted = {"n": len(examples), "n_available": available[row.bin_idx]}
            if spool.n_conversations:
                counted |= {"conversations": len(taken), "conversations_available": units[row.bin_idx]}
            rows.append({**asdict(row), **counted})
        if not chosen:
            raise ConfigError(
                f"none of {tally.rows} examples has a length within the edges {edges}",
                where="binning.edges",
                details=(f"their prompts have {min(lengths.units)} to {max(lengths.units)} tokens",),
                do="Change binning.edges, or set it to null.",
            )
        head = ManifestHead(
            **settled,
            n_bins=len(rows),
            n_per_bin=binning.n_per_bin,
            bin_edges=list(edges),
            bins=rows,
            n_source=tally.rows,
            n_entries=len(chosen),
        )
        return replace(head, sha256=write_manifest(path, head, spool.items(chosen))), tally


def _edges(settings: Settings, histogram: Mapping[int, int]) -> list[int]:
    """binning.edges; else one bin of each length that was asked for, where binning.by says so; else quantiles.

    As many quantile bins as lengths are one of each length, unless a length has no examples: then its bin is empty.
    """
    binning = settings.binning
    if binning.edges is not None:
        return binning.edges
    if (lengths := binned_by(settings)) is not None:
        return lengths.edges()
    asked = asked_lengths(settings) if binning.by is None else None
    if asked and binning.n_bins == len(asked.lengths) and 0 in bins.counts(histogram, asked.edges()):
        return asked.edges()
    return bins.quantile_edges(histogram, binning.n_bins)


def grow_manifest(
    path: Path, earlier: ManifestHead, more: Mapping[int, int], ingredients: Ingredients
) -> ManifestHead | None:
    """Write the next version: every old entry, then up to `more[bin_idx]` new ones of each bin. None: none were left.

    dataset_id and edges stay. New entries continue the seeded order that the first ones were taken in.
    """
    version, seed = earlier.version + 1, int(earlier.selection["seed"])
    have = [unit_of(example.example_id, example.meta) for _, example in read_items(path)]
    added: list[tuple[str, int, int]] = []
    rows = [dict(row) for row in earlier.bins]
    with _spool_beside(path) as spool:
        _fill(spool, ingredients, RowTally(), None)  # its golds were checked when version 1 was made
        spool.group()
        for row in rows:
            within = spool.candidates(row["lo_tokens"], row["hi_tokens"], without=have)
            taken = bins.choose(within, more.get(row["bin_idx"], 0), "focus_transition", seed)
            examples = [example for unit in taken for example in spool.examples_of(unit)]
            added += [(c.example_id, row["bin_idx"], version) for c in examples]
            row["n"] += len(examples)
            if "conversations" in row:
                row["conversations"] += len(taken)
        if not added:
            return None
        before = {"version": earlier.version, "n_entries": earlier.n_entries, "sha256": earlier.sha256}
        head = replace(
            earlier,
            bins=rows,
            n_entries=earlier.n_entries + len(added),
            version=version,
            earlier=[*earlier.earlier, before],
            sha256="",
        )

        def items() -> Iterator[tuple[ManifestEntry, Example]]:
            yield from read_items(path)
            yield from spool.items(added)

        return replace(head, sha256=write_manifest(path, head, items()))


def _fill(spool: Spool, ingredients: Ingredients, tally: RowTally, golds: GoldCheck | None) -> None:
    for batch in batches(whole_conversations(ingredients.source.rows()), lambda row: row.example):
        counted = count_batch(batch, ingredients.rule, ingredients.tokenizer)
        spool.add(counted)
        if golds is not None:
            golds.add(batch)
            tally.no_answers += sum(not row.example.answers for row in batch) if golds.reads_golds else 0
        tally.rows += len(batch)
        tally.no_context += sum(not row.example.context for row in batch)
        tally.cut += sum(c.truncated for c in counted)
        tally.tools += sum(bool(tool_fields(row.example.meta)) for row in batch)
        ingredients.progress(tally.rows)


@contextlib.contextmanager
def _spool_beside(path: Path) -> Iterator[Spool]:
    """On the manifest's own disk, which must hold the data anyway; a failure leaves no empty folder behind."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            scratch_folder(path.parent, ".prepare-") as folder,
            contextlib.closing(Spool(folder / "spool.sqlite")) as spool,
        ):
            yield spool
    except PermissionError as error:
        raise ConfigError(
            f"the manifest can't be written: {error.strerror}", where=str(path), do="Choose another output.data_dir."
        ) from None
    except sqlite3.OperationalError as error:  # the spool's: its disk is full, or fails
        raise StoreError(
            f"the examples can't be kept beside the manifest: {error}",
            where=str(path.parent),
            do="Free disk space there or choose another output.data_dir, then run the same command again.",
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS):
            raise  # reading the source has errors of its own
        raise file_error(error, "the manifest can't be written", path) from error
    finally:
        with contextlib.suppress(OSError):
            path.parent.rmdir()
