"""Which prompt has which place: made, or taken from a file, from (seed, salt, repeat, place) alone, so that a resumed
or repeated stage asks for the same ones without anything being stored but the seed and the salt.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kvt_async.bench import length_draws
from kvt_async.bench.exact_texts import TextMaker
from kvt_async.bench.prompt_files import Item, read_jsonl, read_manifest
from kvt_async.bench.request_details import NO_DETAILS, RequestDetails
from kvt_async.bench.scored_prompts import check_prompts, most_tokens
from kvt_async.bench.traces.trace_workload import FromTrace
from kvt_async.bench.workload_prompt import INPUT_STREAM, OUTPUT_STREAM, Place, WorkloadPrompt, bare_template
from kvt_async.contract.bench_settings import OF_CONVERSATIONS, OF_TRACES, Bench
from kvt_async.contract.settings import Settings
from kvt_async.data.manifest import read_head
from kvt_async.data.tokens import PromptTokenizer, load_tokenizer
from kvt_async.records import Json

__all__ = ["Place", "Workload", "WorkloadPrompt", "load_workload"]


class Workload(Protocol):
    """Prompts by place. `streams`: rising places are read from disk as they are asked for."""

    streams: bool
    tokenizer: PromptTokenizer

    @property
    def size(self) -> int | None:
        """Distinct prompts before the first comes again; None: no end."""
        ...

    @property
    def about(self) -> Sequence[str]:
        """What a source holds that had to be read through to know it."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What a person is warned of before anything is sent."""
        ...

    template_version: (
        str  # SHA-256 of what makes a prompt of a text: the manifest's, else system text and endpoint alone
    )

    def describe(self) -> Json:
        """What identifies it: part of the group's contract, and `bench_stages.workload_json`."""
        ...

    def prompts(self, places: Sequence[Place]) -> list[WorkloadPrompt]: ...

    def mean_output_tokens(self) -> float: ...

    def at_s(self, seq: int) -> float:
        """When a trace asked for the request of this number, on its own clock; 0 of what is no trace."""
        ...


def load_workload(settings: Settings) -> Workload:
    """The workload of a config. Raises ConfigError for a file that can't be read, a tokenizer that isn't there, or
    lengths that can't be made."""
    tokenizer = load_tokenizer(settings)
    made: Workload
    if settings.bench.workload.kind == "conversations":
        from kvt_async.bench.conversations.conversation_workload import ConversationWorkload

        made = ConversationWorkload(settings, tokenizer)
    elif settings.bench.workload.kind == "synthetic":
        made = Synthetic(settings, tokenizer)
    elif settings.bench.workload.kind == "trace":
        made = FromTrace(settings, tokenizer)
    else:
        made = FromFile(settings, tokenizer)
    made.prompts([Place(0, "check" if settings.bench.salted else None)])  # what can't be made is found before sending
    return made


class Synthetic:
    """Texts of drawn words, to the exact token; groups share their beginning."""

    streams = False
    about: Sequence[str] = ()

    def __init__(self, settings: Settings, tokenizer: PromptTokenizer) -> None:
        self.tokenizer, self._bench = tokenizer, settings.bench
        self.size: int | None = None
        self.notes: Sequence[str] = ()
        self.template_version = bare_template(settings)
        self._maker = TextMaker(tokenizer, endpoint=settings.prompt.endpoint, system=settings.prompt.system)

    def describe(self) -> Json:
        return _described(self._bench, self.tokenizer)

    def at_s(self, seq: int) -> float:
        return 0.0

    def mean_output_tokens(self) -> float:
        output = self._bench.workload.output_tokens
        assert output is not None
        return length_draws.mean(output)

    def prompts(self, places: Sequence[Place]) -> list[WorkloadPrompt]:
        bench, work = self._bench, self._bench.workload
        assert work.output_tokens is not None
        groups = work.prefix.groups if work.prefix.tokens else None
        wanted, outputs = [], []
        for place in places:
            root = f"{bench.seed}:{place.salt or ''}"
            head = ""
            if groups is not None:
                head = self._prefix(root, place.seq % groups)
            key = (bench.seed, place.repeat, place.seq)
            tokens = length_draws.draw(work.input_tokens, (*key, INPUT_STREAM)) + work.prefix.tokens
            wanted.append((head, tokens, f"{root}:{place.seq}"))
            outputs.append(length_draws.draw(work.output_tokens, (*key, OUTPUT_STREAM)))
        texts = self._maker.exact(wanted)
        return [
            WorkloadPrompt(self._maker.messages(text), ask[1], out, place.seq % groups if groups is not None else None)
            for text, ask, out, place in zip(texts, wanted, outputs, places, strict=True)
        ]

    def _prefix(self, root: str, group: int) -> str:
        rng = np.random.default_rng(list(f"{root}:prefix:{group}".encode()))
        words = self._maker.words
        return " ".join(words[i] for i in rng.integers(0, len(words), self._bench.workload.prefix.tokens))


