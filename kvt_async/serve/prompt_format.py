"""Messages to the prompt text the model was trained on, and where in it the context ends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kvt_async.contract.errors import ConfigError
from kvt_async.data.chat_template import CHAT_FILES, TemplateRefusal, load_chat_template
from kvt_async.serve.api_errors import ApiError
from kvt_async.serve.model_files import ModelFiles
from kvt_async.serve.tokenizer import Encoded

MARK = "\ue000context\ue001"  # private-use characters: stands where the first user message's content goes
Tool = Mapping[str, Any]  # {"type": "function", "function": {"name", "description", "parameters"}}
NO_TOOLS = (
    "tools can't be offered: the chat template of this model doesn't write them, so the model would never see them. "
    "Describe the functions in the messages, or serve a model whose template takes tools"
)


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    content: str
    is_open: bool = False  # the answer goes on from it: the last message of a request with continue_final_message


class ChatTemplate:
    """The chat template of a model folder, rendered as `kvt prepare` renders it to count prompts."""

    def __init__(self, files: ModelFiles) -> None:
        where = str(files.path)
        texts = {name: text for name in CHAT_FILES if (text := files.read(name)) is not None}
        template, notes = load_chat_template(texts, where)
        if template is None:
            raise ConfigError(
                "no chat_template can be read",
                where=where,
                details=notes,
                do="Use a model folder with a chat template.",
            )
        self._template, self._shows_tools = template, template.shows_tools()

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
        """The prompt up to where the assistant answers, or goes on from an open message. Raises ApiError where the
        template refuses the messages, and for tools where it doesn't write any.
        """
        if tools and not self._shows_tools:
            raise ApiError(NO_TOOLS, param="tools")
        arguments = {"tools": list(tools)} if tools else None
        plain = [{"role": m.role, "content": m.content} for m in messages]
        try:
            return self._template.rendered(plain, arguments, continues=messages[-1].is_open)
        except TemplateRefusal as refusal:
            raise ApiError(f"The chat template refuses these messages: {refusal}", param="messages") from None

    def context_end(
        self, messages: Sequence[Message], rendered: str, context_chars: int, tools: Sequence[Tool] = ()
    ) -> int:
        """The character of `rendered` where the first `context_chars` characters of the first user message end."""
        first = next((i for i, message in enumerate(messages) if message.role == "user"), None)
        if first is None:
            raise ApiError("kv.context_chars needs a user message: its start is the context", param="kv.context_chars")
        if context_chars > len(messages[first].content):
            raise _beyond(context_chars, len(messages[first].content), "first user message")
        end = self._end_in(messages, first, rendered, context_chars, tools)
        if end is None:
            raise ApiError(
                "The chat template changes the first user message, so kv.context_chars can't be placed in it",
                param="kv.context_chars",
            )
        return end

    def messages_end(self, messages: Sequence[Message], rendered: str, n: int, tools: Sequence[Tool] = ()) -> int:
        """The character of `rendered` where the text of the n-th message ends: the context is the first n."""
        if n >= len(messages):
            raise ApiError(
                f"kv.context_messages = {n} leaves no message to read after the context: there are {len(messages)}",
                param="kv.context_messages",
            )
        end = self._end_in(messages, n - 1, rendered, len(messages[n - 1].content), tools)
        if end is None:
            raise ApiError(
                f"The chat template changes message {n}, so kv.context_messages can't be placed behind it",
                param="kv.context_messages",
            )
        return end

    def _end_in(
        self, messages: Sequence[Message], at: int, rendered: str, n_chars: int, tools: Sequence[Tool]
    ) -> int | None:
        """Where in `rendered` the first characters of one message end; None: its text doesn't stand there.

        A template may trim the message (Llama 3, Gemma): what it cut at the start is not counted.
        """
        content = messages[at].content
        start = self.render([*messages[:at], replace(messages[at], content=MARK), *messages[at + 1 :]], tools).find(
            MARK
        )
        for kept in (content, content.rstrip(), content.lstrip(), content.strip()) if start >= 0 else ():
            if rendered.startswith(kept, start):
                cut = len(content) - len(content.lstrip()) if kept[:1] != content[:1] else 0
                return start + min(max(0, n_chars - cut), len(kept))
        return None


def context_tokens(encoded: Encoded, end_char: int, context_chars: int, *, may_split: bool = False) -> int:
    """How many tokens lie before `end_char`; ApiError where that is none, cuts a token or leaves no question.

    With `may_split` a token that the end cuts belongs to what follows: byte-pair tokenizers join the last word's full
    stop with the empty line after it.
    """
    count = int(np.searchsorted(encoded.ends, end_char, side="right"))
    if not may_split and count < len(encoded.ids) and encoded.starts[count] < end_char:
        raise ApiError(
            f"kv.context_chars = {context_chars} ends inside a token ({end_char - encoded.starts[count]} after its "
            f"start, {encoded.ends[count] - end_char} before its end): end the context between two words",
            param="kv.context_chars",
        )
    if count == 0:
        raise ApiError(f"kv.context_chars = {context_chars} covers no token", param="kv.context_chars")
    if count >= len(encoded.ids):
        raise ApiError("kv.context_chars leaves nothing to read after the context", param="kv.context_chars")
    return count


def prompt_context_end(prompt: str, context_chars: int) -> int:
    """The same for a plain prompt, where characters need no mapping."""
    if context_chars > len(prompt):
        raise _beyond(context_chars, len(prompt), "prompt")
    return context_chars


def _beyond(context_chars: int, length: int, what: str) -> ApiError:
    return ApiError(
        f"kv.context_chars = {context_chars} is more than the {length} characters of the {what}",
        param="kv.context_chars",
    )
