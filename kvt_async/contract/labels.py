"""Names that are composed: a level's label (on screen, in errors, in probes.level and bench_stages.level), and the keys
of a run's requests."""

from kvt_async.contract.vocabulary import FULL, Unit


def level_label(series: str, budget: float, unit: str, *, is_full: bool, repeat_idx: int = 0) -> str:
    """'snapkv/aware 0.5', 'snapkv/aware 256 tokens', 'full', 'full (repeat 1)'."""
    if is_full:
        return FULL + (f" (repeat {repeat_idx})" if repeat_idx else "")
    return f"{series} {budget:g}" + ("" if unit == Unit.FRACTION else f" {unit}")


def request_ids_of(run_id: str) -> tuple[str, str]:
    """Bounds between which the request_ids of a run lie, `run_id:seq` each; they themselves are none."""
    return f"{run_id}:", f"{run_id};"  # ; follows :
