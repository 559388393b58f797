"""Holm's adjustment of several p values for their number."""

from collections.abc import Hashable, Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def holm_by_family(p_values: Sequence[float], family: Sequence[Hashable]) -> list[float]:
    """Each p value adjusted for the number of those of its own family alone, in the order given."""
    adjusted = list(p_values)
    for name in set(family):
        members = [i for i, of in enumerate(family) if of == name]
        for i, p in zip(members, holm([p_values[i] for i in members]), strict=True):
            adjusted[i] = p
    return adjusted
