"""`--levels`: does the server apply the budgets at all? The canary of a sweep, asked with prompts of the workload."""

from dataclasses import dataclass, replace

from kvt_async.bench.prepared_requests import encode
from kvt_async.bench.workload import Place, Workload, WorkloadPrompt
from kvt_async.contract.formulas.prompt_text import messages_sha256
from kvt_async.contract.settings import Settings
from kvt_async.records import Level, Payload
from kvt_async.session.canary import Questions
from kvt_async.session.canary_prompts import MOST
from kvt_async.store.reader import Entry

SALT = "canary"  # prompts of their own: the measured ones stay unseen


@dataclass(frozen=True, slots=True)
class PromptBuilder:
    """Payloads of prompts of a workload, by their place among the canary's."""

    prompts: tuple[WorkloadPrompt, ...]

    def payload(self, entry: Entry, level: Level, settings: Settings) -> Payload:
        """`settings` say how many tokens to answer."""
        prompt = replace(self.prompts[entry.seq], output_tokens=settings.decoding.most_tokens)
        return encode(settings, prompt, level)


def questions(workload: Workload) -> Questions:
    """As many prompts of the workload as a sweep's canary asks."""
    prompts = workload.prompts([Place(seq, SALT) for seq in range(MOST)])
    entries = [
        Entry(seq, n_tokens := prompt.input_tokens, n_tokens, messages_sha256(prompt.messages), f"canary{seq}", "", "")
        for seq, prompt in enumerate(prompts)
    ]
    return Questions(PromptBuilder(tuple(prompts)), entries)
