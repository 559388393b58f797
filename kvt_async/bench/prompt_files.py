"""Prompts that come from a file: a kvt manifest, or JSON lines in one of the shapes people have."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.prompt_text import context_messages, context_parts, render
from kvt_async.contract.lengths import MOST_TOKENS
from kvt_async.data.manifest import read_head, read_items

WHERE = "bench.workload.path"
BOM = b"\xef\xbb\xbf"
MOST_LINE_BYTES = 64 << 20
MOST_ARRAY_BYTES = 1 << 30  # ShareGPT as published has 0.7 of it; it takes about five times its size in memory
LENGTH_KEYS = ("output_tokens", "max_completion_tokens", "max_tokens", "output_len")
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
    context_messages: int | None = None
    example_id: str | None = None  # of the manifest


@dataclass(frozen=True, slots=True)
class Source:
    """What a file gave: its prompts in order, its SHA-256, and how many of its rows have no prompt to send.

    `template_version`: of the template that a manifest's prompts are rendered with; None: prompts are sent as they are.
    """

    items: list[Item]
    sha256: str
    n_without_prompt: int = 0
    template_version: str | None = None


def read_manifest(path: str, system: str | None) -> Source:
    """The prompts of a manifest, rendered as a sweep sends them, and its SHA-256. Raises KvtError."""
    file = existing(path)
    head = read_head(file)
    if head.prompt.get("answer_prefix"):
        raise ConfigError(
            "a bench sends no answer prefixes inside the assistant's turn, and this manifest was prepared with them",
            where=str(file),
            do="Prepare one without prompt.answer_prefix: its prompts are shorter by these words.",
        )
    items = []
    for entry, example in read_items(file):
        messages, chars = render(
            head.prompt["template"],
            example.context,
            example.question,
            example.meta.get("turns") or (),
            head.prompt["system"],
            parts := context_parts(example.meta, example.context),
        )
        in_context = context_messages(parts, head.prompt["system"])
        items.append(Item(messages, None, None, chars, in_context, entry.example_id))
    if not items:
        raise ConfigError("this manifest has no entries", where=str(file))
    return Source(items, head.sha256, template_version=str(head.prompt["template_version"]))


def read_jsonl(path: str, system: str | None) -> Source:
    """One prompt a line, or one JSON array of them as ShareGPT is published. Raises ConfigError that names file and
    line (of an array: entry)."""
    file = existing(path)
    digest, items, n_without = hashlib.sha256(), [], 0
    for row, where in rows_of(file, digest):
        item = _item(row, where, system)
        if item is None:
            n_without += 1
        else:
            items.append(item)
    if not items:
        raise ConfigError("this file has no prompts", where=str(file), details=_SHAPES)
    return Source(items, digest.hexdigest(), n_without)


def rows_of(file: Path, digest: "hashlib._Hash") -> Iterator[tuple[Any, str]]:
    """Every row and where it stands; `digest` has seen every byte at the end."""
    number = 0
    with file.open("rb") as lines:
        while line := lines.readline(MOST_LINE_BYTES + 1):
            number += 1
            digest.update(line)
            text = line.removeprefix(BOM) if number == 1 else line
            if number == 1 and text.lstrip().startswith(b"["):
                rest = lines.read(MOST_ARRAY_BYTES + 1)
                digest.update(rest)
                if len(text) + len(rest) > MOST_ARRAY_BYTES:
                    raise _too_long("this array", MOST_ARRAY_BYTES, str(file))
                rows = _json(text + rest, str(file))
                yield from ((row, f"{file}: entry {n}") for n, row in enumerate(rows, 1))
            elif len(line) > MOST_LINE_BYTES:
                raise _too_long("this line", MOST_LINE_BYTES, f"{file}:{number}")
            elif text.strip():
                yield _json(text, f"{file}:{number}"), f"{file}:{number}"


def _too_long(what: str, most: int, where: str) -> ConfigError:
    return ConfigError(f"{what} is longer than {most >> 20:,} MiB", where=where, do="Write one JSON object a line.")


def _json(text: bytes, where: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"not JSON: {error.msg}", where=where, do="One JSON object a line.") from None


def existing(path: str, where: str = WHERE, do: str = "Give a manifest.json or a .jsonl file.") -> Path:
    """The file of this name. Raises ConfigError where there is none."""
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"there is no file {path!r}", where=where, do=do)
    return file


def _item(row: Any, where: str, system: str | None) -> Item | None:
    """The prompt of a row; None: a conversation in which no human says anything. Raises ConfigError for what has no
    prompt that we know."""
    body = row.get("body") if isinstance(row, dict) else None
    if isinstance(row, dict) and isinstance(turns := row.get("conversations") or row.get("conversation"), list):
        item = _conversation(turns)
        if item is None:
            return None
    elif isinstance(row, dict) and row.get("conversations") == []:
        return None
    else:
        item = _plain(body if isinstance(body, dict) else row, where) if isinstance(row, dict) else None
    if item is None:
        raise ConfigError("no prompt is found in this line", where=where, details=_SHAPES)
    if system and all(message["role"] != "system" for message in item.messages):
        return replace(item, messages=[{"role": "system", "content": system}, *item.messages])
    return item


def _conversation(turns: Sequence[Any]) -> Item | None:
    """The first human turn as the prompt; the reply that follows gives the length."""
    messages = [
        (_ROLES.get(str(turn.get("from") or turn.get("role"))), text_of(turn.get("value") or turn.get("content")))
        for turn in turns
        if isinstance(turn, dict)
    ]
    for at, (role, text) in enumerate(messages):
        if role == "user" and text:
            after = messages[at + 1] if at + 1 < len(messages) else (None, None)
            return Item([{"role": "user", "content": text}], None, after[1] if after[0] == "assistant" else None)
    return None


def _plain(row: dict[str, Any], where: str) -> Item | None:
    key = next((key for key in LENGTH_KEYS if row.get(key) is not None), None)
    tokens = None if key is None else length_of(row[key], key, where)
    messages = row.get("messages")
    if isinstance(messages, list) and messages:
        kept = [
            {"role": str(m["role"]), "content": text}
            for m in messages
            if isinstance(m, dict) and (text := text_of(m.get("content"))) is not None and "role" in m
        ]
        whole = len(kept) == len(messages) and any(m["role"] != "system" for m in kept)
        return Item(kept, tokens) if whole else None
    prompt = text_of(row.get("prompt"))
    return Item([{"role": "user", "content": prompt}], tokens) if prompt else None


def length_of(value: Any, key: str, where: str) -> int:
    """Tokens to ask for: 4, 4.0 and "4" are 4. Raises ConfigError: what is there and can't be used is no default."""
    number = value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = None
    if isinstance(number, bool) or not isinstance(number, int | float) or not 1 <= number <= MOST_TOKENS or number % 1:
        raise ConfigError(
            f"{key} is {value!r}, which is no length: a whole number from 1 to {MOST_TOKENS:,}",
            where=where,
            do=f"Correct it, or leave {key} out: bench.workload.output_tokens, else decoding.max_tokens is asked for.",
        )
    return int(number)


def text_of(value: Any) -> str | None:
    """The text of a string or of content parts that are all text; None for anything else (a picture can't be sent as
    text)."""
    if isinstance(value, str):
        return value
    if (
        isinstance(value, list)
        and value
        and all(
            isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str)
            for part in value
        )
    ):
        return "".join(part["text"] for part in value)
    return None
