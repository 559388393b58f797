"""Sources that are made, not read: kvtext (the demo's retrieval text) and ruler."""

import math
from collections.abc import Iterator

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.metric_needs import check_known
from kvt_async.contract.settings import Settings
from kvt_async.data.sources.source import ExampleSource, Row, check_most, check_params, did_you_mean

KVTEXT_REVISION = "kvtext-1"  # raise it when generate() makes other text from the same arguments
KVTEXT_METRIC = "em"  # two-token answers: either right or wrong
RECITE_METRIC = "string_match_all"  # long ones: the share of items that are right
_COUNTS = ("contexts", "questions_per_context", "earlier_turns", "keys", "value_tokens")
_INTEGERS = (*_COUNTS, "min_tokens", "max_tokens", "seed")
KVTEXT_PARAMS = (*_INTEGERS, "density", "metric")


def check_kvtext(settings: Settings) -> None:
    from kvt_async.data.sources.kvtext import TASKS

    params = settings.dataset.params
    if settings.dataset.task_key not in TASKS:
        raise ConfigError(
            f"kvtext has no task {settings.dataset.task_key!r}",
            where="dataset.task",
            do=did_you_mean(settings.dataset.task_key, tuple(TASKS)),
        )
    if settings.dataset.path is not None:
        raise ConfigError("kvtext is generated and reads no file", where="dataset.path", do="Leave dataset.path null.")
    check_params(params, KVTEXT_PARAMS, "kvtext")
    check_known(_metric(settings), "dataset.params.metric")
    for key, value in params.items():
        if key == "metric":
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or (key in _INTEGERS and not isinstance(value, int)):
            wants = "a whole number" if key in _INTEGERS else "a number"
            raise ConfigError(f"{key} must be {wants}, not {value!r}", where=f"dataset.params.{key}")
        if key != "seed":
            check_most(key, value)


def open_kvtext(settings: Settings) -> ExampleSource:
    """`dataset.params` are the arguments of generate(); contexts defaults to what fills every bin."""
    check_kvtext(settings)
    from kvt_async.data.sources.kvtext import generate

    params = {key: value for key, value in settings.dataset.params.items() if key != "metric"}
    if "contexts" not in params:
        wanted = settings.binning.n_bins * settings.binning.n_per_bin
        params["contexts"] = math.ceil(wanted / max(1, params.get("questions_per_context", 1)))
    task = settings.dataset.task_key

    def rows() -> Iterator[Row]:
        for number, example in enumerate(generate(task, **params)):
            yield Row(example, f"kvtext {task} #{number}")

    return ExampleSource(KVTEXT_REVISION, _metric(settings), rows)


def _metric(settings: Settings) -> str:
    own = RECITE_METRIC if settings.dataset.task_key == "recite" else KVTEXT_METRIC
    return str(settings.dataset.params.get("metric", own))
