"""Counting tokens and cutting prompts, with the tokenizer the served model has or with an explicit approximation.

`tokenizer.name` (null: model.name) is resolved in this order, and nothing is ever guessed: approx:chars/4 | reference
(the packaged model) | a tokenizer.json, a folder holding one, or a GGUF file | a Hugging Face hub id.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.gguf_model import SUFFIX, GgufModel
from kvt_async.contract.packaged_models import packaged_model
from kvt_async.contract.settings import Settings
from kvt_async.data.chat_template import (
    CONFIG_NAME,
    OLD_TEMPLATE_NAME,
    TEMPLATE_NAME,
    ChatTemplate,
    files_beside,
    load_chat_template,
)

APPROX = "approx:chars/4"
CHARS_PER_TOKEN = 4
REFERENCE = "reference"
FILE_NAME = "tokenizer.json"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_ADVICE = (
    f"Set tokenizer.name to a local tokenizer.json, its folder or a .gguf file, or to {APPROX} to estimate openly."
)


class PromptTokenizer(Protocol):
    name: str  # as resolved: tokenizer.name, else model.name
    sha256: str  # of tokenizer.json; of the name where there is no file
    chat: ChatTemplate | None
    notes: tuple[str, ...]  # worth saying where prompts are counted for the chat endpoint

    def count(self, texts: Sequence[str], *, special: bool) -> list[int]:
        """Tokens of each text. `special`: with those the tokenizer itself adds (bos); False for templated text,
        which already holds them.
        """
        ...

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without added special tokens; equal ids are what a prefix cache takes as equal."""
        ...

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where each token of the text begins and ends, in characters; tokens that stand for no text are left out."""
        ...

    def halves(self, text: str, limit: int) -> tuple[str, str] | None:
        """First and last part of a text over `limit` tokens, limit // 2 tokens each; None when it fits."""
        ...


class FileTokenizer:
    """A `tokenizers` tokenizer; counts in batches on all cores."""

    def __init__(self, data: bytes, name: str, templates: Mapping[str, bytes], where: str) -> None:
        """`templates`: the files beside that may hold a chat template, by name.

        Raises ConfigError when `data` is no tokenizer.json, or the chat template can't be used.
        """
        from tokenizers import Tokenizer as Backend

        try:
            self._backend: Any = Backend.from_buffer(data)
        except Exception as error:  # tokenizers raises bare Exception
            raise ConfigError(f"not a tokenizer.json that can be read: {error}", where=where, do=_ADVICE) from None
        self._backend.no_truncation()  # a stored max_length would hide how long a prompt is
        self._backend.no_padding()
        self.name, self.sha256 = name, hashlib.sha256(data).hexdigest()
        self.chat, self.notes = load_chat_template(templates, where)

    def count(self, texts: Sequence[str], *, special: bool) -> list[int]:
        return [len(e) for e in self._backend.encode_batch_fast(list(texts), add_special_tokens=special)]

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._backend.encode_batch(list(texts), add_special_tokens=False)]

    def spans(self, text: str) -> list[tuple[int, int]]:
        return [
            (start, stop)
            for start, stop in self._backend.encode(text, add_special_tokens=False).offsets
            if stop > start
        ]

    def halves(self, text: str, limit: int) -> tuple[str, str] | None:
        """As LongBench's script does: halves of the ids, special tokens among them, decoded and joined.

        A tokenizer whose decoding does not give the text back (it lower-cases, or drops spaces) would rewrite the
        prompt; there the same halves are taken from the text itself by their offsets.
        """
        if len(text.encode()) + 16 <= limit:  # a token is at least a byte; 16: room for added special tokens
            return None
        encoding = self._backend.encode(text)
        if len(encoding) <= limit:
            return None
        half, ids = limit // 2, encoding.ids
        if half == 0:
            return "", ""
        if self._backend.decode(ids, skip_special_tokens=True) == text:
            first, last = (self._backend.decode(part, skip_special_tokens=True) for part in (ids[:half], ids[-half:]))
            return first, last
        spans = encoding.offsets  # bos and the like span nothing
        end = max((stop for start, stop in spans[:half] if stop > start), default=0)
        begin = min((start for start, stop in spans[-half:] if stop > start), default=len(text))
        return text[:end], text[begin:]


