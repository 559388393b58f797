"""A manifest entry at a level -> the request, its body encoded before any clock starts."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from kvt_async.contract.prompt import render
from kvt_async.contract.settings import Settings
from kvt_async.data.prompt import PromptRule
from kvt_async.engine.chat import PATHS, build_body
from kvt_async.engine.kv_body import TRUNCATE, PromptSize, expectation
from kvt_async.records import Json, Level, Request
from kvt_async.run.levels import make_levels
from kvt_async.run.session import Run
from kvt_async.run.truncate import Cut, Cutter
from kvt_async.store.reader import Entry, Past, Reader


@dataclass(frozen=True, slots=True)
class Builder:
    """Callable as feed.Build. Template and system text are those the manifest was prepared with."""

    settings: Settings
    template: str
    system: str | None
    cutter: Cutter | None = None  # where a level is truncate_prompt
    shown: Mapping[str, Json] = field(default_factory=dict)  # run_id -> what its server says of itself

    @classmethod
    def of_dataset(cls, settings: Settings, reader: Reader, dataset_id: str) -> "Builder":
        stored = orjson.loads(reader.value("SELECT prompt_json FROM datasets WHERE dataset_id = ?", dataset_id))
        needs_cuts = any(level.policy == TRUNCATE for level in make_levels(settings).levels)
        cutter = Cutter.of_settings(settings, PromptRule(**stored)) if needs_cuts else None
        return cls(settings, stored["template"], stored["system"], cutter)

    def __call__(self, run: Run, entry: Entry, request_id: str, past: Past, series_idx: int) -> Request:
        level, settings = run.level, self.settings
        cut = self._cut(entry, level)
        expects = expectation(level, entry.token_len, entry.context_tokens)
        if cut is not None and self.cutter is not None:
            expects["cut"] = self.cutter.expectation(cut, entry.token_len)
        elif run.run_id in self.shown:
            expects["server"] = self.shown[run.run_id]
        return Request(
            request_id=request_id,
            run_id=run.run_id,
            example_id=entry.example.example_id,
            endpoints=level.endpoints,
            path=PATHS[settings.prompt.endpoint],
            body=self._body(entry, level, settings, cut),
            stream=settings.engine.stream,
            prompt_tokens=cut.tokens if cut else entry.token_len,
            max_tokens=settings.decoding.max_tokens,
            series_idx=series_idx,
            attempts_before=past.attempts,
            expects=expects,
            prompt_sha256=cut.prompt_sha256 if cut else None,
        )

    def body(self, entry: Entry, level: Level, settings: Settings) -> bytes:
        """The encoded body of an entry at a level; `settings` may differ from the sweep's in decoding (probes)."""
        return self._body(entry, level, settings, self._cut(entry, level))

    def _cut(self, entry: Entry, level: Level) -> Cut | None:
        if self.cutter is None or level.policy != TRUNCATE:
            return None
        return self.cutter.cut(entry.example, entry.token_len, level)

    def _body(self, entry: Entry, level: Level, settings: Settings, cut: Cut | None) -> bytes:
        if cut is not None:
            size = PromptSize(cut.tokens, cut.context_tokens, cut.context_chars)
            return build_body(settings, cut.messages, level, size)
        example = entry.example
        messages, context_chars = render(
            self.template, example.context, example.question, example.meta.get("turns") or (), self.system
        )
        return build_body(settings, messages, level, PromptSize(entry.token_len, entry.context_tokens, context_chars))
