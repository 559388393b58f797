"""OpenAI MRCR: the n-th of several equal pieces of writing, somewhere in a conversation of up to a million tokens.

Read in the card and the file list of openai/mrcr, and in public code that reads its rows. A row has prompt (messages as
JSON text), answer, random_string_to_prepend, n_needles, desired_msg_index, total_messages, n_chars, date_added. The
first message holds worked examples, then user and assistant take turns, and the last message of the user asks. The
messages go out as they are: all before the last are the context, `meta.context_messages`.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import orjson

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.prompt_text import CONVERSATION, unsaid_context
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import Mode
from kvt_async.data.sources.json_rows import text_field
from kvt_async.data.sources.published_files import PublishedFile
from kvt_async.data.sources.published_source import Params, PublishedSource, PublishedTask, Record, each_record
from kvt_async.data.sources.source import Published, content_id
from kvt_async.records import Example

REPO = "openai/mrcr"
REVISION = "f4c69fae7cf81f7ca26b9fee34b392a50f6b8a1d"  # of 2025-12-08: golds and needles of some rows were corrected
NEEDLES = (2, 4, 8)
ANSWER_TOKENS = 2000  # the card's script sets no limit; this is HELM's (long_context_run_specs.py)
_SCHEMA = (
    'A row of MRCR is {"prompt": "[{\\"role\\": \\"user\\", \\"content\\": ...}, ...]", "answer": "...", '
    '"random_string_to_prepend": "...", "n_needles": 2}.'
)


def _task(key: str, params: Params) -> PublishedTask:
    files = tuple(
        PublishedFile(REPO, REVISION, f"{key}/{key}_{part}.parquet", (f"{key}.parquet", f"{key}.jsonl"))
        for part in range(2)
    )
    rows = each_record(partial(_examples, n_needles=int(key.removesuffix("needle"))))
    return PublishedTask(Published(ANSWER_TOKENS, "mrcr"), files, rows, template=CONVERSATION)


def _examples(record: Record, where: str, *, n_needles: int) -> Iterator[Example]:
    """The example of a row; none where the row is another task's, as in a file of all three."""
    if record["n_needles"] != n_needles:
        return
    messages = _messages(record["prompt"], where)
    answer, prefix = (text_field(record, name, where, _SCHEMA) for name in ("answer", "random_string_to_prepend"))
    *haystack, (_, question) = messages
    context = "".join(content for _, content in haystack)
    meta: dict[str, Any] = {
        name: value if value is None or isinstance(value, str | int | float) else str(value)
        for name, value in record.items()
        if name not in ("prompt", "answer")
    }
    meta["random_string_to_prepend"] = prefix
    meta["context_messages"] = [[role, len(content)] for role, content in haystack]
    yield Example(content_id(question, context, (answer,)), question, context, (answer,), meta)


def _messages(prompt: object, where: str) -> list[tuple[str, str]]:
    """(role, content) of each message. Raises ConfigError for what is no chat that ends in a question."""
    messages: object = prompt
    if isinstance(prompt, str):
        try:
            messages = orjson.loads(prompt)
        except orjson.JSONDecodeError as error:
            raise ConfigError(f"prompt is no JSON: {error.msg}", where=where, do=_SCHEMA) from None
    if not isinstance(messages, list) or not all(
        isinstance(message, dict) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
        for message in messages
    ):
        raise ConfigError("prompt is no list of chat messages", where=where, do=_SCHEMA)
    if not messages or messages[-1]["role"] != "user":
        raise ConfigError("the last message is not the user's", where=where, do=_SCHEMA)
    return [(message["role"], message["content"]) for message in messages]


def _refuse(settings: Settings) -> None:
    """Raises ConfigError for what would change the published messages, or have a server compress something else."""
    prompt, kv = settings.prompt, settings.kv
    for key, given, do in (
        ("prompt.endpoint", prompt.endpoint != "chat", "Set it to chat: text completions have no roles."),
        ("prompt.template", prompt.template is not None, "Set it to null: the messages go out as they are."),
        (
            "prompt.max_context_tokens",
            prompt.max_context_tokens is not None,
            "Set it to null. binning.edges leaves out what is too long for the server, as the published script does.",
        ),
    ):
        if given:
            raise ConfigError("mrcr is published as conversations, which are sent whole", where=key, do=do)
    entries = (*(kv.levels or ()), *(entry for entry in kv.policies or () if not isinstance(entry, str)))
    sent = orjson.dumps(kv.apply.model_dump(mode="json"))
    if b"{context_chars}" in sent and b"{context_messages}" not in sent:
        for mode in (kv.mode, *(entry.mode for entry in entries)):
            if mode == Mode.AGNOSTIC:
                raise unsaid_context("mode: question_agnostic")


SOURCE = PublishedSource(
    name="mrcr",
    tasks={f"{n}needle": f"which of {n} equal pieces of writing in a long conversation" for n in NEEDLES},
    task=_task,
    refuse=_refuse,
)
