"""`kvt prepare`: decide whether a manifest stands, must be made, may grow or is refused; say what came of it."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kvt_async.contract.errors import ConfigError, ContractMismatchError, GuardError
from kvt_async.contract.files import sweep
from kvt_async.contract.formulas.length_names import AskedLengths, length_name, span_name
from kvt_async.contract.formulas.metric_needs import BFCL_AST, TOOL_CALL
from kvt_async.contract.formulas.prompt_text import check_template
from kvt_async.contract.paths import data_path, manifest_path, run_paths
from kvt_async.contract.settings import Settings
from kvt_async.data.example_prompt import NOT_CONTRACT, prompt_rule
from kvt_async.data.focus import BinState, allot, read_open_zone
from kvt_async.data.identity import dataset_id, selection_rule
from kvt_async.data.manifest import ManifestHead, read_head
from kvt_async.data.manifest_builder import Ingredients, Progress, RowTally, grow_manifest, make_manifest
from kvt_async.data.sources import asked_lengths, binned_by, check_metric, check_source, open_source
from kvt_async.data.tokens import PromptTokenizer, check_tokenizer, load_tokenizer

Report = Callable[[str], None]
Grow = Callable[[ManifestHead], Mapping[int, int]]
"""Where to add: the manifest so far -> bin_idx -> how many more of its examples (focus_transition)."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The manifest that now lies at `path`. `skipped`: it was there already and nothing was tokenised."""

    dataset_id: str
    path: Path
    head: ManifestHead
    skipped: bool
    kept: Path | None = None  # the earlier manifest that force moved aside

    @property
    def n_entries(self) -> int:
        return self.head.n_entries

    @property
    def per_bin(self) -> dict[int, int]:
        return {row["bin_idx"]: row["n"] for row in self.head.bins}


def check_data(settings: Settings) -> None:
    """What can be known about the data of one task before they are opened: the config, and whether files are there.

    Creates nothing. Raises ConfigError.
    """
    dataset_id(settings)
    check_source(settings)
    binned_by(settings)
    check_metric(settings)
    check_tokenizer(settings)
    if settings.prompt.template is not None:
        check_template(settings.prompt.template)
    if settings.dataset.path is not None and not data_path(settings.dataset.path).exists():
        raise ConfigError(
            "there is no such file or folder",
            where=f"dataset.path {settings.dataset.path}",
            do="Relative paths are from the working directory.",
        )


def prepare(
    settings: Settings,
    *,
    force: bool = False,
    report: Report = print,
    progress: Progress = lambda _: None,
    grow: Grow | None = None,
    taken: Callable[[str], bool] = lambda _: False,
) -> Prepared:
    """Make manifest.json, or find that it stands. `report` gets plain lines. A standing one is not hashed again where
    `taken` says of its SHA-256 that a database has all of it.

    With sampling.strategy focus_transition a standing manifest grows: `grow` says by how many examples in each bin;
    by default where the group's analysis of all its entries left the zone open, by n_bins x n_per_bin in total.

    Raises ConfigError for bad data or config; ContractMismatchError where a manifest of this dataset_id was made from
    other data, with another tokenizer, template or selection, unless `force`, which keeps it as manifest.<sha8>.json;
    GuardError where it is damaged, `force` again aside.
    """
    name = dataset_id(settings)
    path = manifest_path(settings.output.data_dir, name)
    for pattern in (".prepare-*", f".{path.name}.*"):  # of processes that were killed
        sweep(path.parent, pattern)
    source, tokenizer = open_source(settings), load_tokenizer(settings)
    ingredients = Ingredients(source, prompt_rule(settings, source, tokenizer), tokenizer, progress)
    settled = _settled_fields(settings, name, ingredients)
    grows = grow is not None or settings.sampling.strategy == "focus_transition"  # from what the file holds
    existing = _existing(path, (lambda _: False) if grows else taken, force=force)
    differences = _differences(existing, settled) if existing else ()
    if existing and not differences:
        return _stands(settings, path, existing, ingredients, grow, report)
    if differences and not force:
        raise ContractMismatchError(
            f"{name} was prepared under another contract; nothing was changed",
            where=str(path),
            details=differences,
            do="Undo the change in the config, or pass --force: the old file is kept beside as manifest.<sha8>.json.",
        )
    for note in (*source.notes, *_template_notes(settings, tokenizer)):
        report(note)
    kept = _kept_copy(path, existing)
    head, tally = make_manifest(path, settled, settings, ingredients)
    for line in [
        *source.remarks,
        *_remarks(tally, head),
        *_summary(head, path, tally.spans, asked_lengths(settings)),
        *([f"the earlier one: {kept}"] if kept else []),
    ]:
        report(line)
    return Prepared(name, path, head, skipped=False, kept=kept)


