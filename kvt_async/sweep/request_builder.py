"""A manifest entry at a level -> the request, encoded before any clock starts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import orjson

from kvt_async.contract.formulas.prompt_text import context_messages, render
from kvt_async.contract.settings import Settings
from kvt_async.data.example_prompt import PromptRule, served_text
from kvt_async.data.tokens import load_tokenizer
from kvt_async.engine.request.chat_body import TextOf, build_payload
from kvt_async.engine.request.encoded_bodies import LevelPayloads
from kvt_async.engine.request.kv_evidence import expectations
from kvt_async.engine.request.kv_fields import PromptSize
from kvt_async.engine.request.seeds import Seeds, with_seed
from kvt_async.records import Json, Level, Payload, Request, Run
from kvt_async.store.reader import Entry, Past, Reader
from kvt_async.sweep.own_prompts import OwnPrompts
from kvt_async.ways.levels import make_levels
from kvt_async.ways.truncate import Cut, Cutter


class AnswerToAsk(NamedTuple):
    """What is to be asked for: which of an entry's answers, and what is stored of that request."""

    entry: Entry
    sample_idx: int
    request_id: str
    past: Past
    series_idx: int
    turn_idx: int = 0


Make = Callable[[AnswerToAsk], Request]


@dataclass(frozen=True, slots=True)
class RequestBuilder:
    """Makes requests and payloads. Template and system text are those the manifest was prepared with."""

    settings: Settings
    dataset_id: str
    template: str
    system: str | None
    cutter: Cutter | None = None  # where a level is truncate_prompt
    shown: Mapping[str, Json] = field(default_factory=dict)  # run_id -> what its server says of itself
    own_prompts: OwnPrompts | None = None  # where workload.history is own
    answer_prefix: str | None = None  # where the examples' own stands: PromptRule
    text_of: TextOf | None = None  # where the chat template is written into a completion

    @classmethod
    def of_dataset(cls, settings: Settings, reader: Reader, dataset_id: str) -> "RequestBuilder":
        stored = orjson.loads(reader.value("SELECT prompt_json FROM datasets WHERE dataset_id = ?", dataset_id))
        needs_cuts = any(level.cuts_prompts for level in make_levels(settings).levels)
        rule, cutter, own_prompts, text_of = PromptRule(**stored), None, None, None
        if needs_cuts:
            cutter = Cutter.of_settings(settings, rule)
        if settings.workload.history == "own":
            own_prompts = OwnPrompts(rule, load_tokenizer(settings))
        if rule.writes_turns:
            text_of = partial(served_text, rule, load_tokenizer(settings))
        return cls(
            settings,
            dataset_id,
            rule.template,
            rule.system,
            cutter,
            own_prompts=own_prompts,
            answer_prefix=rule.answer_prefix,
            text_of=text_of,
        )

    def __call__(self, run: Run) -> Make:
        """Makes the requests of one run; what they share is worked out here, once."""
        level, settings, cutter = run.level, self.settings, self._cutter(run.level)
        payloads = LevelPayloads(settings, level, self.template, self.system)
        seeds = Seeds.of_level(settings.decoding, level)
        expecting, stream, max_tokens = expectations(level), settings.engine.stream, settings.decoding.most_tokens
        shown = self.shown.get(run.run_id)

        def make(answer: AnswerToAsk) -> Request:
            entry, sample_idx, request_id, past, series_idx, turn_idx = answer
            _, tokens, context_tokens, _, example_id, question, context, _, _ = entry
            expects, sha256, seed = expecting(tokens, context_tokens), None, seeds(example_id, sample_idx, turn_idx)
            if cutter is not None:
                cut = cutter.cut(entry.example, tokens, level)
                expects["cut"] = cutter.expectation(cut, tokens)
                payload, tokens, sha256 = (
                    self._of_cut(with_seed(settings, seed), cut, level),
                    cut.tokens,
                    cut.prompt_sha256,
                )
            else:
                if self.answer_prefix is not None:
                    payload = self.payload(entry, level, with_seed(settings, seed))
                else:
                    size = PromptSize(tokens, context_tokens)
                    payload = payloads(
                        context, question, entry.turns, entry.tool_fields, parts=entry.parts, size=size, seed=seed
                    )
                if shown is not None:
                    expects["server"] = shown
            return Request(
                request_id=request_id,
                run_id=run.run_id,
                example_id=example_id,
                endpoints=level.endpoints,
                path=payload.path,
                body=payload.body,
                headers=payload.headers,
                stream=stream,
                prompt_tokens=tokens,
                max_tokens=max_tokens,
                series_idx=series_idx,
                attempts_before=past.attempts,
                expects=expects,
                prompt_sha256=sha256,
            )

        return make

    def payload(self, entry: Entry, level: Level, settings: Settings) -> Payload:
        """What is sent for an entry at a level; `settings` may differ from the sweep's in decoding (probes)."""
        if (cutter := self._cutter(level)) is not None:
            return self._of_cut(settings, cutter.cut(entry.example, entry.token_len, level), level)
        parts = entry.parts
        prefix = entry.turn_prefix(self.answer_prefix)
        messages, chars = render(self.template, entry.context, entry.question, entry.turns, self.system, parts, prefix)
        size = PromptSize(entry.token_len, entry.context_tokens, chars, context_messages(parts, self.system))
        return build_payload(settings, messages, level, size, entry.tool_fields, self.text_of)

    def _cutter(self, level: Level) -> Cutter | None:
        return self.cutter if level.cuts_prompts else None

    def _of_cut(self, settings: Settings, cut: Cut, level: Level) -> Payload:
        size = PromptSize(cut.tokens, cut.context_tokens, cut.context_chars, cut.context_messages)
        return build_payload(settings, cut.messages, level, size, cut.tools, self.text_of)
