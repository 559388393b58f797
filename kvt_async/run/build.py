"""A manifest entry at a level -> the request, its body encoded before any clock starts."""

from dataclasses import dataclass

import orjson

from kvt_async.contract.prompt import render
from kvt_async.contract.settings import Settings
from kvt_async.engine.chat import PATHS, build_body
from kvt_async.engine.kv_body import PromptSize, expectation
from kvt_async.records import Level, Request
from kvt_async.run.session import Run
from kvt_async.store.reader import Entry, Past, Reader


@dataclass(frozen=True, slots=True)
class Builder:
    """Callable as feed.Build. Template and system text are those the manifest was prepared with."""

    settings: Settings
    template: str
    system: str | None

    @classmethod
    def of_dataset(cls, settings: Settings, reader: Reader, dataset_id: str) -> "Builder":
        stored = orjson.loads(reader.value("SELECT prompt_json FROM datasets WHERE dataset_id = ?", dataset_id))
        return cls(settings, stored["template"], stored["system"])

    def __call__(self, run: Run, entry: Entry, request_id: str, past: Past, series_idx: int) -> Request:
        level, settings = run.level, self.settings
        return Request(
            request_id=request_id,
            run_id=run.run_id,
            example_id=entry.example.example_id,
            endpoints=level.endpoints,
            path=PATHS[settings.prompt.endpoint],
            body=self.body(entry, level, settings),
            stream=settings.engine.stream,
            prompt_tokens=entry.token_len,
            max_tokens=settings.decoding.max_tokens,
            series_idx=series_idx,
            attempts_before=past.attempts,
            expects=expectation(level, entry.token_len),
        )

    def body(self, entry: Entry, level: Level, settings: Settings) -> bytes:
        """The encoded body of an entry at a level; `settings` may differ from the sweep's in decoding (probes)."""
        example = entry.example
        messages, context_chars = render(
            self.template, example.context, example.question, example.meta.get("turns") or (), self.system
        )
        return build_body(settings, messages, level, PromptSize(entry.token_len, entry.context_tokens, context_chars))
