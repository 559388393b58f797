"""Over the wire: every way in which a server shows the width of its cache, and what is made of it."""

from pathlib import Path
from typing import Any

import pytest

from kvt_async.contract.formulas.data_types import DATA_TYPES
from tests.end_to_end.cache_engines import Engine, cache_info, swept
from tests.worlds import query

METRIC = "{metric: 'vllm:cache_config_info.cache_dtype'}"
FULL = Engine("full", metrics=cache_info(cache_dtype="bfloat16"))
KNOWN = {name: known.width() for name, known in DATA_TYPES.items()}


def named(name: str, bits: float, policy: str | None = None) -> Engine:
    return Engine(policy or name, bits, metrics=cache_info(cache_dtype=name))


async def test_every_name_of_a_data_type_shows_its_width(tmp_path: Path) -> None:
    names = {name: bits for name, bits in KNOWN.items() if bits is not None and bits < 16}
    done = await swept(tmp_path, [FULL, *(named(name, bits) for name, bits in names.items())], METRIC)
    assert done.status.pop("full")[0] == "full"
    assert {name: bits for name, (_, bits, _) in done.status.items()} == pytest.approx(names)
    assert {status for status, _, _ in done.status.values()} == {"verified"}


async def test_a_name_without_a_known_width_is_a_change_only_where_full_cache_has_another(tmp_path: Path) -> None:
    engines = [
        named("kvarn_k4v2_g128", 3, "nobody_measured_it"),
        named("brand_new_3b", 3, "nobody_knows_it"),
        named("bfloat16", 8, "ignored"),
        named("fp8_e4m3", 8, "by_name"),
        named("nvfp4", 4, "by_payload"),
        named("fp8_e4m3", 4, "another"),
        named("auto", 8, "says_nothing"),
    ]
    done = await swept(tmp_path, [FULL, *engines], METRIC)
    assert {policy: status for policy, (status, _, _) in done.status.items()} == {
        "full": "full", "nobody_measured_it": "verified as changed", "nobody_knows_it": "verified as changed",
        "ignored": "contradicted", "by_name": "verified", "by_payload": "verified", "another": "contradicted",
        "says_nothing": "unverified",
    }  # fmt: skip
    assert "brand_new_3b, and bfloat16 at full cache" in done.status["nobody_knows_it"][2]
    assert len(done.contradicted) == 2


async def test_an_unknown_name_that_full_cache_has_too_shows_no_change(tmp_path: Path) -> None:
    full = Engine("full", metrics=cache_info(cache_dtype="brand_new"))
    done = await swept(tmp_path, [full, named("brand_new", 4)], METRIC)
    status, _, reason = done.status["brand_new"]
    assert (status, "as it does at full cache" in reason) == ("unverified", True)


async def test_a_changed_level_is_told_as_such_on_the_first_screen(tmp_path: Path) -> None:
    done = await swept(tmp_path, [FULL, named("brand_new_3b", 3)], METRIC)
    screen = done.first_screen()
    assert any("verified as changed on 1 level" in text for answer in screen.answers for text in (answer.claim,))
    assert not any(alarm.name.startswith("UNVERIFIED") for alarm in screen.alarms)


@pytest.mark.parametrize("where", ["usage", "json"])
async def test_names_are_read_wherever_a_server_says_them(tmp_path: Path, where: str) -> None:
    def engine(policy: str, name: str, bits: float | None) -> Engine:
        page: dict[str, Any] = {"/server_info": {"server_args": {"kv_cache_dtype": name}, "workers": [{"kv": name}]}}
        return Engine(policy, bits, pages=page, said={"kv_dtype": name})

    evidence = {
        "usage": "{usage: kv_dtype}",
        "json": "{json: {url: /server_info, path: server_args.kv_cache_dtype}}",
    }[where]
    engines = [engine("full", "bfloat16", None), engine("a", "mxfp8", 8.25), engine("b", "new_one", 3)]
    engines.append(engine("c", "bfloat16", 4))
    done = await swept(tmp_path, engines, evidence)
    assert {policy: status for policy, (status, _, _) in done.status.items()} == {
        "full": "full", "a": "verified", "b": "verified as changed", "c": "contradicted",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("url", "path", "why"),
    [
        ("/server_info", "args.kv", "there is no 'args.kv': it holds server_args, odd"),
        ("/server_info", "server_args", "'server_args' is no value: it holds dtype"),
        ("/server_info", "odd", "'odd' is null"),
        ("/no_such_page", "x", "/no_such_page: HTTP 404"),
        ("/text", "x", "/text: the reply is"),
    ],
)
async def test_a_page_that_shows_nothing_says_what_stood_there(
    tmp_path: Path, url: str, path: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = {"/server_info": {"server_args": {"dtype": "fp8"}, "odd": None}, "/text": "<html>"}
    engines = [Engine("full", pages=pages), Engine("a", 8, pages=pages)]
    done = await swept(tmp_path, engines, f"{{json: {{url: {url}, path: {path}}}}}")
    assert done.status["a"][0] == "unverified"
    warned = capsys.readouterr().err
    assert "shows no budget: it stays unverified" in warned
    assert why in warned


async def test_a_page_is_asked_with_the_key_and_secrets_in_it_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-a-long-and-secret-key-91f3"
    monkeypatch.setenv("EVIDENCE_KEY", key)
    pages = {"/server_info": {"said": f"fp8 {key}"}}
    engines = [Engine("full", pages=pages, key=key), Engine("a", 8, pages=pages, key=key)]
    evidence = "{json: {url: /server_info, path: said}}"
    done = await swept(tmp_path, engines, evidence, "engine.api_key_env=EVIDENCE_KEY")
    ((text,),) = query(done.settings, "SELECT group_concat(identity_json) FROM server_snapshots")
    assert "fp8 " in text
    assert key not in text
