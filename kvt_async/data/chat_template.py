"""Chat templates as Hugging Face tokenizers ship them: messages -> the text a server tokenises, in a jinja2 sandbox."""

import hashlib
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

CONFIG_NAME = "tokenizer_config.json"
TEMPLATE_NAME = "chat_template.jinja"
_TODAY = datetime(2024, 7, 26)  # noqa: DTZ001 - templates that print a date get a fixed one: counts must repeat
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}`: marks the assistant's tokens for training; here it is its body."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """One compiled template with the special tokens it may name."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], where: str) -> None:
        """Raises ConfigError when the template is not valid jinja2."""
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
        except TemplateError as error:
            raise ConfigError(f"the chat template is not valid: {error}", where=where) from None

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Raises ConfigError when the template refuses these messages (some know no system role)."""
        try:
            return self._template.render(
                messages=list(messages), add_generation_prompt=True, tools=None, documents=None, **self._special
            )
        except TemplateError as error:
            raise ConfigError(
                f"the chat template refuses this prompt: {error}",
                where=self._where,
                do="Change prompt.system, or use prompt.endpoint: completions.",
            ) from None


def load_chat_template(files: Mapping[str, bytes], where: str) -> ChatTemplate | None:
    """From the contents of tokenizer_config.json and chat_template.jinja, which wins; None where neither has one."""
    config = _config(files.get(CONFIG_NAME, b"{}"), where)
    source: Any = config.get("chat_template")
    if isinstance(source, list):  # named templates
        source = {entry.get("name"): entry.get("template") for entry in source}.get("default")
    if TEMPLATE_NAME in files:
        source = files[TEMPLATE_NAME].decode()
    if not source:
        return None
    special = {name: _content(config[name]) for name in _SPECIAL if config.get(name) is not None}
    return ChatTemplate(str(source), special, where)


def files_beside(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (CONFIG_NAME, TEMPLATE_NAME) if (folder / name).is_file()}


def _config(data: bytes, where: str) -> dict[str, Any]:
    try:
        config = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{CONFIG_NAME} is not valid JSON: {error.msg}", where=where) from None
    return config if isinstance(config, dict) else {}


def _content(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else str(token)


def _to_json(value: Any, indent: int | None = None) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, indent=indent)  # not HTML-escaped, unlike jinja2's own


def _refuse(message: str) -> None:
    raise TemplateError(message)
