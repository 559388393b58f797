"""Which of several models a request asks: drawn from (seed, repeat, place) by their weights, as its lengths are."""

from dataclasses import replace

import numpy as np

from kvt_async.bench.request_details import RequestDetails
from kvt_async.contract.bench_settings import Bench
from kvt_async.contract.settings import Settings

_MODEL = 21  # stream of draws


def with_model(bench: Bench, details: RequestDetails, repeat: int, seq: int) -> RequestDetails:
    """The details of a request with the model that it asks; as they are where there is one for all. A conversation
    keeps its model."""
    if not bench.models:
        return details
    place = seq if details.conversation_idx is None else details.conversation_idx
    rng = np.random.default_rng([bench.seed % 2**32, repeat, place, _MODEL])
    weights = np.array([model.weight for model in bench.models])
    return replace(details, model=bench.models[int(rng.choice(len(weights), p=weights / weights.sum()))].name)


def asking(settings: Settings, model: str | None) -> Settings:
    """The settings with which a request asks this model; None: model.name."""
    if model is None:
        return settings
    return settings.model_copy(update={"model": settings.model.model_copy(update={"name": model})})
