"""Prompt text in, answer text out: the chat template, where the context ends, streaming text, stop strings."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment

from kvt_async.contract.errors import ConfigError
from kvt_async.serve.api_errors import ApiError
from kvt_async.serve.engine import Engine
from kvt_async.serve.kvpress_model import HubTemplate
from kvt_async.serve.model_files import FolderFiles
from kvt_async.serve.prompt_format import ChatTemplate, Message, context_tokens
from kvt_async.serve.tokenizer import Detokenizer, StopWatch, Tokenizer
from kvt_async.serve.weights import REFERENCE_DIR
from tests.serve.support import GOLDEN, TOOLS_HEAD, WEATHER, example, with_tools


@pytest.fixture(scope="module")
def template() -> ChatTemplate:
    return ChatTemplate(FolderFiles(REFERENCE_DIR))


def test_the_chat_template_renders_what_transformers_renders(template: ChatTemplate) -> None:
    stored = json.loads((GOLDEN / "parity.json").read_text())["chat"]
    messages = [Message(**message) for message in stored["messages"]]
    assert template.render(messages) == stored["rendered"]


def test_a_message_that_the_template_refuses_is_the_clients_error(template: ChatTemplate) -> None:
    with pytest.raises(ApiError) as refused:
        template.render([Message("tool", "x")])
    assert refused.value.status == 400
    assert "system, user and assistant" in str(refused.value)


def test_a_folder_without_a_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        ChatTemplate(FolderFiles(tmp_path))


def test_context_characters_become_the_context_tokens(engine: Engine, template: ChatTemplate) -> None:
    ex = example(200)
    messages = [Message("system", "look at"), Message("user", f"{ex.context} {ex.question}")]
    rendered = template.render(messages)
    encoded = engine.tokenizer.encode(rendered, special=False)
    end = template.context_end(messages, rendered, len(ex.context))
    count = context_tokens(encoded, end, len(ex.context))
    assert count == ex.meta["context_tokens"] + len(["<bos>", "<system>", "look", "at", "<user>"])
    assert engine.tokenizer.decode(encoded.ids[5:count].tolist()) == ex.context
    with_space = template.context_end(messages, rendered, len(ex.context) + 1)
    assert context_tokens(encoded, with_space, len(ex.context) + 1) == count


@pytest.mark.parametrize(
    ("chars", "says"), [(5, "inside a token"), (16, "nothing to read after"), (0, "covers no token")]
)
def test_a_context_that_cuts_a_token_or_leaves_no_question_is_refused(engine: Engine, chars: int, says: str) -> None:
    encoded = engine.tokenizer.encode("the code of mira", special=False)
    with pytest.raises(ApiError) as refused:
        context_tokens(encoded, chars, chars)
    assert says in str(refused.value)
    assert refused.value.param == "kv.context_chars"


def test_a_context_longer_than_the_first_user_message_is_refused(template: ChatTemplate) -> None:
    messages = [Message("user", "the code of mira"), Message("assistant", "100"), Message("user", "longer than that")]
    rendered = template.render(messages)
    with pytest.raises(ApiError) as refused:
        template.context_end(messages, rendered, 17)
    assert "17 is more than the 16 characters" in str(refused.value)


def trimming(tmp_path: Path, expression: str) -> ChatTemplate:
    """The packaged model's chat template, with `expression` for a user's content."""
    config = json.loads((REFERENCE_DIR / "tokenizer_config.json").read_text())
    config["chat_template"] = config["chat_template"].replace(
        "' <user> ' + message['content']", f"' <user> ' + ({expression})"
    )
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return ChatTemplate(FolderFiles(tmp_path))


@pytest.mark.parametrize("expression", ["message['content'] | trim", "message['content'].strip()"])
@pytest.mark.parametrize(("lead", "trail"), [("", ""), ("\n\n", ""), ("", "\n"), (" \n", " \n\n")])
def test_a_template_that_trims_leaves_the_context_where_it_is(
    tmp_path: Path, engine: Engine, expression: str, lead: str, trail: str
) -> None:
    template, context = trimming(tmp_path, expression), lead + "the code of mira is anna ."
    messages = [Message("user", f"{context} what is the code ?{trail}")]
    rendered = template.render(messages)
    end = template.context_end(messages, rendered, len(context))
    assert rendered[:end].endswith("<user> the code of mira is anna .")
    encoded = engine.tokenizer.encode(rendered, special=False)
    assert context_tokens(encoded, end, len(context)) == 9  # <bos> <user> and seven words


def test_a_template_that_trims_one_end_or_rewrites_the_text_is_told_apart(tmp_path: Path) -> None:
    messages = [Message("user", "  mira is anna . who ?  ")]
    for expression, cut in (("message['content'].rstrip()", 0), ("message['content'].lstrip()", 2)):
        template = trimming(tmp_path, expression)
        rendered = template.render(messages)
        assert template.context_end(messages, rendered, 16) == rendered.index("who") - 1, expression
        assert template.context_end(messages, rendered, 1) == rendered.index("<user> ") + 7 + max(0, 1 - cut)
    template = trimming(tmp_path, "message['content'] | upper")
    with pytest.raises(ApiError, match="changes the first user message"):
        template.context_end(messages, template.render(messages), 16)


def test_the_kvpress_backend_renders_trims_and_parts_alike(tmp_path: Path) -> None:
    """transformers' own rendering stands behind it: any object with a chat_template and apply_chat_template."""

    class Tokenizer:
        def __init__(self, source: str) -> None:
            self.chat_template, self._template = source, Environment(autoescape=False).from_string(source)

        def apply_chat_template(self, messages: list[dict[str, str]], **_: Any) -> str:
            return self._template.render(messages=messages)

    messages = [Message("user", "\nmira is anna . who ?\n")]
    trims = HubTemplate(Tokenizer("<user> {{ messages[0].content | trim }}|"))
    assert trims.context_end(messages, trims.render(messages), 15) == len("<user> mira is anna .")
    parts = HubTemplate(Tokenizer("<user> {% for part in messages[0].content %}{{ part.text }}{% endfor %}|"))
    assert parts.render(messages) == "<user> \nmira is anna . who ?\n|"
    for source, says in (("hello", "renders nothing"), ("{{ 1 // 0 }}", "refuses these messages")):
        with pytest.raises(ApiError, match=says):
            HubTemplate(Tokenizer(source)).render(messages)


