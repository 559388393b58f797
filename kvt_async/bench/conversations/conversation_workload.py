"""Conversations as a workload: every turn has a place, and its prompt holds the turns before it."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from kvt_async.bench import length_draws
from kvt_async.bench.conversations import think_times
from kvt_async.bench.conversations.conversation_counts import ConversationCounts
from kvt_async.bench.conversations.conversation_files import read_conversations
from kvt_async.bench.conversations.conversation_plan import ConversationPlan
from kvt_async.bench.conversations.conversation_scripts import FileScripts, MadeScripts, Script
from kvt_async.bench.exact_texts import TextMaker
from kvt_async.bench.request_details import RequestDetails
from kvt_async.bench.workload import Place, Workload, WorkloadPrompt
from kvt_async.contract.bench_settings import OF_CONVERSATIONS, OF_MADE_CONVERSATIONS
from kvt_async.contract.formulas.prompt_text import plain, template_version
from kvt_async.contract.settings import Settings
from kvt_async.data.tokens import PromptTokenizer
from kvt_async.records import Json

_SCRIPTS_KEPT = 64  # conversations whose texts are kept, as their turns are asked for one after the other
_PLANNED = 2000  # conversations that means are taken of


class ConversationWorkload:
    """Turns of conversations by place: those of conversation 0, then of 1, ... `is_own`: the earlier replies in a
    prompt are the server's own, so that a turn's prompt is there when the reply before it is."""

    streams = False
    about: Sequence[str] = ()

    def __init__(self, settings: Settings, tokenizer: PromptTokenizer) -> None:
        self.tokenizer, self._bench = tokenizer, settings.bench
        work, prompt = settings.bench.workload, settings.prompt
        self.is_own = work.history == "own"
        self.template_version = template_version("", prompt.system, prompt.endpoint)
        self._maker = TextMaker(tokenizer, endpoint=prompt.endpoint, system=None)
        self._templated = prompt.endpoint == "chat" and tokenizer.chat is not None
        chat = tokenizer.chat if self._templated else None
        self.opens_reasoning = chat is not None and chat.reasoning_tag({}) is not None  # before every answer
        bare = tokenizer.count(["", ""], special=not self._templated)[0]
        self._added = bare - tokenizer.count([""], special=False)[0]  # tokens that the tokenizer puts before a prompt
        self.notes: Sequence[str] = ()
        self.size: int | None = None
        self._source: MadeScripts | FileScripts = MadeScripts(settings.bench, self._maker, prompt.system)
        self._of_file: Json = {}
        if work.path is not None:
            file = read_conversations(work.path)
            self._source = FileScripts(
                settings.bench, self._maker, prompt.system, file.conversations, settings.decoding.most_tokens
            )
            self.size = sum(len(conversation.turns) for conversation in file.conversations)
            named = sum(turn.output_tokens is not None for each in file.conversations for turn in each.turns)
            self.notes = [*file.notes, *self._unused_lengths(named)]
            self._of_file = {"path_sha256": file.sha256, "conversations": len(file.conversations), "prompts": self.size}
        self._plans: dict[int, ConversationPlan] = {}
        self._script = lru_cache(_SCRIPTS_KEPT)(self._source.script)

    def _unused_lengths(self, named: int) -> list[str]:
        """A word about lengths of the file that are not asked for."""
        if not named or self._bench.workload.output_tokens is None:
            return []
        return [
            f"{self._bench.workload.path}: {named:,} turns name a length for their reply; "
            "bench.workload.output_tokens is asked for instead (null: the file's)"
        ]

    def describe(self) -> Json:
        work = self._bench.workload.model_dump(mode="json", exclude={"path", "prefix"})
        if self._of_file:
            work = {name: value for name, value in work.items() if name not in OF_MADE_CONVERSATIONS}
        named = {"tokenizer": self.tokenizer.name, "tokenizer_sha256": self.tokenizer.sha256}
        used = {"kind", "input_tokens", "output_tokens", *OF_CONVERSATIONS}
        work = {name: value for name, value in work.items() if name in used}
        return {**work, **self._of_file, "salted": self._bench.salted, **named}

    def plan(self, repeat: int) -> ConversationPlan:
        """Which turn of which conversation a place is, in this repeat."""
        if repeat not in self._plans:
            self._plans[repeat] = ConversationPlan(lambda conversation: self._source.turns(conversation, repeat))
        return self._plans[repeat]

    def at_s(self, seq: int) -> float:
        return 0.0

    def mean_output_tokens(self) -> float:
        if self._bench.workload.output_tokens is not None:
            return length_draws.mean(self._bench.workload.output_tokens)
        assert isinstance(self._source, FileScripts)
        return self._source.mean_output_tokens()

    def mean_turns(self) -> float:
        """Of a conversation, as drawn: bounds and weights are in it."""
        return self.plan(0).first(_PLANNED) / _PLANNED

    def mean_think_s(self) -> float:
        """Of a pause, as the config has it; the first conversations' where the file says them."""
        if self._bench.workload.think_s is not None:
            return think_times.mean_s(self._bench.workload.think_s)
        if not self._of_file:
            return 0.0
        pauses = [turn.think_ns for c in range(100) for turn in self._source.script(c, None, 0).turns if turn.think_ns]
        return sum(pauses) / 1e9 / max(sum(self.plan(0).turns(c) - 1 for c in range(100)), 1)

    def counts(self, repeat: int) -> ConversationCounts:
        return ConversationCounts(self.plan(repeat), self.mean_turns(), self.mean_think_s(), repeat)

    def prompts(
        self, places: Sequence[Place], replies: Mapping[int, Sequence[str]] | None = None
    ) -> list[WorkloadPrompt]:
        """`replies`: the server's own to the turns before, by conversation, as far as they are there; recorded ones
        take the place of those that aren't."""
        out, at = list[WorkloadPrompt](), 0
        turns = [self.plan(place.repeat).turn_of(place.seq) for place in places]
        while at < len(places):
            first, salt, repeat = turns[at].conversation, places[at].salt, places[at].repeat
            n = 1
            while at + n < len(places) and (turns[at + n].conversation, places[at + n]) == (
                first,
                Place(places[at + n].seq, salt, repeat),
            ):
                n += 1
            own = (replies or {}).get(first, ())
            out += self._turns(first, [turn.turn for turn in turns[at : at + n]], salt, repeat, own)
            at += n
        return out

    def _turns(
        self, conversation: int, wanted: Sequence[int], salt: str | None, repeat: int, own: Sequence[str]
    ) -> list[WorkloadPrompt]:
        """Turns of one conversation. What a turn shares with an earlier prompt is what a prefix cache may hold by then:
        the prompt before it with its reply, or the shared system message."""
        script = self._script(conversation, salt, repeat)
        before = {turn - 1 for turn in wanted if turn}
        texts, ids = {}, {}
        for turn in sorted({*wanted, *before}):
            texts[turn] = self._rendered(_messages(script, turn, own))
        for turn, tokens in zip(texts, self.tokenizer.ids(list(texts.values())), strict=True):
            ids[turn] = tokens
        heard = {turn: ids[turn] for turn in before}
        if spoken := [turn for turn in before if turn < len(own)]:  # its reply is in the cache too, as it was generated
            more = self.tokenizer.ids([texts[turn] + own[turn] for turn in spoken])
            heard |= dict(zip(spoken, more, strict=True))
        prompts = []
        for turn in wanted:
            said = script.turns[turn]
            shared = _common(ids[turn], heard[turn - 1]) if turn else self._shared_system(script, conversation, ids[0])
            prompts.append(
                WorkloadPrompt(
                    messages=_messages(script, turn, own),
                    input_tokens=len(ids[turn]) + self._added,
                    output_tokens=said.output_tokens,
                    group_idx=0 if script.shared else None,
                    details=RequestDetails(
                        conversation_idx=conversation,
                        turn_idx=turn,
                        think_ns=said.think_ns,
                        source_line=script.line,
                        shared_tokens=shared + self._added if shared else 0,
                    ),
                )
            )
        return prompts

    def _shared_system(self, script: Script, conversation: int, ids: Sequence[int]) -> int:
        """Tokens with which a first prompt begins like those of earlier conversations; 0 of the first of all."""
        if not script.shared or not any(self._shares(earlier) for earlier in range(conversation)):
            return 0
        alone = [{"role": "system", "content": script.system or ""}, {"role": "user", "content": ""}]
        return _common(ids, self.tokenizer.ids([self._rendered(alone)])[0])

    def _shares(self, conversation: int) -> bool:
        return isinstance(self._source, MadeScripts) and self._source.shares_system(conversation)

    def _rendered(self, messages: list[dict[str, str]]) -> str:
        chat = self.tokenizer.chat if self._templated else None
        return chat.render(messages) if chat is not None else plain(messages)


def conversations_of(workload: Workload) -> ConversationWorkload | None:
    """The workload, where it is one of conversations."""
    return workload if isinstance(workload, ConversationWorkload) else None


def _messages(script: Script, turn: int, own: Sequence[str]) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": script.system}] if script.system else []
    for n, said in enumerate(script.turns[:turn]):
        reply = own[n] if n < len(own) else said.reply or ""
        messages += [{"role": "user", "content": said.user}, {"role": "assistant", "content": reply}]
    return [*messages, {"role": "user", "content": script.turns[turn].user}]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    n = min(len(one), len(other))
    apart = np.flatnonzero(np.asarray(one[:n]) != np.asarray(other[:n]))
    return int(apart[0]) if len(apart) else n
