"""What is said in a conversation, before anything is sent: made to the exact token, or taken from a file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from kvt_async.bench import length_draws
from kvt_async.bench.conversations import think_times
from kvt_async.bench.conversations.recorded_conversation import FileConversation
from kvt_async.bench.exact_texts import TextMaker
from kvt_async.contract.bench_settings import Bench
from kvt_async.contract.conversation_settings import ThinkTimes

_TURNS, _INPUT, _OUTPUT, _THINK = 11, 12, 13, 14  # streams of draws
_NO_PAUSE = ThinkTimes()


@dataclass(frozen=True, slots=True)
class ScriptedTurn:
    """`reply`: what is carried on as the answer where the history is recorded; None: nobody recorded one, and none is
    needed, for the turn is the last. `think_ns`: before the turn, after the end of the one before; None: the first."""

    user: str
    reply: str | None
    output_tokens: int
    think_ns: int | None


@dataclass(frozen=True, slots=True)
class Script:
    """A conversation. `shared`: its system message is the one of all that share; `line`: of the file, from 1."""

    system: str | None
    turns: tuple[ScriptedTurn, ...]
    shared: bool = False
    line: int | None = None


class ScriptSource(Protocol):
    """Conversations by number, of one repeat and salt (None: the same in every stage)."""

    def turns(self, conversation: int, repeat: int) -> int: ...

    def script(self, conversation: int, salt: str | None, repeat: int) -> Script: ...


class MadeScripts:
    """Words drawn by (seed, salt, conversation, turn): every text has its own, but for the shared system message."""

    def __init__(self, bench: Bench, maker: TextMaker, system: str | None) -> None:
        """`system`: of prompt.system, which begins every prompt."""
        self._bench, self._maker, self._system = bench, maker, system

    def turns(self, conversation: int, repeat: int) -> int:
        return length_draws.draw(self._bench.workload.turns, (self._bench.seed, repeat, conversation, 0, _TURNS))

    def shares_system(self, conversation: int) -> bool:
        """Of every n first conversations the asked share, as near as whole ones go."""
        share = self._bench.workload.shared_system
        return int((conversation + 1) * share + 1e-9) > int(conversation * share + 1e-9)

    def script(self, conversation: int, salt: str | None, repeat: int) -> Script:
        bench, work = self._bench, self._bench.workload
        assert work.output_tokens is not None
        root, shared = f"{bench.seed}:{salt or ''}", self.shares_system(conversation)
        n = self.turns(conversation, repeat)
        keys = [(bench.seed, repeat, conversation, turn) for turn in range(n)]
        users = [length_draws.draw(work.input_tokens, (*key, _INPUT)) for key in keys]
        outputs = [length_draws.draw(work.output_tokens, (*key, _OUTPUT)) for key in keys]
        wanted = [(tokens, f"{root}:{conversation}:user:{turn}") for turn, tokens in enumerate(users)]
        wanted += [(tokens, f"{root}:{conversation}:reply:{turn}") for turn, tokens in enumerate(outputs[:-1])]
        if work.system_tokens:
            wanted.append((work.system_tokens, f"{root}:system" if shared else f"{root}:{conversation}:system"))
        texts = self._maker.plain_texts(wanted)
        system = texts.pop() if work.system_tokens else None
        replies: list[str | None] = [*texts[n:], None]
        pauses = [_think_ns(work.think_s or _NO_PAUSE, key) for key in keys]
        turns = (ScriptedTurn(*turn) for turn in zip(texts[:n], replies, outputs, pauses, strict=True))
        return Script("\n\n".join(filter(None, (self._system, system))) or None, tuple(turns), shared)


class FileScripts:
    """The conversations of a file in its order, and from the start again at its end; the salt goes before the first
    thing that the user says."""

    def __init__(
        self,
        bench: Bench,
        maker: TextMaker,
        system: str | None,
        conversations: Sequence[FileConversation],
        default_output: int,
    ) -> None:
        """`default_output`: tokens to ask for where neither config nor file says how many."""
        self._bench, self._maker, self._system = bench, maker, system
        self._conversations, self._default_output = conversations, default_output

    def turns(self, conversation: int, repeat: int) -> int:
        return len(self._conversations[conversation % len(self._conversations)].turns)

    def script(self, conversation: int, salt: str | None, repeat: int) -> Script:
        bench, work = self._bench, self._bench.workload
        read = self._conversations[conversation % len(self._conversations)]
        lengths = self._reply_lengths(read) if work.output_tokens is None else []
        is_made = read.turns[0].input_tokens is not None
        turns = []
        for n, said in enumerate(read.turns):
            key = (bench.seed, repeat, conversation, n)
            out = length_draws.draw(work.output_tokens, (*key, _OUTPUT)) if work.output_tokens else lengths[n]
            if work.think_s is None and n > 0:
                pause: int | None = round((said.think_s or 0.0) * 1e9)
            else:
                pause = _think_ns(work.think_s or _NO_PAUSE, key)
            turns.append(ScriptedTurn(said.user, said.reply, out, pause))
        if is_made:
            turns = self._made(read, turns, f"{bench.seed}:{salt or ''}:{conversation}")
        elif salt is not None:
            head = self._maker.salt(f"{bench.seed}:{salt}:{conversation}")
            turns[0] = replace(turns[0], user=f"{head}\n\n{turns[0].user}")
        return Script(read.system or self._system, tuple(turns), line=read.line)

    def _made(self, read: FileConversation, turns: Sequence[ScriptedTurn], root: str) -> list[ScriptedTurn]:
        """The same turns with text of the lengths that the file says."""
        wanted = [(said.input_tokens or 1, f"{root}:user:{n}") for n, said in enumerate(read.turns)]
        wanted += [(turn.output_tokens, f"{root}:reply:{n}") for n, turn in enumerate(turns[:-1])]
        texts = self._maker.plain_texts(wanted)
        users, replies = texts[: len(turns)], [*texts[len(turns) :], None]
        return [replace(turn, user=users[n], reply=replies[n]) for n, turn in enumerate(turns)]

    def mean_output_tokens(self) -> float:
        """Of the first thousand conversations."""
        return float(np.mean([n for read in self._conversations[:1000] for n in self._reply_lengths(read)]))

    def _reply_lengths(self, read: FileConversation) -> list[int]:
        counts = self._maker.tokenizer.count([turn.reply or "" for turn in read.turns], special=False)
        return [
            turn.output_tokens or (max(n, 1) if turn.reply else self._default_output)
            for turn, n in zip(read.turns, counts, strict=True)
        ]


def _think_ns(times: ThinkTimes, key: tuple[int, int, int, int]) -> int | None:
    """Before the turn with this key (seed, repeat, conversation, turn); None: it is the first."""
    return think_times.draw_ns(times, (*key, _THINK)) if key[3] else None
