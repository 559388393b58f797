"""Whether a prefix cache can hold a sweep's prompts from one level to the next, or the order makes it useless."""

from collections.abc import Iterable, Mapping, Sequence

from kvt_async.contract.settings import Settings
from kvt_async.records import Json, Run
from kvt_async.ways.registry import way_of

_BLOCKS = ("num_gpu_blocks", "num_cpu_blocks")  # vLLM's cache in its own memory; `kvt serve` has it in the machine's


def cached_tokens(cache_config: Mapping[str, str]) -> int | None:
    """Prompt tokens that a server's prefix cache holds, by the labels of its vllm:cache_config_info; None: they don't
    say, or nothing is kept from one request to the next."""
    if str(cache_config.get("enable_prefix_caching", "")).lower() != "true":
        return None
    blocks = [int(text) for name in _BLOCKS if (text := str(cache_config.get(name, ""))).isdecimal()]
    size = str(cache_config.get("block_size", ""))
    held = max(blocks, default=0) * (int(size) if size.isdecimal() else 0)
    return held or None


def order_note(
    settings: Settings,
    runs: Sequence[Run],
    done: Sequence[bytearray],
    lengths: Sequence[int],
    identities: Iterable[Json],
) -> str:
    """Says that every level will read every prompt anew, and what would read each once; empty where that isn't so, or
    isn't known.

    runs: those that one server serves of one task; done: by run, 1 for each answer of which nothing is to be sent;
    lengths: tokens of every prompt of the task, by its number; identities: of the server's endpoints.
    """
    reading = [mask for run, mask in zip(runs, done, strict=True) if 0 in mask and not run.level.cuts_prompts]
    held = [tokens for identity in identities if (tokens := cached_tokens(identity.get("cache_config", {})))]
    in_turns = settings.workload.is_in_turns
    if settings.limits.order != "by_budget" or in_turns or len(reading) < 2 or not held:
        return ""
    k = len(reading[0]) // max(1, len(lengths))
    one, other = sorted(reading, key=lambda mask: -mask.count(0))[:2]  # these two read nearly all that any two read
    prompts = [
        tokens
        for seq, tokens in enumerate(lengths)
        if 0 in one[seq * k : seq * k + k] and 0 in other[seq * k : seq * k + k]
    ]
    if not way_of(settings.kv.apply.via).one_server or sum(prompts) <= sum(held):
        return ""
    return (
        f"the server's prefix cache holds {sum(held):,} tokens and the {len(prompts):,} prompts have {sum(prompts):,}: "
        f"with limits.order: by_budget each of {len(reading)} levels reads them anew; with limits.order: interleaved "
        "each prompt is read once, and its levels follow one another"
    )
