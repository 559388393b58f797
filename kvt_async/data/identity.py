"""What a dataset is called and what rule its examples were selected by."""

import hashlib
import re
from typing import Any

import orjson

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.settings import Binning, Dataset, PromptSettings, SamplingSettings, Settings, TokenizerSettings

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # the id is a folder name


def selection_rule(settings: Settings) -> dict[str, Any]:
    """`datasets.selection_json`: everything in the config that decides which examples are taken and how long they are
    counted, except name and task. A key that came later is in it only where it says something else than before.
    """
    rule = _rule(settings.dataset, settings.tokenizer, settings.prompt, settings.binning, settings.sampling)
    later: dict[str, Any] = {"by": settings.binning.by} if settings.binning.by == "asked_length" else {}
    if settings.prompt.answer_prefix is not None:
        later["answer_prefix"] = settings.prompt.answer_prefix
    return rule | later


def dataset_id(settings: Settings) -> str:
    """{name}__{task}, with __{hash8} of the selection rule unless that is the default."""
    name, task = settings.dataset.name, settings.dataset.task_key
    if not _SAFE.fullmatch(task):
        raise ConfigError(
            f"the task {task!r} can't be part of a folder name",
            where="dataset.task",
            do="Use letters, digits, dot, dash and underscore.",
        )
    rule = selection_rule(settings)
    if rule == _rule(Dataset(), TokenizerSettings(), PromptSettings(), Binning(), SamplingSettings()):
        return f"{name}__{task}"
    return f"{name}__{task}__{hashlib.sha256(orjson.dumps(rule, option=orjson.OPT_SORT_KEYS)).hexdigest()[:8]}"


def _rule(
    dataset: Dataset, tokenizer: TokenizerSettings, prompt: PromptSettings, binning: Binning, sampling: SamplingSettings
) -> dict[str, Any]:
    return {
        "path": dataset.path,
        "revision": dataset.revision,
        "params": dataset.params,
        "tokenizer": tokenizer.name,
        "template": prompt.template,
        "system": prompt.system,
        "endpoint": prompt.endpoint,
        "max_context_tokens": prompt.max_context_tokens,
        "n_bins": binning.n_bins,
        "n_per_bin": binning.n_per_bin,
        "edges": binning.edges,
        "strategy": sampling.strategy,
        "seed": sampling.seed,
    }
