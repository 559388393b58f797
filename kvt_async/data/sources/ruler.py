"""ruler: synthetic long-context tasks. The names are known; the generator is not there yet."""

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.settings import Settings
from kvt_async.data.sources.source import Source, did_you_mean

TASKS = {
    "niah_single_1": "one number hidden in repeated noise sentences",
    "niah_single_2": "one number hidden in essays",
    "niah_single_3": "one UUID hidden in essays",
    "niah_multikey_1": "one of 4 keys in essays",
    "niah_multikey_2": "one of many keys: the haystack is needles, numbers",
    "niah_multikey_3": "one of many keys: the haystack is needles, UUIDs",
    "niah_multivalue": "4 values of one key",
    "niah_multiquery": "4 keys asked at once",
    "vt": "variables that get one value over 4 hops",
    "cwe": "the 10 most common words of a list",
    "fwe": "the 3 most frequent coded words (Zipf)",
    "qa_1": "SQuAD questions among distractor passages",
    "qa_2": "HotpotQA questions among distractor passages",
}


def check(settings: Settings) -> None:
    if settings.dataset.task not in TASKS:
        raise ConfigError(
            f"ruler has no task {settings.dataset.task!r}",
            where="dataset.task",
            do=did_you_mean(settings.dataset.task, tuple(TASKS)),
        )


def open_source(settings: Settings) -> Source:
    check(settings)
    raise ConfigError(
        f"this version can't generate ruler data yet (task {settings.dataset.task})",
        where="dataset.name",
        do="Use kvtext, longbench or jsonl; RULER rows made elsewhere load as jsonl.",
    )
