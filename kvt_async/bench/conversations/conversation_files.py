"""Files of conversations with all their turns: ShareGPT, OpenAI messages, and kvt's own lines.

A turn is what the user says and the reply to it. What a user says in several messages is one turn, as is a reply in
several; words of the assistant before the user has said anything are left out, for no request asks for them; a
conversation ends before the first message that isn't text of a user or an assistant (a tool's, a picture). The last
turn may have no reply.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from kvt_async.bench.conversations.recorded_conversation import FileConversation, FileTurn
from kvt_async.bench.conversations.session_lengths import SessionLengths, is_of_session
from kvt_async.bench.prompt_files import LENGTH_KEYS, WHERE, existing, length_of, rows_of, text_of
from kvt_async.contract.errors import ConfigError

_SHAPES = (
    'ShareGPT: {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}, ...]}',
    'OpenAI: {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}, ...]}',
    'sessions of a trace: {"session_id": "a", "input_length": 300, "output_length": 40, "delay": 2000}, or chat_id and '
    "parent_chat_id",
    'own: {"system": "...", "turns": [{"prompt": "...", "reply": "...", "output_tokens": 128, "think_s": 2}, ...]}',
)
_KEYS = ("conversations", "conversation", "messages")
_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "model", "bard", "bing"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}


@dataclass(frozen=True, slots=True)
class ConversationFile:
    """What a file gave. `sha256`: of its bytes; `notes`: what was made of what can't be sent as it stands."""

    conversations: Sequence[FileConversation]
    sha256: str
    notes: Sequence[str] = ()


@dataclass(slots=True)
class _Read:
    """One file so far. `odd`: what was met, in how many conversations."""

    path: str
    odd: Counter[str] = field(default_factory=Counter)

    def notes(self) -> list[str]:
        return [f"{self.path}: {n:,} conversations {what}" for what, n in self.odd.items()]


def read_conversations(path: str) -> ConversationFile:
    """Every conversation of a file: one a line, or all in one JSON array as ShareGPT is published.

    Raises ConfigError that names file and line (of an array: entry) for what is no conversation.
    """
    file = existing(path, WHERE, "Give a .jsonl file of conversations, or leave path out: they are made then.")
    digest, conversations, read = hashlib.sha256(), list[FileConversation](), _Read(path)
    sessions = SessionLengths()
    for row, where in rows_of(file, digest):
        line = int(re.split(r"\D", where)[-1])
        if is_of_session(row):
            sessions.take(row, line, where)
            continue
        conversation = _conversation(row, line, where, read)
        if conversation is not None:
            conversations.append(conversation)
    conversations += sessions.conversations()
    if sessions.n_cut_off:
        read.odd["go on from a chat that is not there, or not the last, and begin with their whole prompt"] = (
            sessions.n_cut_off
        )
    if not conversations:
        raise ConfigError("this file has no conversations", where=str(file), details=_SHAPES)
    return ConversationFile(conversations, digest.hexdigest(), read.notes())


def _conversation(row: Any, line: int, where: str, read: _Read) -> FileConversation | None:
    """None: nobody asks anything in it."""
    if isinstance(row, dict) and isinstance(row.get("turns"), list):
        return _own(row, line, where)
    body = row.get("body") if isinstance(row, dict) else None
    row = body if isinstance(body, dict) else row
    named = row if isinstance(row, dict) else {}
    messages = next((named[key] for key in _KEYS if isinstance(named.get(key), list)), None)
    if messages is None:
        raise ConfigError("no conversation is found in this line", where=where, details=_SHAPES)
    key = next((key for key in LENGTH_KEYS if row.get(key) is not None), None)
    tokens = None if key is None else length_of(row[key], key, where)
    odd: set[str] = set()
    system, turns = _turns(_messages(messages, odd), odd)
    if not turns:
        read.odd["have nothing that a user says, and are left out"] += 1
        return None
    read.odd.update(odd)
    return FileConversation(system, tuple(FileTurn(user, reply, tokens) for user, reply in turns), line)


def _messages(messages: Sequence[Any], odd: set[str]) -> Iterator[tuple[str, str]]:
    """(role, text) up to the first message that can't be sent."""
    for message in messages:
        named = isinstance(message, dict) and str(message.get("from") or message.get("role")).lower()
        role = _ROLES.get(named or "")
        content = message.get("value", message.get("content")) if isinstance(message, dict) else None
        text = text_of(content)
        if role is None or (text is None and content is not None) or (text is None and message.get("tool_calls")):
            odd.add("end before a message that is no text of a user or an assistant (a tool's, a picture)")
            return
        if text:
            yield role, text


def _turns(messages: Iterator[tuple[str, str]], odd: set[str]) -> tuple[str | None, list[tuple[str, str | None]]]:
    """(system message, turns)."""
    systems: list[str] = []
    turns: list[tuple[str, str | None]] = []
    for role, text in messages:
        if role == "system":
            if turns:
                odd.add("have a system message after their beginning, which is put before the first turn")
            systems.append(text)
        elif role == "assistant":
            if not turns:
                odd.add("begin with the assistant, whose words before the first turn are left out")
            else:
                user, reply = turns[-1]
                turns[-1] = (user, text if reply is None else f"{reply}\n\n{text}")
        elif turns and turns[-1][1] is None:
            odd.add("have messages of the user one after the other, which are one turn")
            turns[-1] = (f"{turns[-1][0]}\n\n{text}", None)
        else:
            turns.append((text, None))
    return "\n\n".join(systems) or None, turns


def _own(row: dict[str, Any], line: int, where: str) -> FileConversation:
    turns = []
    for n, turn in enumerate(row["turns"]):
        here = f"{where}: turn {n}"
        user = text_of(turn.get("prompt")) if isinstance(turn, dict) else None
        if not user:
            raise ConfigError("this turn has no prompt", where=here, details=_SHAPES)
        reply = text_of(turn.get("reply"))
        if reply is None and n + 1 < len(row["turns"]):
            raise ConfigError(
                "this turn has no reply, and another follows",
                where=here,
                do="Give one: it is carried on.",
            )
        key = next((key for key in LENGTH_KEYS if turn.get(key) is not None), None)
        tokens = None if key is None else length_of(turn[key], key, here)
        think = turn.get("think_s")
        if think is not None and not (isinstance(think, int | float) and 0 <= think <= 86_400):
            raise ConfigError(f"think_s is {think!r}: seconds from 0 to 86400", where=here, do="Correct it.")
        turns.append(FileTurn(user, reply, tokens, think))
    if not turns:
        raise ConfigError("this conversation has no turns", where=where, details=_SHAPES)
    return FileConversation(text_of(row.get("system")), tuple(turns), line)