def _template_notes(settings: Settings, tokenizer: PromptTokenizer) -> tuple[str, ...]:
    """What the chat template does to prompts that nobody would expect."""
    if settings.prompt.endpoint != "chat":
        return ()
    if settings.prompt.system is None or tokenizer.chat is None or not tokenizer.chat.drops_system():
        return tokenizer.notes
    return (*tokenizer.notes, "the chat template leaves prompt.system out: it is neither counted nor read")


def _stands(
    settings: Settings, path: Path, existing: ManifestHead, ingredients: Ingredients, grow: Grow | None, report: Report
) -> Prepared:
    name, more = existing.dataset_id, {}
    if grow is None and settings.sampling.strategy == "focus_transition":
        more = _focused(settings, existing, report)
    elif grow is not None:
        if settings.sampling.strategy != "focus_transition":
            raise ConfigError(
                f"a manifest made by {settings.sampling.strategy} can't grow",
                where="sampling.strategy",
                do="Set sampling.strategy: focus_transition under a new experiment.exp_group_id.",
            )
        more = {idx: n for idx, n in grow(existing).items() if n > 0}
    if not more:
        report(f"{name}: already prepared, {_entries(existing)}; nothing was tokenised ({path})")
        return Prepared(name, path, existing, skipped=True)
    head = grow_manifest(path, existing, more, ingredients)
    if head is None:
        report(f"{name}: no examples are left in the bins that should grow ({path})")
        return Prepared(name, path, existing, skipped=True)
    report(f"{name}: version {head.version}, {head.n_entries - existing.n_entries} entries added ({path})")
    return Prepared(name, path, head, skipped=False)


def _focused(settings: Settings, existing: ManifestHead, report: Report) -> dict[int, int]:
    """Where the group's last analysis wants more examples; none before it, and none twice for one analysis."""
    paths = run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path)
    in_bin = {row["bin_idx"]: row["n"] for row in existing.bins}
    zone = read_open_zone(paths.db, settings.experiment.exp_group_id, existing.version, existing.sha256, in_bin)
    if zone is None:
        return {}
    if not zone.open_budgets:
        report(f"{existing.dataset_id}: the zone over all bins is settled; more examples would not narrow it")
        return {}
    states = {row["bin_idx"]: BinState(*_units(row), zone.spread.get(row["bin_idx"], 1.0)) for row in existing.bins}
    more = allot(states, existing.n_bins * existing.n_per_bin)
    if not more:
        report(f"{existing.dataset_id}: the source has no more examples")
        return {}
    at = ", ".join(f"{budget:g}" for budget in zone.open_budgets)
    grown = ", ".join(f"bin {b} +{n}" for b, n in more.items())
    report(f"{existing.dataset_id}: the zone is open at {at}; look {existing.version + 1}: {grown}")
    return more


def _settled_fields(settings: Settings, name: str, ingredients: Ingredients) -> dict[str, object]:
    """The part of the head that is settled before any row is read: equal = the manifest stands."""
    return {
        "dataset_id": name,
        "name": settings.dataset.name,
        "task": settings.dataset.task_key,
        "source_revision": ingredients.source.revision,
        "metric": ingredients.source.metric,
        "tokenizer_name": ingredients.tokenizer.name,
        "tokenizer_sha256": ingredients.tokenizer.sha256,
        "prompt": ingredients.rule.as_json(),
        "selection": selection_rule(settings),
    }


def _existing(path: Path, taken: Callable[[str], bool], *, force: bool) -> ManifestHead | None:
    if not path.exists():
        return None
    try:
        head = read_head(path, verify=False)
        return head if taken(head.sha256) else read_head(path)
    except GuardError:
        if force:
            return None
        raise


