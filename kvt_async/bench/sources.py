"""Prompts that come from a file: a kvt manifest, or JSON lines in one of the shapes people have."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.prompt import render
from kvt_async.data.manifest import read_head, read_items

WHERE = "bench.workload.path"
_SHAPES = (
    'ShareGPT: {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}',
    'OpenAI batch: {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [...]}}',
    'plain: {"prompt": "...", "output_tokens": 128} or {"messages": [...]}',
)
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


@dataclass(frozen=True, slots=True)
class Item:
    messages: list[dict[str, str]]
    output_tokens: int | None = None  # what the file asks for
    answer: str | None = None  # a recorded reply: its length is what to ask for
    context_chars: int | None = None


def read_manifest(path: str, system: str | None) -> tuple[list[Item], str]:
    """The prompts of a manifest, rendered as a sweep sends them, and its SHA-256. Raises KvtError."""
    file = _existing(path)
    head = read_head(file)
    items = []
    for _, example in read_items(file):
        messages, chars = render(
            head.prompt["template"], example.context, example.question, example.meta.get("turns") or (),
            head.prompt["system"],
        )  # fmt: skip
        items.append(Item(messages, None, None, chars))
    if not items:
        raise ConfigError("this manifest has no entries", where=str(file))
    return items, head.sha256


def read_jsonl(path: str, system: str | None) -> tuple[list[Item], str]:
    """One prompt a line, and the file's SHA-256. Raises ConfigError that names file and line."""
    file, digest, items = _existing(path), hashlib.sha256(), []
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            digest.update(line)
            if line.strip():
                items.append(_item(line, f"{file}:{number}", system))
    if not items:
        raise ConfigError("this file has no prompts", where=str(file), details=_SHAPES)
    return items, digest.hexdigest()


def _existing(path: str) -> Path:
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"there is no file {path!r}", where=WHERE, do="Give a manifest.json or a .jsonl file.")
    return file


def _item(line: bytes, where: str, system: str | None) -> Item:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"not JSON: {error.msg}", where=where, do="One JSON object a line.") from None
    found = _conversation(row) or _batch(row) or _plain(row) if isinstance(row, dict) else None
    if found is None:
        raise ConfigError("no prompt is found in this line", where=where, details=_SHAPES)
    if system and all(message["role"] != "system" for message in found.messages):
        return Item([{"role": "system", "content": system}, *found.messages], found.output_tokens, found.answer)
    return found


def _conversation(row: dict[str, Any]) -> Item | None:
    """The first human turn; the reply that follows gives the length."""
    turns = row.get("conversations") or row.get("conversation")
    if not isinstance(turns, list):
        return None
    said = [
        (_ROLES.get(str(turn.get("from") or turn.get("role"))), turn.get("value") or turn.get("content"))
        for turn in turns
        if isinstance(turn, dict)
    ]
    for at, (role, text) in enumerate(said):
        if role == "user" and isinstance(text, str) and text:
            after = said[at + 1] if at + 1 < len(said) else (None, None)
            answer = after[1] if after[0] == "assistant" and isinstance(after[1], str) else None
            return Item([{"role": "user", "content": text}], None, answer)
    return None


def _batch(row: dict[str, Any]) -> Item | None:
    body = row.get("body")
    return _plain(body) if isinstance(body, dict) else None


def _plain(row: dict[str, Any]) -> Item | None:
    asked = next(
        (row[k] for k in ("output_tokens", "max_completion_tokens", "max_tokens", "output_len") if k in row), None
    )
    tokens = asked if isinstance(asked, int) and not isinstance(asked, bool) and asked > 0 else None
    messages = row.get("messages")
    if isinstance(messages, list) and messages:
        kept = [
            {"role": str(m["role"]), "content": m["content"]}
            for m in messages
            if isinstance(m, dict) and isinstance(m.get("content"), str) and "role" in m
        ]
        whole = len(kept) == len(messages) and any(m["role"] != "system" for m in kept)
        return Item(kept, tokens) if whole else None
    prompt = row.get("prompt")
    return Item([{"role": "user", "content": prompt}], tokens) if isinstance(prompt, str) and prompt else None