class ApproxTokenizer:
    """Four characters a token, rounded up: no file, no network, and no claim to be the model's count."""

    def __init__(self) -> None:
        self.name, self.sha256 = APPROX, hashlib.sha256(APPROX.encode()).hexdigest()
        self.chat: ChatTemplate | None = None
        self.notes: tuple[str, ...] = ()

    def count(self, texts: Sequence[str], *, special: bool) -> list[int]:
        return [-(-len(text) // CHARS_PER_TOKEN) for text in texts]

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        step = CHARS_PER_TOKEN
        return [
            [int.from_bytes(text[at : at + step].encode(), "big") for at in range(0, len(text), step)] for text in texts
        ]

    def spans(self, text: str) -> list[tuple[int, int]]:
        return [(at, min(at + CHARS_PER_TOKEN, len(text))) for at in range(0, len(text), CHARS_PER_TOKEN)]

    def halves(self, text: str, limit: int) -> tuple[str, str] | None:
        if self.count([text], special=True)[0] <= limit:
            return None
        chars = limit // 2 * CHARS_PER_TOKEN
        return (text[:chars], text[-chars:]) if chars else ("", "")


def check_name(settings: Settings) -> tuple[str, str]:
    """The resolved name and the key it stands under; opens nothing. Raises ConfigError for an unknown approximation."""
    name = settings.tokenizer.name or settings.model.name
    key = "tokenizer.name" if settings.tokenizer.name else "model.name (tokenizer.name is null)"
    if name.startswith("approx:") and name != APPROX:
        raise ConfigError(f"there is no approximation {name!r}", where=key, do=f"The one there is: {APPROX}.")
    return name, key


def load_tokenizer(settings: Settings) -> PromptTokenizer:
    """Raises ConfigError when there is none of that name, saying what to set instead."""
    name, key = check_name(settings)
    if name == APPROX:
        return ApproxTokenizer()
    if name == REFERENCE:
        folder = resources.files("kvt_async.serve").joinpath(REFERENCE)
        with resources.as_file(folder) as path:
            return _from_file(path / FILE_NAME, name, name)
    file = _local_file(name, key)
    return _from_hub(name, key) if file is None else _from_file(file, name, str(file))


def check_tokenizer(settings: Settings) -> None:
    """Whether the tokenizer's file lies where the config says; opens nothing, and a hub id is taken as it is.

    Raises ConfigError where it does not.
    """
    name, key = check_name(settings)
    if name not in (APPROX, REFERENCE):
        _local_file(name, key)


def _local_file(name: str, key: str) -> Path | None:
    """The file that a path or a packaged model's name names; None: it is a hub id.

    Raises ConfigError for a path without a tokenizer, MissingPrerequisiteError for a package that isn't installed.
    """
    path = packaged_model(name) or Path(name)
    if path.is_dir():
        if not (path / FILE_NAME).is_file():
            raise ConfigError(f"this folder holds no {FILE_NAME}", where=f"{key} {name}", do=_ADVICE)
        return path / FILE_NAME
    if path.is_file():
        return path
    if name.endswith(".json") or name.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(name):
        raise ConfigError(f"there is no tokenizer file {name!r}", where=key, do=_ADVICE)
    return None


def _from_file(path: Path, name: str, where: str) -> PromptTokenizer:
    if path.suffix.lower() == SUFFIX:
        model = GgufModel(path)
        files = {each: text for each in (FILE_NAME, CONFIG_NAME) if (text := model.read(each)) is not None}
        return FileTokenizer(files.pop(FILE_NAME), name, files, where)
    try:
        data, beside = path.read_bytes(), files_beside(path.parent)
    except OSError as error:
        raise ConfigError(f"the tokenizer can't be read: {error.strerror}", where=where, do=_ADVICE) from None
    return FileTokenizer(data, name, beside, where)


def _from_hub(name: str, key: str) -> PromptTokenizer:
    """tokenizer.json and the chat template from the hub's cache or the hub."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    files: dict[str, bytes] = {}
    for wanted in (FILE_NAME, CONFIG_NAME, TEMPLATE_NAME, OLD_TEMPLATE_NAME):
        if wanted == OLD_TEMPLATE_NAME and (
            TEMPLATE_NAME in files or b'"chat_template"' in files.get(CONFIG_NAME, b"")
        ):
            continue
        try:
            files[wanted] = Path(hf_hub_download(name, wanted, etag_timeout=10)).read_bytes()
        except Exception as error:  # the hub client raises many kinds: no network, no such repository, gated, no file
            absent = isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)
            if (absent and wanted != FILE_NAME) or wanted == OLD_TEMPLATE_NAME:  # what was cached before lacks the last
                continue
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ConfigError(
                f"no tokenizer {name!r}: it is no local path, and the Hugging Face hub did not give {wanted}",
                where=key,
                details=(reason[:300],),
                do=f"If {name} is misspelt, correct it; otherwise {_ADVICE[0].lower()}{_ADVICE[1:]}",
            ) from None
    where = f"hub:{name}"
    return FileTokenizer(files.pop(FILE_NAME), name, files, where)
