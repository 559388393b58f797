"""Counting: which tokenizer, what is counted, special tokens once, and the cut in the middle."""

import json
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from kvt_async.contract.errors import ConfigError
from kvt_async.data.chat_template import ChatTemplate
from kvt_async.data.tokens import check_tokenizer, load_tokenizer
from tests.data.conftest import TEXT
from tests.data.helpers import settings


@pytest.mark.parametrize("name", ["reference", "reference-recite"])
def test_null_means_the_model_name_and_the_models_that_come_with_kvt_are_known(tmp_path: Path, name: str) -> None:
    tokenizer = load_tokenizer(settings(tmp_path, "tokenizer.name=null", f"model.name={name}"))
    packaged = resources.files("kvt_async.serve").joinpath("reference", "tokenizer.json").read_bytes()
    assert (tokenizer.name, tokenizer.sha256) == (name, sha256(packaged).hexdigest())
    assert tokenizer.count(["the rain . the"], special=True) == [4]


def test_a_file_and_its_folder_are_the_same_tokenizer(tmp_path: Path, byte_level: Path) -> None:
    by_file = load_tokenizer(settings(tmp_path, f"tokenizer.name={byte_level}/tokenizer.json"))
    by_folder = load_tokenizer(settings(tmp_path, f"tokenizer.name={byte_level}"))
    assert by_file.sha256 == by_folder.sha256
    assert by_file.chat
    assert by_folder.chat
    assert by_file.chat.sha256 == by_folder.chat.sha256


def test_a_stored_maximum_length_and_padding_do_not_falsify_the_count(tmp_path: Path, byte_level: Path) -> None:
    tokenizer = load_tokenizer(settings(tmp_path, f"tokenizer.name={byte_level}"))
    short, long = tokenizer.count(["the", TEXT], special=False)
    assert short < 8 < long


def test_special_tokens_are_counted_once(tmp_path: Path, byte_level: Path) -> None:
    tokenizer = load_tokenizer(settings(tmp_path, f"tokenizer.name={byte_level}"))
    assert tokenizer.chat
    rendered = tokenizer.chat.render([{"role": "user", "content": "the cat"}])
    assert rendered == "<s>[user]the cat>"
    without_bos = tokenizer.count([rendered.removeprefix("<s>")], special=False)[0]
    assert tokenizer.count([rendered], special=False) == [without_bos + 1]
    assert tokenizer.count(["the cat"], special=True)[0] == tokenizer.count(["the cat"], special=False)[0] + 1


def test_the_approximation_is_used_only_by_name(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(settings(tmp_path, "tokenizer.name=approx:chars/4"))
    assert tokenizer.count(["", "a", "abcd", "abcde", "汉字汉字汉"], special=True) == [0, 1, 1, 2, 2]
    assert tokenizer.chat is None
    assert tokenizer.sha256 == sha256(b"approx:chars/4").hexdigest()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("approx:words", "there is no approximation"),
        ("nowhere/tokenizer.json", "there is no tokenizer file"),
        ("not a name", "there is no tokenizer file"),
    ],
)
def test_a_tokenizer_that_is_not_there_is_an_error_that_says_what_to_set(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        check_tokenizer(settings(tmp_path, f"tokenizer.name={name}"))
    assert "approx:chars/4" in caught.value.do
    with pytest.raises(ConfigError, match=says):
        load_tokenizer(settings(tmp_path, f"tokenizer.name={name}"))


def test_what_validate_can_know_of_a_tokenizer_is_whether_its_file_is_there(tmp_path: Path, byte_level: Path) -> None:
    for name in ("approx:chars/4", "reference", "meta-llama/Llama-3.1-8B", byte_level, byte_level / "tokenizer.json"):
        check_tokenizer(settings(tmp_path, f"tokenizer.name={name}"))
    with pytest.raises(ConfigError, match=r"this folder holds no tokenizer\.json"):
        check_tokenizer(settings(tmp_path, f"tokenizer.name={tmp_path}"))


def test_an_unreachable_hub_is_an_error_and_never_an_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="no tokenizer 'nobody/nothing'") as caught:
        load_tokenizer(settings(tmp_path, "tokenizer.name=null", "model.name=nobody/nothing"))
    assert caught.value.where == "model.name (tokenizer.name is null)"
    assert "approx:chars/4" in caught.value.do


