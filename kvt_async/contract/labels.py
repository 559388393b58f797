"""Names that are composed: a level's label (on screen, in errors, in probes.level and bench_stages.level), and the keys
of a run's requests."""

from kvt_async.contract.vocabulary import CONSTRAINED, FULL, NODE_REPEATS, Unit


def level_label(series: str, budget: float, unit: str, *, is_full: bool, repeat_idx: int = 0) -> str:
    """'snapkv/aware 0.5', 'snapkv/aware 256 tokens', 'full', 'full (repeat 1)', 'full (on shard 2)', 'constrained
    full'."""
    if is_full:
        if repeat_idx > NODE_REPEATS:
            return f"{FULL} (on shard {repeat_idx - NODE_REPEATS})"
        return FULL + (f" (repeat {repeat_idx})" if repeat_idx else "")
    if series == CONSTRAINED:
        return CONSTRAINED
    return f"{series} {budget:g}" + ("" if unit == Unit.FRACTION else f" {unit}")


def task_level(task: str, level: str) -> str:
    """What a level of a task is called; of a group's only task (''), like the level."""
    return f"{task}: {level}" if task else level


def request_id(run_id: str, seq: int, sample_idx: int = 0, turn_idx: int = 0) -> str:
    """Key of a request: `run_id:seq`, `run_id:seq.sample` of further answers to the same example, and
    `run_id:seq.sample.turn` of the later turns of a conversation."""
    if turn_idx:
        return f"{run_id}:{seq}.{sample_idx}.{turn_idx}"
    return f"{run_id}:{seq}.{sample_idx}" if sample_idx else f"{run_id}:{seq}"


def entry_of(request_id: str) -> tuple[int, int]:
    """(seq, sample_idx) of a request's key."""
    seq, *rest = request_id.rpartition(":")[2].split(".")
    return int(seq), int(rest[0]) if rest else 0


def request_ids_of(run_id: str) -> tuple[str, str]:
    """Bounds between which the request_ids of a run lie; they themselves are none."""
    return f"{run_id}:", f"{run_id};"  # ; follows :
