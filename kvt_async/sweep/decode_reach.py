"""How long an answer has to be before a budget that applies while it is generated is felt, beside how long it may get.

Sentences, said before anything is sent: a level whose budget no answer can reach is full cache under another name.
"""

from collections.abc import Sequence

from kvt_async.contract.formulas.decode_budget import INTERVAL, USUAL_INTERVAL, first_compression, interval_of
from kvt_async.contract.vocabulary import Unit, When
from kvt_async.records import Level
from kvt_async.store.reader import Reader


def reach_notes(reader: Reader, dataset_id: str, levels: Sequence[Level], most: int) -> list[str]:
    """A note for every budget that applies while answers are generated, over the prompts of a manifest and answers of
    at most `most` tokens; series of which the same is to be said share it."""
    sql = "SELECT token_len FROM manifest_entries WHERE dataset_id = ?"
    decoding = [level for level in levels if level.decodes]
    lengths = [row[0] for row in reader.rows(sql, dataset_id)] if decoding else []
    alike: dict[str, list[Level]] = {}
    for level in decoding if lengths else ():
        alike.setdefault(_reach(level, lengths, most), []).append(level)
    return [
        f"{level.label if not more else ', '.join(each.series for each in (level, *more))}: {reach}"
        for reach, (level, *more) in alike.items()
    ]


def _reach(level: Level, lengths: Sequence[int], most: int) -> str:
    own = interval_of(level.params)
    interval = own or USUAL_INTERVAL
    needed = [first_compression(level.budget, level.unit, level.when, interval, length) for length in lengths]
    cap = f"{level.budget:g} tokens" if level.unit == Unit.TOKENS else f"{level.budget:g}"
    every = f"an interval of {interval}" + ("" if own else f" (the usual one; kv.params.{INTERVAL} sets it)")
    if most <= min(needed):
        rest = ", and what it does once the prompt is read is all that it does" if level.when == When.BOTH else ""
        return (
            f"a budget of {cap} with {every} can't trigger: answers have at most {most:,} tokens, and "
            f"it takes more than {min(needed):,}{rest}"
        )
    within = sum(most > n for n in needed)
    span = f"{min(needed):,}" if min(needed) == max(needed) else f"{min(needed):,} to {max(needed):,}"
    prompts = "" if within == len(needed) else f"; {within:,} of {len(needed):,} prompts leave room for that"
    return (
        f"a budget of {cap} with {every} is felt by answers of more than {span} tokens, and they have "
        f"at most {most:,}{prompts}"
    )
