"""Cold and warm, for sweep and bench alike: how much of the prompts came out of a prefix cache."""

COLD, WARM = 0.05, 0.9  # at most; at least: the last block of a prompt is always read anew


def cache_state(cached_share: float | None) -> str:
    """cold | warm | mixed, by cached prompt tokens / prompt tokens; unknown where the server says nothing."""
    if cached_share is None:
        return "unknown"
    return "cold" if cached_share <= COLD else "warm" if cached_share >= WARM else "mixed"