def _differences(existing: ManifestHead, settled: Mapping[str, object]) -> tuple[str, ...]:
    stored, wanted = _flat({key: getattr(existing, key) for key in settled}), _flat(settled)
    for key in NOT_CONTRACT:
        stored.pop(f"prompt.{key}", None), wanted.pop(f"prompt.{key}", None)
    return tuple(
        f"{key}   stored {_short(stored.get(key))}   asked {_short(wanted.get(key))}"
        for key in sorted({*stored, *wanted})
        if stored.get(key) != wanted.get(key)
    )


def _flat(values: Mapping[str, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": v for inner, v in value.items()})
        else:
            flat[key] = value
    return flat


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-12:]}"


def _kept_copy(path: Path, existing: ManifestHead | None) -> Path | None:
    """A second name for the file that is about to be replaced; it never goes missing in between."""
    if not path.exists():
        return None
    if existing is not None:
        sha256 = existing.sha256
    else:  # damaged: what it says of itself can't be trusted
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    kept = path.with_name(f"manifest.{sha256[:8]}.json")
    with contextlib.suppress(FileExistsError):
        try:
            os.link(path, kept)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            shutil.copy2(path, kept)
    return kept


def _remarks(tally: RowTally, head: ManifestHead) -> list[str]:
    lines = [*tally.of_golds]
    if tally.no_context:
        lines.append(f"{tally.no_context} of {tally.rows} examples have an empty context")
    if tally.no_answers:
        empty_is_right = head.metric in ("em", "f1", "squad_em", "squad_f1")
        scored = "only an empty answer is right" if empty_is_right else "they can only score 0"
        if head.metric == TOOL_CALL:
            scored = "only to make no call is right"
        if head.metric == BFCL_AST:
            scored = "only to make no call is right, or under live_relevance any call"
        lines.append(f"{tally.no_answers} of {tally.rows} examples have no answers: {scored}")
    if tally.tools:
        lines.append(f"{tally.tools} of {tally.rows} rows offer tools: {tally.tools_counted}")
    if tally.cut:
        limit = head.prompt["max_context_tokens"]
        lines.append(f"{tally.cut} of {tally.rows} prompts had more than {limit} tokens and were cut in the middle")
    outside = tally.rows - sum(row["n_available"] for row in head.bins)
    if outside:
        lines.append(f"{outside} of {tally.rows} examples lie outside binning.edges and were left out")
    whole = "conversations" if tally.conversations else "examples"
    lines += [
        f"bin {row['bin_idx']}: {_units(row)[0]} {whole}, {head.n_per_bin} asked; there are no more"
        for row in head.bins
        if _units(row)[0] < head.n_per_bin
    ]
    return lines


def _summary(
    head: ManifestHead, path: Path, spans: Mapping[int, tuple[int, int]], asked: AskedLengths | None
) -> list[str]:
    """Each bin by the prompts that are in it; one without any by its edges."""
    shown = [spans.get(row["bin_idx"], (row["lo_tokens"], row["hi_tokens"])) for row in head.bins]
    lengths = asked.of_bins(shown) if asked else None
    lines = [f"{head.dataset_id}: {_entries(head)} of {head.n_source} examples in {head.n_bins} bins ({path})"]
    for place, (row, (low, high)) in enumerate(zip(head.bins, shown, strict=True)):
        name = f"{length_name(lengths[place])}, " if lengths else ""
        tokens = f"{span_name(low, high)} tokens" if low <= high else "no length"
        tokens = tokens if row["n"] else f"empty ({tokens})"
        chosen = f"{row['n']} of {row['n_available']}"
        if "conversations" in row:
            whole = f"{row['conversations']} of {row['conversations_available']}"
            chosen = f"{whole} conversations, {chosen} turns"
        lines.append(f"  bin {row['bin_idx']}: {name}{tokens}, {chosen}")
    return lines


def _entries(head: ManifestHead) -> str:
    conversations = sum(row.get("conversations", 0) for row in head.bins)
    return f"{head.n_entries} entries" + (f" ({conversations} conversations)" if conversations else "")


def _units(row: Mapping[str, int]) -> tuple[int, int]:
    """What binning.n_per_bin counts in a bin: taken, and in the source. Conversations where the data have some."""
    if "conversations" in row:
        return row["conversations"], row["conversations_available"]
    return row["n"], row["n_available"]