class FromFile:
    """A kvt manifest or a JSONL file, in its order and from the start again at its end; the salt goes in front."""

    streams = False
    about: Sequence[str] = ()

    def __init__(self, settings: Settings, tokenizer: PromptTokenizer) -> None:
        self.tokenizer, self._bench = tokenizer, settings.bench
        work, system = settings.bench.workload, settings.prompt.system
        assert work.path is not None
        read = read_manifest if work.kind == "manifest" else read_jsonl
        source = read(work.path, system)
        self._items, self._sha256 = source.items, source.sha256
        self.template_version = source.template_version or bare_template(settings)
        self.size: int | None = len(self._items)
        notes = []
        if source.n_without_prompt:
            notes.append(f"{work.path}: {source.n_without_prompt:,} rows have no human turn and are left out")
        named = sum(item.output_tokens is not None for item in self._items)
        if named and work.output_tokens is not None:
            notes.append(
                f"{work.path}: {named:,} rows name a length for their reply; bench.workload.output_tokens is asked for "
                "instead (null: the file's)"
            )
        self.notes: Sequence[str] = notes
        self._default_output, self._lengths = settings.decoding.most_tokens, work.output_tokens
        self._scored: Json = {}
        if settings.bench.scored:
            head = read_head(Path(work.path))
            check_prompts(settings, Path(work.path), head)
            self._default_output, self._lengths = most_tokens(settings, head), None
            self._scored = {"scored": True, "output_tokens": None, "max_tokens": self._default_output}
        self._maker = TextMaker(tokenizer, endpoint=settings.prompt.endpoint, system=system)

    def describe(self) -> Json:
        described = _described(self._bench, self.tokenizer) | self._scored
        return {**described, "path_sha256": self._sha256, "prompts": self.size}

    def at_s(self, seq: int) -> float:
        return 0.0

    def mean_output_tokens(self) -> float:
        if self._lengths is not None:
            return length_draws.mean(self._lengths)
        return float(np.mean([self._own_output(item) for item in self._items[:1000]]))

    def prompts(self, places: Sequence[Place]) -> list[WorkloadPrompt]:
        bench = self._bench
        items = [self._salted(self._items[place.seq % len(self._items)], place) for place in places]
        counts = self._maker.count([item.messages for item in items])
        drawn = []
        for item, n, place in zip(items, counts, places, strict=True):
            key = (bench.seed, place.repeat, place.seq, OUTPUT_STREAM)
            out = length_draws.draw(self._lengths, key) if self._lengths is not None else self._own_output(item)
            details = NO_DETAILS if item.example_id is None else RequestDetails(example_id=item.example_id)
            drawn.append(
                WorkloadPrompt(item.messages, n, out, None, item.context_chars, item.context_messages, details)
            )
        return drawn

    def _own_output(self, item: Item) -> int:
        if item.output_tokens is not None:
            return item.output_tokens
        if item.answer:
            return max(1, self.tokenizer.count([item.answer], special=False)[0])
        return self._default_output

    def _salted(self, item: Item, place: Place) -> Item:
        if place.salt is None:
            return item
        text = self._maker.salt(f"{self._bench.seed}:{place.salt}:{place.seq}") + "\n\n"
        messages: list[dict[str, str]] = [dict(message) for message in item.messages]
        first = next(message for message in messages if message["role"] != "system")
        first["content"] = text + first["content"]
        chars = None if item.context_chars is None else item.context_chars + len(text)
        return replace(item, messages=messages, context_chars=chars)


def _described(bench: Bench, tokenizer: PromptTokenizer) -> Json:
    work: dict[str, Any] = bench.workload.model_dump(mode="json", exclude={"path", *OF_CONVERSATIONS, *OF_TRACES})
    if work["kind"] != "synthetic":
        del work["input_tokens"], work["prefix"]
    return {**work, "salted": bench.salted, "tokenizer": tokenizer.name, "tokenizer_sha256": tokenizer.sha256}
