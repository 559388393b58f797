"""Sessions of a trace -> conversations of which only the lengths are known: their text is made.

aiperf's Mooncake rows: {"session_id", "input_length", "output_length", "delay" (ms)}; an input_length is what its turn
adds. Bailian's: {"chat_id", "parent_chat_id" (-1: none), "timestamp" (s), "input_length", "output_length"}; there it is
the whole prompt, so that a turn adds what is beyond the prompt and the reply before it. Where no delay is said, the
think time is the gap of the timestamps, in which the reply before was still being made.
"""

from dataclasses import dataclass, field
from typing import Any

from kvt_async.bench.conversations.recorded_conversation import FileConversation, FileTurn
from kvt_async.bench.prompt_files import length_of

_NO_PARENT = -1
MOST_THINK_S = 86_400.0


@dataclass(slots=True)
class _Session:
    line: int
    turns: list[FileTurn] = field(default_factory=list)
    newest: object = None  # its last chat
    prompt: int = 0  # tokens of the last prompt with its reply
    timestamp_s: float | None = None


@dataclass(slots=True)
class SessionLengths:
    """Sessions in the order in which they begin. `n_cut_off`: chats whose parent is not in the file, or goes on in
    another one already: each begins a session, with its whole prompt."""

    sessions: dict[object, _Session] = field(default_factory=dict)
    session_of: dict[object, object] = field(default_factory=dict)  # by chat
    n_cut_off: int = 0

    def take(self, row: dict[str, Any], line: int, where: str) -> None:
        """A row. Raises ConfigError for a length that is none."""
        tokens = length_of(row["input_length"], "input_length", where)
        asked = row.get("output_length")
        output = max(length_of(asked, "output_length", where), 1) if asked else 1
        is_bailian = "chat_id" in row
        name = self._chain(row) if is_bailian else row["session_id"]
        session = self.sessions.setdefault(name, _Session(line))
        at = row.get("timestamp")
        at_s = float(at) / (1.0 if is_bailian else 1000.0) if isinstance(at, int | float) else None
        think_s = None
        if session.turns:
            delay = row.get("delay")
            if isinstance(delay, int | float):
                think_s = delay / 1000.0
            elif at_s is not None and session.timestamp_s is not None:
                think_s = at_s - session.timestamp_s
        added = max(tokens - session.prompt, 1) if is_bailian else tokens
        pause = None if think_s is None else min(max(think_s, 0.0), MOST_THINK_S)
        session.turns.append(FileTurn("", None, output, pause, added))
        session.prompt, session.timestamp_s, session.newest = tokens + output, at_s, row.get("chat_id")

    def conversations(self) -> list[FileConversation]:
        return [FileConversation(None, tuple(one.turns), one.line) for one in self.sessions.values()]

    def _chain(self, row: dict[str, Any]) -> object:
        """The session that a chat belongs to: its parent's, where the parent is its newest."""
        chat, parent = row["chat_id"], row.get("parent_chat_id", _NO_PARENT)
        name = self.session_of.get(parent)
        if parent != _NO_PARENT and (name is None or self.sessions[name].newest != parent):
            self.n_cut_off += 1
            name = None
        self.session_of[chat] = chat if name is None else name
        return self.session_of[chat]


def is_of_session(row: Any) -> bool:
    """Whether it is a row of a trace with sessions."""
    return isinstance(row, dict) and "input_length" in row and ("session_id" in row or "chat_id" in row)