def test_tools_are_rendered_and_the_context_still_ends_in_the_first_user_message(tmp_path: Path) -> None:
    template = ChatTemplate(FolderFiles(with_tools(tmp_path, TOOLS_HEAD)))
    messages = [Message("user", "the code of mira is anna . who ?")]
    rendered = template.render(messages, [WEATHER])
    assert rendered == "<bos> <system> weather" + template.render(messages).removeprefix("<bos>")
    end = template.context_end(messages, rendered, 16, [WEATHER])
    assert rendered[:end].endswith("<user> the code of mira")
    assert template.context_end(messages, rendered, 0, [WEATHER]) == rendered.index("the code")  # the tools alone


def test_a_context_of_several_messages_ends_where_the_text_of_the_last_of_them_does(template: ChatTemplate) -> None:
    messages = [
        Message("user", "mira is anna ."),
        Message("assistant", "look"),
        Message("user", "the code of mira ?"),
    ]
    rendered = template.render(messages)
    assert rendered[: template.messages_end(messages, rendered, 1)].endswith("<user> mira is anna .")
    assert rendered[: template.messages_end(messages, rendered, 2)].endswith("<assistant> look")
    with pytest.raises(ApiError, match="no message to read"):
        template.messages_end(messages, rendered, 3)


def test_tools_that_a_template_leaves_out_are_refused(template: ChatTemplate) -> None:
    with pytest.raises(ApiError, match="doesn't write them") as refused:
        template.render([Message("user", "who ?")], [WEATHER])
    assert (refused.value.status, refused.value.param) == (400, "tools")


def test_the_kvpress_backend_offers_tools_alike() -> None:
    class Tokenizer:
        def __init__(self, source: str) -> None:
            self.chat_template, self._template = source, Environment(autoescape=False).from_string(source)

        def apply_chat_template(self, messages: list[dict[str, str]], tools: Any = None, **_: Any) -> str:
            return self._template.render(messages=messages, tools=tools)

    shows = HubTemplate(
        Tokenizer("{% for t in tools or [] %}{{ t.function.name }} {% endfor %}{{ messages[0].content }}")
    )
    assert shows.render([Message("user", "who ?")], [WEATHER]) == "weather who ?"
    assert shows.render([Message("user", "who ?")]) == "who ?"
    with pytest.raises(ApiError, match="doesn't write them"):
        HubTemplate(Tokenizer("{{ messages[0].content }}")).render([Message("user", "who ?")], [WEATHER])


@given(ids=st.lists(st.integers(0, 543), max_size=30))
def test_streamed_pieces_add_up_to_the_decoded_text(ids: list[int]) -> None:
    tokenizer = Tokenizer(FolderFiles(REFERENCE_DIR))
    one_by_one = Detokenizer(tokenizer)
    pieces = [one_by_one.feed(token) for token in ids] + [one_by_one.flush()]
    assert "".join(pieces) == tokenizer.decode(ids)
    assert "  " not in "".join(pieces)


@given(st.lists(st.text("ab ", min_size=1, max_size=3), max_size=12), st.lists(st.text("ab ", min_size=1), max_size=3))
def test_a_stop_string_cuts_the_stream_where_it_would_cut_the_whole_text(pieces: list[str], stops: list[str]) -> None:
    whole = "".join(pieces)
    watch, shown = StopWatch(tuple(stops)), ""
    for piece in pieces:
        text, stopped = watch.feed(piece)
        shown += text
        if stopped:
            break
        # A later piece may complete an earlier stop; what is shown must never have to be taken back.
        assert all(stop not in shown for stop in stops)
    else:
        shown += watch.flush()
    cuts = [whole.find(stop) for stop in stops if stop in whole]
    if cuts:
        assert any(stop in whole for stop in stops)
        assert whole.startswith(shown)
        assert all(stop not in shown for stop in stops)
    else:
        assert shown == whole


def test_encoding_is_remembered_and_equal(engine: Engine) -> None:
    text = "<bos> <user> the code of mira is 112 140 . <assistant>"
    first = engine.tokenizer.encode(text, special=False)
    assert engine.tokenizer.encode(text, special=False) is first
    fresh = Tokenizer(FolderFiles(REFERENCE_DIR)).encode(text, special=False)
    assert np.array_equal(first.ids, fresh.ids)
