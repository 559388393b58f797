"""Which values of a config are secret, and in which forms a secret is found again."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.load import dump_yaml, load_settings
from kvt_async.contract.secrets import MASK, MIN_SECRET, Secrets, matches
from tests.servers.echoes import FORMS

KEY, VALUE = "sk-live-0123456789abcdef", "value-of-a-plain-variable"
ENV = {"OPENAI_API_KEY": KEY, "PLAIN": VALUE, "MY_TOKEN": "my-token-0123456789", "TOKENIZER": "approx:chars/4"}
LAUNCH = "kv.apply={via: launch, command: '%s', env: {A: '%s'}}"


def secrets_with(*overrides: str, **more: str) -> tuple[str, ...]:
    """The secrets of a config beside its API key."""
    settings = load_settings(None, overrides, environ={**ENV, **more})
    return tuple(value for value in settings.secrets.values if value != KEY)


# ------------------------------------------------------------------ which values are secret


@pytest.mark.parametrize(
    "override",
    [
        "engine.headers={X-A: 'Bearer ${PLAIN}'}",
        "engine.base_url=http://${PLAIN}@host/v1",
        "engine.base_url=http://user:${PLAIN}@host/v1",
        "engine.base_url=http://host/v1?version=1&key=${PLAIN}",
        "kv.levels=[{budget: 1.0, base_url: ['http://u:${PLAIN}@host/v1']}]",
        "kv.apply={via: endpoint, endpoints: {'1.0': 'http://u:${PLAIN}@host/v1'}}",
        "decoding.extra_body={a: [{b: 'x ${PLAIN}'}]}",
        "bench.body={user: '${PLAIN}'}",
        LAUNCH % ("serve --key ${PLAIN}", "a"),
        LAUNCH % ("serve", "${PLAIN}"),
    ],
)
def test_what_comes_from_the_environment_into_a_place_for_secrets_is_secret(override: str) -> None:
    assert secrets_with(override) == (VALUE,)


@pytest.mark.parametrize(
    "override",
    [
        "model.name=${PLAIN}",
        "engine.base_url=http://${PLAIN}/v1",
        "engine.base_url=http://host/${PLAIN}/v1",
        "kv.apply={via: body, body: {policy: '${PLAIN}'}}",
        "tokenizer.name=${TOKENIZER}",  # TOKEN is part of the word, and no secret
        "engine.headers={X-A: '${NOT_SET:-fell-back}'}",
        "decoding.max_tokens=${MAX_TOKENS}",  # a number where only a number can stand
        "engine.headers={X-A: value-of-a-plain-variable}",  # written into the config, not from the environment
    ],
)
def test_other_values_are_plain(override: str) -> None:
    assert secrets_with(override, MAX_TOKENS="17") == ()


def test_a_variable_with_a_telling_name_is_secret_wherever_it_may_stand() -> None:
    assert secrets_with("kv.apply={via: body, body: {t: '${MY_TOKEN}'}}") == ("my-token-0123456789",)


@pytest.mark.parametrize("name", ["A_KEY", "apikey", "HF_TOKEN", "TOKENS", "SECRET", "PASSWORD", "CREDENTIAL", "AUTH"])
def test_telling_names(name: str) -> None:
    assert secrets_with(f"kv.apply={{via: body, body: {{t: '${{{name}}}'}}}}", **{name: VALUE}) == (VALUE,)


@pytest.mark.parametrize("name", ["TOKENIZER", "TOKENIZER_NAME", "AUTHOR", "MODEL", "HOST"])
def test_names_that_tell_nothing(name: str) -> None:
    assert secrets_with(f"model.name=${{{name}}}", **{name: VALUE}) == ()


def test_a_value_that_is_the_models_name_too_is_no_secret_of_a_launch_command() -> None:
    assert secrets_with("model.name=${PLAIN}", LAUNCH % ("vllm serve ${PLAIN}", "a")) == ()


def test_of_a_whole_url_the_password_and_the_query_are_secret() -> None:
    url = "http://me:pass-word@host:1/v1?key=in-the-query"
    assert secrets_with("engine.base_url=${URL}", URL=url) == ("in-the-query", "pass-word")


def test_a_config_key_given_by_the_environment_is_plain() -> None:
    assert secrets_with(KVT__model__name="my-own-model", KVT__engine__headers="{X-A: a-plain-value}") == ()


def test_dotenv_counts_as_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("FROM_FILE=from-the-file\n", encoding="utf-8")
    assert secrets_with("engine.headers={X-A: '${FROM_FILE}'}") == ("from-the-file",)


@pytest.mark.parametrize(
    "key",
    [
        *("model.name", "model.config", "tokenizer.name", "output.runs_dir", "output.data_dir", "db.path"),
        *("dataset.path", "engine.ca_file", "prompt.system", "kv.policy", "decoding.stop", "experiment.exp_group_id"),
    ],
)
@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "MY_TOKEN"])
def test_a_secret_in_a_name_a_path_or_a_prompt_is_refused(key: str, variable: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_settings(None, [f"{key}=${{{variable}}}"], environ=ENV)
    assert (key in str(error.value), variable in str(error.value)) == (True, True)
    assert ENV[variable] not in str(error.value)


def test_the_api_key_typed_out_in_a_name_is_refused_too() -> None:
    with pytest.raises(ConfigError, match=r"model\.name holds the value of OPENAI_API_KEY"):
        load_settings(None, [f"model.name=m-{KEY}"], environ=ENV)


@pytest.mark.parametrize("override", ["engine.headers={X-A: '${SHORT}'}", "engine.api_key_env=SHORT"])
def test_a_secret_that_is_too_short_to_be_hidden_is_refused_with_advice(override: str) -> None:
    with pytest.raises(ConfigError, match="shorter than 6 characters") as error:
        load_settings(None, [override], environ={**ENV, "SHORT": "ab1c2"})
    assert "ab1c2" not in str(error.value)
    assert "longer one" in str(error.value)


def test_the_placeholder_of_servers_without_a_key_is_no_secret() -> None:
    assert not load_settings(None, environ={"OPENAI_API_KEY": "EMPTY"}).secrets


@pytest.mark.parametrize("override", ["engine.transport=${OPENAI_API_KEY}", f"no.such={KEY}", f"binning.n_bins={KEY}"])
def test_an_error_about_a_config_shows_no_secret(override: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_settings(None, [override], environ=ENV)
    assert KEY not in str(error.value)


def test_a_snapshot_shows_plain_values_and_masks_secret_ones() -> None:
    shown = dump_yaml(
        load_settings(None, ["model.name=${PLAIN}", "decoding.extra_body={a: '${MY_TOKEN}'}"], environ=ENV)
    )
    assert VALUE in shown
    assert "my-token" not in shown


# ------------------------------------------------------------------ in which forms it is found


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=40)
@given(secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40))
def test_a_secret_is_found_in_every_form(form: str, secret: str) -> None:
    spelled = FORMS[form](secret)
    masked = Secrets([secret]).text(f"before {spelled} after")
    assert spelled not in masked
    assert MASK in masked
    if form != "Base64 of more":  # what stands around it in one Base64 text goes with it
        assert (masked.startswith("before "), masked.endswith(" after")) in ((True, True), (False, False))


@settings(deadline=None)
@given(st.text(max_size=60))
def test_a_text_without_a_secret_stays_as_it_is(text: str) -> None:
    secrets = Secrets([KEY, "other-secret/+=%"])
    assert secrets.text(text) == text
    assert secrets.page(text.encode("utf-8", "surrogatepass")) == text.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("length", range(MIN_SECRET, len(KEY)))
def test_a_text_that_was_cut_inside_a_secret_ends_before_it(length: int) -> None:
    assert Secrets([KEY]).clipped("the key is " + KEY[:length]) == "the key is ***"


def test_keys_and_values_of_json_are_masked_and_numbers_are_left() -> None:
    value = {KEY: [KEY, 1, None, {"a": f"x{KEY}"}], "b": 2.5}
    assert Secrets([KEY]).json(value) == {MASK: [MASK, 1, None, {"a": "x***"}], "b": 2.5}


def test_json_too_deep_to_be_looked_at_is_masked_whole() -> None:
    value: object = KEY
    for _ in range(5000):
        value = {"a": value}
    assert KEY not in repr(Secrets([KEY]).json(value))


def test_secrets_do_not_show_themselves() -> None:
    assert KEY not in repr(Secrets([KEY]))


# ------------------------------------------------------------------ what was stored before


@pytest.mark.parametrize(
    ("asked", "stored", "same"),
    [
        ("serve --key ***", "serve --key sk-old", True),
        ("serve --key ***", "serve --key ***", True),
        ("serve --key ***", "serve --key sk-old --dtype fp8", False),
        ("serve --key ***", "serve", False),
        ({"a": ["***", 1]}, {"a": ["old", 1]}, True),
        ({"a": ["***", 1]}, {"a": ["old", 2]}, False),
        ("serve", "serve --key ***", False),
    ],
)
def test_a_mask_stands_for_one_word_of_what_was_stored(asked: object, stored: object, *, same: bool) -> None:
    assert matches(asked, stored) is same


# ------------------------------------------------------------------ the terminal


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_what_a_command_prints_and_a_traceback_of_it_hold_no_secret(encoding: str) -> None:
    code = f"""
import sys, typer
from kvt_async.contract.command_line import masked_output
from kvt_async.contract.secrets import Secrets
masked_output.install()
masked_output.hide(Secrets([{KEY!r}]))
print("print", {KEY!r}); print("stderr", {KEY!r}, file=sys.stderr); typer.echo("echo {KEY}"); typer.echo("é {KEY}")
sys.stdout.writelines(["lines {KEY}"])
raise ValueError("bug {KEY}")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={"PYTHONIOENCODING": encoding, "PATH": ""}, check=False
    )
    assert KEY.encode() not in done.stdout + done.stderr
    assert (done.stdout.count(b"***"), done.stderr.count(b"***")) == (4, 2)


def test_a_name_that_no_variable_can_have_is_that_of_no_key() -> None:
    assert "A=B" in dump_yaml(load_settings(None, ["engine.api_key_env='A=B'"], environ={}))
    with pytest.raises(ConfigError, match=r"engine.api_key_env holds half a character"):
        load_settings(None, ['engine.api_key_env="\\ud800"'], environ={})
