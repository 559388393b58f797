"""How a level is called on screen, in errors and in the database: probes.level, bench_stages.level."""

from kvt_async.contract.vocabulary import FULL, Unit


def level_label(series: str, budget: float, unit: str, *, is_full: bool, repeat_idx: int = 0) -> str:
    """'snapkv/aware 0.5', 'snapkv/aware 256 tokens', 'full', 'full (repeat 1)'."""
    if is_full:
        return FULL + (f" (repeat {repeat_idx})" if repeat_idx else "")
    return f"{series} {budget:g}" + ("" if unit == Unit.FRACTION else f" {unit}")
