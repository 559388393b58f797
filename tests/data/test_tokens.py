"""Counting: which tokenizer, what is counted, special tokens once, and the cut in the middle."""

from hashlib import sha256
from importlib import resources
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from kvt_async.contract.errors import ConfigError
from kvt_async.data.chat_template import ChatTemplate
from kvt_async.data.tokens import check_tokenizer, load_tokenizer
from tests.data.conftest import TEXT
from tests.data.helpers import settings


def test_null_means_the_model_name_and_reference_is_packaged(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(settings(tmp_path, "tokenizer.name=null", "model.name=reference"))
    packaged = resources.files("kvt_async.serve").joinpath("reference", "tokenizer.json").read_bytes()
    assert (tokenizer.name, tokenizer.sha256) == ("reference", sha256(packaged).hexdigest())
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


def test_a_template_runs_in_a_sandbox_with_what_real_templates_use() -> None:
    source = (
        "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
        "{% generation %}{{ m.content | tojson }}{% endgeneration %}{% endfor %}{{ strftime_now('%Y') }}"
    )
    chat = ChatTemplate(source, {}, "here")
    messages = [{"role": "system", "content": "no"}, {"role": "user", "content": "<é>"}]
    assert chat.render(messages) == '"<é>"2024'
    with pytest.raises(ConfigError, match="refuses this prompt"):
        ChatTemplate("{{ ''.__class__.__mro__ }}", {}, "here").render(messages)
    with pytest.raises(ConfigError, match="only user"):
        ChatTemplate("{{ raise_exception('only user') }}", {}, "here").render(messages)
    with pytest.raises(ConfigError, match="not valid"):
        ChatTemplate("{% if %}", {}, "here")
