"""From logits to a token: the largest at temperature 0, else drawn from the tempered nucleus with a seed."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kvt_async.serve.weights import F32


@dataclass(frozen=True, slots=True)
class Sampling:
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None  # None: another draw each time


def sampler(sampling: Sampling) -> Callable[[F32], int]:
    """A function from logits [vocab] to a token id; ties of the largest go to the lowest id."""
    if sampling.temperature == 0:
        return lambda logits: int(logits.argmax())
    generator = np.random.default_rng(sampling.seed)

    def draw(logits: F32) -> int:
        scaled = (logits - logits.max()).astype(np.float64) / sampling.temperature
        probabilities = np.exp(scaled)
        probabilities /= probabilities.sum()
        order = np.argsort(-probabilities, kind="stable")
        cumulative = np.cumsum(probabilities[order])
        # The smallest set that reaches top_p: a token is in it if what comes before has not reached it yet.
        size = int(np.searchsorted(cumulative, sampling.top_p, side="left")) + 1
        threshold = generator.random() * cumulative[min(size, len(order)) - 1]
        return int(order[min(int(np.searchsorted(cumulative, threshold, side="right")), len(order) - 1)])

    return draw
