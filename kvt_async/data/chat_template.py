"""Chat templates as Hugging Face tokenizers ship them: messages -> the text a server tokenises, in a jinja2 sandbox."""

import codecs
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.reasoning import left_open

CONFIG_NAME = "tokenizer_config.json"
TEMPLATE_NAME = "chat_template.jinja"
OLD_TEMPLATE_NAME = "chat_template.json"
CHAT_FILES = (CONFIG_NAME, TEMPLATE_NAME, OLD_TEMPLATE_NAME)  # that may hold a chat template
_TODAY = datetime(2024, 7, 26)  # noqa: DTZ001 - templates that print a date get a fixed one: counts must repeat
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_PROBE = "kvt-probe"
PROBE_TOOL = {"type": "function", "function": {"name": _PROBE, "description": "", "parameters": {"type": "object"}}}
_ADVICE = "Use prompt.endpoint: completions, or a tokenizer whose chat template takes plain text."

Message = Mapping[str, Any]


class TemplateRefusal(Exception):
    """A template can't render these messages: it refuses them, or its code fails on them."""


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}`: marks the assistant's tokens for training; here it is its body."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """One compiled template with the special tokens it may name.

    A template that renders nothing of a plain text gets the text as a content part, as servers send it then.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str], where: str) -> None:
        """Raises ConfigError when the template is not valid jinja2, or renders nothing of a user message either way."""
        self.sha256 = hashlib.sha256(source.encode()).hexdigest()
        self._special, self._where = dict(special_tokens), where
        env = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        env.filters["tojson"] = _to_json
        env.globals["raise_exception"] = _refuse
        env.globals["strftime_now"] = _TODAY.strftime
        try:
            self._template = env.from_string(source)
        except (TemplateError, RecursionError) as error:
            raise ConfigError(f"the chat template is not valid: {error}", where=where) from None
        self.in_parts = False
        if not self._shows("user"):
            self.in_parts = True
            if not self._shows("user"):
                raise ConfigError("the chat template renders nothing of a user's message", where=where, do=_ADVICE)

    def render(
        self, messages: Sequence[Message], tools: Sequence[Message] | None = None, *, continues: bool = False
    ) -> str:
        """As `rendered`. Raises ConfigError when the template refuses these messages (some know no system role) or
        fails on them."""
        try:
            return self.rendered(messages, {"tools": list(tools)} if tools else None, continues=continues)
        except TemplateRefusal as refusal:
            raise ConfigError(
                f"the chat template refuses this prompt: {refusal}",
                where=self._where,
                do="Change prompt.system, or use prompt.endpoint: completions.",
            ) from None

    def rendered(
        self, messages: Sequence[Message], arguments: Mapping[str, Any] | None = None, *, continues: bool = False
    ) -> str:
        """The text up to where the assistant answers; `arguments` as chat_template_kwargs. Raises TemplateRefusal.

        continues: up to the end of the last message, which the answer goes on from, as servers render it that are sent
        `continue_final_message`. The template itself is then asked for no new turn.
        """
        begun = str(messages[-1]["content"]).strip() if continues else ""
        if self.in_parts:
            messages = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
        names = {"tools": None, "documents": None, **self._special, **(arguments or {})}
        try:
            text = self._template.render(names | {"messages": list(messages), "add_generation_prompt": not continues})
        except TemplateError as error:
            raise TemplateRefusal(str(error)) from None
        except Exception as error:  # a template is a program of somebody else's: it may fail in any way
            raise TemplateRefusal(f"{type(error).__name__} in its code: {error}") from None
        if not continues:
            return text
        before, found, _ = text.rpartition(begun)
        if not (begun and found):
            raise TemplateRefusal("it doesn't show the last message, which the answer is to go on from")
        return before + begun

    @property
    def bos(self) -> str:
        """The mark of a text's beginning; empty where none is named."""
        return self._special.get("bos_token", "")

    def drops_system(self) -> bool:
        """Whether it leaves a system message out without a word."""
        return not self._shows("system")

    def shows_tools(self) -> bool:
        """Whether it writes the tools that it is given; True where it refuses to say."""
        try:
            return shows_probe(self.rendered([{"role": "user", "content": "x"}], {"tools": [PROBE_TOOL]}))
        except TemplateRefusal:
            return True

    def reasoning_tag(self, arguments: Mapping[str, Any]) -> str | None:
        """The mark of reasoning that it leaves open before the answer; None: it opens none."""
        try:
            text = self.rendered([{"role": "user", "content": _PROBE}], arguments)
        except TemplateRefusal:
            return None
        return left_open(text.rpartition(_PROBE)[2])

    def _shows(self, role: str) -> bool:
        """Whether a text in this role is rendered; True where the template refuses to say."""
        messages = [{"role": role, "content": _PROBE}]
        if role != "user":
            messages.append({"role": "user", "content": "x"})
        try:
            text = self.rendered(messages).lower()
            return _PROBE in text and not (self.in_parts and "'type': 'text'" in text)  # Python's writing of the parts
        except TemplateRefusal:
            return True


def shows_probe(rendered: str) -> bool:
    """Whether PROBE_TOOL, offered with a message, came into the text."""
    return _PROBE in rendered


def load_chat_template(files: Mapping[str, bytes], where: str) -> tuple[ChatTemplate | None, tuple[str, ...]]:
    """The chat template in the first of chat_template.jinja, tokenizer_config.json and chat_template.json that has one
    (None: none has), and sentences about it. `files`: their contents by name.
    """
    config = _object(files.get(CONFIG_NAME, b"{}"), CONFIG_NAME, where)
    source = config.get("chat_template")
    if TEMPLATE_NAME in files:
        source = files[TEMPLATE_NAME].decode("utf-8-sig", "replace")
    if not source and OLD_TEMPLATE_NAME in files:
        source = _object(files[OLD_TEMPLATE_NAME], OLD_TEMPLATE_NAME, where).get("chat_template")
    if isinstance(source, list):  # named templates
        source = {str(e.get("name")): e.get("template") for e in source if isinstance(e, dict)}
    if isinstance(source, dict):
        names = ", ".join(sorted(source)) or "none"
        source = source.get("default")
        if not source:
            return None, (f"{where} names chat templates ({names}) and no 'default': counted without a chat template",)
    if not source:
        return None, (f"{where} has no chat template: prompts are counted without one",)
    if not isinstance(source, str):
        raise ConfigError("chat_template is neither a text nor a list of named texts", where=where)
    special = {name: _content(config[name]) for name in _SPECIAL if config.get(name) is not None}
    template = ChatTemplate(source, special, where)
    parts = f"the chat template of {where} reads content parts: a message is counted as one text part"
    return template, (parts,) if template.in_parts else ()


def files_beside(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in CHAT_FILES if (folder / name).is_file()}


def _object(data: bytes, name: str, where: str) -> dict[str, Any]:
    try:
        loaded = orjson.loads(data.removeprefix(codecs.BOM_UTF8))
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{name} is not valid JSON: {error.msg}", where=where) from None
    return loaded if isinstance(loaded, dict) else {}


def _content(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else str(token)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """transformers' filter: not HTML-escaped, unlike jinja2's own."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> None:
    raise TemplateError(message)
