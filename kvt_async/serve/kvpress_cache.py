"""What a press left in transformers' cache: how much is held, and taking the last prompt token's own entry out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def masked(attention: Any) -> Any:
    """(batch, head, position) of entries that a press hides without removing them; None without any."""
    return getattr(attention, "masked_key_indices", None)


def kept_tokens(cache: Any, attentions: Sequence[Any]) -> float:
    """Entries that a query can still see, mean over layers and KV heads."""
    total = 0.0
    for layer, attention in zip(cache.layers, attentions, strict=True):
        hidden = masked(attention)
        heads, length = layer.keys.shape[1:3]
        total += length - (len(hidden[0]) / heads if hidden is not None else 0)
    mean = total / len(cache.layers)
    return int(mean) if mean.is_integer() else mean


def held_bytes(cache: Any) -> int:
    """Memory of keys and values, hidden entries included: they are still there."""
    return sum(tensor.nbytes for layer in cache.layers for tensor in (layer.keys, layer.values))


def even(cache: Any) -> bool:
    """Whether all layers hold the same number of entries, so that one attention mask fits them."""
    return len({layer.keys.shape[2] for layer in cache.layers}) == 1


@contextmanager
def last_keys(attentions: Sequence[Any]) -> Iterator[list[Any]]:
    """Collect each layer's key of the last token read inside, before a press that comes later evicts anything."""
    seen: list[Any] = [None] * len(attentions)

    def hook(attention: Any, _: Any, kwargs: dict[str, Any], output: Any) -> None:
        if seen[attention.layer_idx] is None:
            seen[attention.layer_idx] = kwargs["past_key_values"].layers[attention.layer_idx].keys[:, :, -1:].clone()

    handles = [attention.register_forward_hook(hook, with_kwargs=True) for attention in attentions]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def drop_last(cache: Any, attentions: Sequence[Any], keys: Sequence[Any]) -> None:
    """Take one entry from every head, the last prompt token's or, where a head has evicted that, the lowest ranked.

    `keys` are the last token's own, by layer. Presses leave entries by falling score, so the lowest is the last one.
    """
    import torch

    for layer, attention, key in zip(cache.layers, attentions, keys, strict=True):
        length, hidden = layer.keys.shape[2], masked(attention)
        if hidden is not None:  # nothing was removed: entries stand by position
            layer.keys, layer.values = layer.keys[:, :, :-1], layer.values[:, :, :-1]
            stay = hidden[2] < length - 1
            attention.masked_key_indices = tuple(index.to(stay.device)[stay] for index in hidden)
            continue
        same = (layer.keys == key).all(dim=-1)  # [1, heads, entries]
        drop = torch.where(same.any(dim=-1), same.int().argmax(dim=-1), length - 1)
        index = torch.arange(length - 1, device=drop.device).expand(*drop.shape, length - 1)
        index = (index + (index >= drop[..., None])).unsqueeze(-1).expand(-1, -1, -1, layer.keys.shape[3])
        layer.keys, layer.values = layer.keys.gather(2, index), layer.values.gather(2, index)