def test_a_broken_file_or_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"not a tokenizer\.json"):
        load_tokenizer(settings(tmp_path, f"tokenizer.name={tmp_path}/tokenizer.json"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"holds no tokenizer\.json"):
        load_tokenizer(settings(tmp_path, f"tokenizer.name={tmp_path}/empty"))


def test_halves_are_those_of_the_ids_decoded(tmp_path: Path, byte_level: Path) -> None:
    """What LongBench's script computes: ids with special tokens, first half + last half, decoded without them."""
    tokenizer = load_tokenizer(settings(tmp_path, f"tokenizer.name={byte_level}"))
    backend = Tokenizer.from_file(str(byte_level / "tokenizer.json"))
    backend.no_truncation()
    backend.no_padding()
    ids = backend.encode(TEXT).ids
    for limit in (10, 11, 64, len(ids) - 1):
        half = limit // 2
        assert tokenizer.halves(TEXT, limit) == (backend.decode(ids[:half]), backend.decode(ids[-half:]))
    assert tokenizer.halves(TEXT, len(ids)) is None


def test_a_tokenizer_that_cannot_give_the_text_back_cuts_the_text_itself(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(settings(tmp_path))
    text = "The  Unknown words, AND rain. " * 10
    first, last = tokenizer.halves(text, 20) or ("", "")
    assert text.startswith(first)
    assert text.endswith(last.strip() + " ")
    assert "Unknown" in first
    assert [tokenizer.count([part], special=False)[0] for part in (first, last)] == [10, 10]


def test_the_approximation_cuts_characters(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(settings(tmp_path, "tokenizer.name=approx:chars/4"))
    assert tokenizer.halves("a" * 16 + "b" * 16, 8) is None
    assert tokenizer.halves("a" * 16 + "b" * 17, 5) == ("a" * 8, "b" * 8)


USER = [{"role": "user", "content": "<é>"}]


def test_a_template_runs_in_a_sandbox_with_what_real_templates_use() -> None:
    source = (
        "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
        "{% generation %}{{ m.content | tojson }}{% endgeneration %}{% endfor %}{{ strftime_now('%Y') }}"
    )
    chat = ChatTemplate(source, {}, "here")
    assert chat.render([{"role": "system", "content": "no"}, *USER]) == '"<é>"2024'
    with pytest.raises(ConfigError, match="not valid"):
        ChatTemplate("{% if %}", {}, "here")


def test_tojson_takes_what_transformers_filter_takes() -> None:
    for arguments, rendered in [
        ("ensure_ascii=True", '{"b": "\\u00e9", "a": [1]}'),
        ("sort_keys=True", '{"a": [1], "b": "é"}'),
        ("separators=(',', ':')", '{"b":"é","a":[1]}'),
        ("indent=1", '{\n "b": "é",\n "a": [\n  1\n ]\n}'),
    ]:
        source = "{{ {'b': 'é', 'a': [1]} | tojson(" + arguments + ") }}{{ messages[-1].content }}"
        assert ChatTemplate(source, {}, "here").render([{"role": "user", "content": ""}]) == rendered


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ raise_exception('only user') }}", "only user"),
        ("{{ 1 + 'a' }}", "TypeError"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{{ messages | tojson(colour='red') }}", "TypeError"),
        ("{{ {}['x'].y }}", "has no attribute"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError"),
        ("{{ undefined_function() }}", "is undefined"),
    ],
)
def test_whatever_goes_wrong_in_a_template_is_an_error_that_says_what_to_do(code: str, says: str) -> None:
    with pytest.raises(ConfigError, match="refuses this prompt") as caught:
        ChatTemplate(code + "{{ messages }}", {}, "here").render(USER)
    assert says in str(caught.value)
    assert "completions" in (caught.value.do or "")


PARTS = "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}"


def beside(folder: Path, **files: object) -> Path:
    """A folder with the packaged tokenizer and these files beside it; texts as they are, others as JSON."""
    folder.mkdir()
    with resources.as_file(resources.files("kvt_async.serve").joinpath("reference")) as packaged:
        (folder / "tokenizer.json").write_bytes((packaged / "tokenizer.json").read_bytes())
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_a_template_that_reads_content_parts_gets_the_text_as_a_part(tmp_path: Path) -> None:
    folder = beside(tmp_path / "parts", tokenizer_config__json={"chat_template": PARTS})
    tokenizer = load_tokenizer(settings(tmp_path, f"tokenizer.name={folder}"))
    assert tokenizer.chat
    assert tokenizer.chat.render([{"role": "user", "content": "the cat"}]) == "the cat"
    assert "content parts" in " ".join(tokenizer.notes)


@pytest.mark.parametrize(
    "source",
    [
        "hello",
        "{% for m in messages %}{{ m.role }}{% endfor %}",
        "{{ messages | length }}",
        "{{ messages[0].content[:3] }}",  # of parts it would show Python's writing
    ],
)
def test_a_template_that_renders_nothing_of_the_prompt_is_refused(source: str) -> None:
    with pytest.raises(ConfigError, match="renders nothing of a user's message") as caught:
        ChatTemplate(source, {}, "here")
    assert "completions" in (caught.value.do or "")


def test_the_template_is_found_in_every_file_that_may_hold_it_and_its_absence_is_said(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "D{{ messages }}"}, {"name": "rag", "template": "R{{ messages }}"}]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"chat_template__json": {"chat_template": "J{{ messages }}"}}, "J"),
        ({"chat_template__jinja": "X{{ messages }}", "chat_template__json": {"chat_template": "J"}}, "X"),
        ({"tokenizer_config__json": {"chat_template": named}}, "D"),
        ({"chat_template__json": {"chat_template": {"default": "O{{ messages }}"}}}, "O"),
    ]
    for n, (files, begins) in enumerate(cases):
        tokenizer = load_tokenizer(settings(tmp_path, f"tokenizer.name={beside(tmp_path / f'a{n}', **files)}"))
        assert tokenizer.chat
        assert tokenizer.chat.render(USER).startswith(begins)
        assert tokenizer.notes == ()
    without = [({}, "has no chat template"), ({"tokenizer_config__json": {"chat_template": named[1:]}}, "(rag)")]
    for n, (files, says) in enumerate(without):
        tokenizer = load_tokenizer(settings(tmp_path, f"tokenizer.name={beside(tmp_path / f'b{n}', **files)}"))
        assert tokenizer.chat is None
        assert says in " ".join(tokenizer.notes)
    for n, wrong in enumerate([{"chat_template": 7}, "not json"]):
        with pytest.raises(ConfigError):
            load_tokenizer(
                settings(tmp_path, f"tokenizer.name={beside(tmp_path / f'c{n}', chat_template__json=wrong)}")
            )


