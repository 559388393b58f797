"""`--levels`: does the server apply the budgets at all? The canary of a sweep, asked with prompts of the workload."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kvt_async.bench.prepared_requests import encode
from kvt_async.bench.workload import Place, Prompt, Workload
from kvt_async.contract.formulas.prompt_text import messages_sha256
from kvt_async.contract.settings import Settings
from kvt_async.records import Level, Run
from kvt_async.session import canary
from kvt_async.session.canary_prompts import MOST
from kvt_async.store.reader import Entry, Reader
from kvt_async.ways.registry import way_of

SALT = "canary"  # prompts of their own: the measured ones stay unseen


@dataclass(frozen=True, slots=True)
class Questions:
    """The canary's prompts; a Builder of their bodies, as the canary asks for one."""

    prompts: tuple[Prompt, ...]
    entries: tuple[Entry, ...]

    def body(self, entry: Entry, level: Level, settings: Settings) -> bytes:
        """`settings` say how many tokens to answer."""
        prompt = replace(self.prompts[entry.seq], output_tokens=settings.decoding.max_tokens)
        return encode(settings, prompt, level)


def questions(workload: Workload) -> Questions:
    """As many as a sweep's canary asks."""
    prompts = workload.prompts([Place(seq, SALT) for seq in range(MOST)])
    entries = [
        Entry(seq, n_tokens := prompt.input_tokens, n_tokens, messages_sha256(prompt.messages), f"canary{seq}", "", "")
        for seq, prompt in enumerate(prompts)
    ]
    return Questions(tuple(prompts), tuple(entries))


def spread(reader: Reader, settings: Settings, generation: int, levels: Sequence[Level]) -> canary.Spread | None:
    """The canary of launched levels, which have a server each; None: there is nothing to compare."""
    pair = canary.pair(levels) if settings.bench.levels and way_of(settings.kv.apply.via).canary == "across" else None
    if pair is None:
        return None
    group = settings.experiment.exp_group_id
    return canary.Spread(pair, canary.known_verdict(reader, group, generation, pair.harsh))


def harsh_second(levels: Sequence[Level], found: canary.Spread | None) -> list[Level]:
    """The same levels with the harshest behind the first one: a dead knob is then known early."""
    if found is None:
        return list(levels)
    return [runs[0].level for runs in found.early([[Run("", level, stored=False)] for level in levels])]
