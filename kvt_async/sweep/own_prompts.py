"""The prompt of a later turn with the model's own earlier answers in place of the data's: `workload.history: own`."""

from collections.abc import Mapping

import orjson

from kvt_async.contract.formulas.prompt_text import messages_sha256, tool_fields
from kvt_async.data.example_prompt import PromptRule, is_templated, served_text
from kvt_async.data.tokens import PromptTokenizer
from kvt_async.store.reader import Entry


class OwnPrompts:
    """Makes the entries of later turns anew, counted as the manifest counts its own."""

    def __init__(self, rule: PromptRule, tokenizer: PromptTokenizer) -> None:
        self._rule, self._tokenizer = rule, tokenizer
        self.opened = rule.reasoning_tag is not None  # the chat template opens reasoning before an answer

    def entry(self, entry: Entry, answers: Mapping[int, str]) -> Entry:
        """The entry with `answers` by turn; a turn without one (it is not asked for) keeps what the data say. Its
        meta, its length and its hash are those of what is sent."""
        meta = orjson.loads(entry.meta_json)
        given = meta.get("turns") or ()
        meta["turns"] = [[question, answers.get(turn, answer)] for turn, (question, answer) in enumerate(given)]
        entry = entry._replace(meta_json=orjson.dumps(meta).decode())
        messages, tools = self._rule.messages(entry.example), tool_fields(meta)
        served = served_text(self._rule, self._tokenizer, messages, tools)
        (tokens,) = self._tokenizer.count([served], special=not is_templated(self._rule, self._tokenizer))
        return entry._replace(token_len=tokens, prompt_sha256=messages_sha256(messages, tools))