def test_a_template_that_leaves_the_system_text_out_is_known() -> None:
    keeps = "{% for m in messages %}{{ m.content | trim }}{% endfor %}"
    assert not ChatTemplate(keeps, {}, "here").drops_system()
    assert ChatTemplate("{{ messages[-1].content }}", {}, "here").drops_system()
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ messages }}"
    assert not ChatTemplate(refuses, {}, "here").drops_system()  # it says so itself


def test_a_template_tells_whether_it_opens_reasoning() -> None:
    source = (
        "Think between <think> and </think>.{{ messages[-1].content }}|"
        "{% if not enable_thinking is defined or enable_thinking %}<think>\n{% else %}<think>\n\n</think>{% endif %}"
    )
    assert ChatTemplate(source, {}, "here").reasoning_tag({}) == "<think>"
    assert ChatTemplate(source, {}, "here").reasoning_tag({"enable_thinking": False}) is None
    assert ChatTemplate("<think>{{ messages[-1].content }}|", {}, "here").reasoning_tag({}) is None
    assert ChatTemplate("{{ messages[-1].content }}[THINK]", {}, "here").reasoning_tag({}) == "[THINK]"


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TRIMS = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}[/]{% endfor %}"


@pytest.mark.parametrize(
    ("source", "content", "expected"),
    [
        (CHATML, "The answer is", "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\nThe answer is"),
        (TRIMS, " The answer is ", "<s>[user]Who?[/][assistant]The answer is"),
        (TRIMS, "Who?", "<s>[user]Who?[/][assistant]Who?"),  # the last place where it stands
    ],
)
def test_a_text_that_the_answer_goes_on_from_ends_with_the_last_message(
    source: str, content: str, expected: str
) -> None:
    template = ChatTemplate(source, {"bos_token": "<s>"}, "t")
    messages = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": content}]
    assert template.render(messages, continues=True) == expected


def test_a_template_that_leaves_the_begun_answer_out_is_refused() -> None:
    users = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    template = ChatTemplate(users, {}, "t")
    with pytest.raises(ConfigError, match="doesn't show the last message"):
        template.render([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], continues=True)
