"""Cold and warm, for sweep and bench alike: how much of the prompts came out of a prefix cache."""

from kvt_async.contract.vocabulary import CacheState

COLD, WARM = 0.05, 0.9  # at most; at least: the last block of a prompt is always read anew


def cache_state(cached_share: float | None) -> CacheState:
    """The state by cached prompt tokens / prompt tokens; None: the server says nothing."""
    if cached_share is None:
        return CacheState.UNKNOWN
    return CacheState.COLD if cached_share <= COLD else CacheState.WARM if cached_share >= WARM else CacheState.MIXED
