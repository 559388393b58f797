"""Over the wire: every way in which a server shows the width of its cache, and what is made of it."""

from pathlib import Path
from typing import Any

import pytest

from analyzer.charts.axis import budget_axis
from kvt_async.contract.formulas.data_types import DATA_TYPES
from kvt_async.contract.vocabulary import CONSTRAINED
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


VLLM = (
    "{metric: 'vllm:cache_config_info.cache_dtype', bytes_per_token: {memory: {value: 1048576000}, "
    "tokens: {metric: 'vllm:cache_config_info.kv_cache_size_tokens'}}}"
)


def sized(policy: str, bits: float | None, share: float, **labels: object) -> Engine:
    """An engine whose cache of a fixed size holds as many tokens as fit where one takes `share` of full cache's."""
    return Engine(policy, bits, metrics=cache_info(kv_cache_size_tokens=round(100_000 / share), **labels))


async def test_bytes_per_token_verify_what_a_name_means_and_contradict_what_it_does_not(tmp_path: Path) -> None:
    cases = {
        "as_named": (8, 0.5, "fp8_e4m3", "verified"),
        "with_scales": (8.25, 0.53, "mxfp8", "verified"),  # 8.25 bits are 0.516
        "padded_a_little": (8, 0.529, "fp8_e4m3", "verified"),
        "above_its_name": (4.5, 0.32, "nvfp4", "contradicted"),  # 0.281 + 0.03 and more
        "as_large_as_full": (8, 0.985, "fp8_e4m3", "contradicted"),
        "below_its_name": (8, 0.4, "fp8_e4m3", "verified as changed"),
        "nobody_knows": (3, 0.29, "brand_new_3b", "verified as changed"),
        "nobody_knows_and_no_change": (2, 0.99, "brand_new_2b", "contradicted"),
        "some_layers_stay": (4.25, 0.35, "turboquant_4bit_nc", "verified as changed"),  # of how many is not known
    }
    engines = [sized(name, bits, share, cache_dtype=dtype) for name, (bits, share, dtype, _) in cases.items()]
    done = await swept(tmp_path, [sized("full", None, 1, cache_dtype="bfloat16"), *engines], VLLM)
    assert {policy: status for policy, (status, _, _) in done.status.items()} == {
        "full": "full", **{name: status for name, (_, _, _, status) in cases.items()},
    }  # fmt: skip
    width = {policy: effective for policy, (_, effective, _) in done.status.items() if policy != "full"}
    assert width == pytest.approx({name: share * 16 for name, (_, share, _, _) in cases.items()}, rel=1e-3)
    assert "4.64 bits per element" in done.status["nobody_knows"][2]
    assert "set model.config" in done.status["some_layers_stay"][2]


@pytest.mark.parametrize(
    ("share", "status"), [(0.349, "verified"), (0.4, "contradicted"), (0.27, "verified as changed")]
)
async def test_layers_that_stay_at_16_bits_are_counted_where_the_model_is_known(
    tmp_path: Path, share: float, status: str
) -> None:
    """TurboQuant leaves 4 layers of 36: 4.25 bits in the others are 0.347 of 16 in all."""
    config = tmp_path / "config.json"
    config.write_text('{"num_hidden_layers": 36, "num_key_value_heads": 8, "head_dim": 128, "dtype": "bfloat16", '
                      '"num_attention_heads": 32, "hidden_size": 4096}')  # fmt: skip
    engines = [
        sized("full", None, 1, cache_dtype="bfloat16"),
        sized("turbo", 4.25, share, cache_dtype="turboquant_4bit_nc"),
    ]
    done = await swept(tmp_path, engines, VLLM, f"model.config={config}")
    assert done.status["turbo"][0] == status


async def test_a_width_that_was_measured_stands_on_the_axis(tmp_path: Path) -> None:
    engines = [sized("full", None, 1, cache_dtype="bfloat16"), sized("new", 3, 0.35, cache_dtype="brand_new_3b")]
    done = await swept(tmp_path, engines, VLLM)
    axis = budget_axis(done.results())
    assert (axis.labels, axis.applied, axis.applied_title) == (("full", "3"), ("", "5.6"), "below: applied")


@pytest.mark.parametrize("kind", ["sglang", "blocks", "llama.cpp"])
async def test_memory_and_tokens_are_read_as_each_engine_says_them(tmp_path: Path, kind: str) -> None:
    """No name at all: the bits that were asked for are what is measured against."""
    gib = {"full": 8.0, "half": 4.0}
    pages = {name: {"/server_info": {"memory": {"kv_gb": size}}} for name, size in gib.items()}
    metrics = {
        "sglang": "sglang:max_total_num_tokens 65536\n",
        "blocks": cache_info(num_gpu_blocks=4096, block_size=16),
        "llama.cpp": "llamacpp:cells 65536\n",
    }[kind]
    tokens = {
        "sglang": "{metric: 'sglang:max_total_num_tokens'}",
        "blocks": "[{metric: 'vllm:cache_config_info.num_gpu_blocks'}, {metric: 'vllm:cache_config_info.block_size'}]",
        "llama.cpp": "{metric: 'llamacpp:cells'}",
    }[kind]
    memory = "{json: {url: /server_info, path: memory.kv_gb}, unit: GiB}"
    engines = [Engine("full", None, metrics, pages["full"]), Engine("half", 8, metrics, pages["half"])]
    done = await swept(tmp_path, engines, f"{{bytes_per_token: {{memory: {memory}, tokens: {tokens}}}}}")
    status, width, reason = done.status["half"]
    assert status == "verified"
    assert width == pytest.approx(8.0)
    assert "65,536 bytes, 131,072 at full cache" in reason


async def test_bytes_that_are_not_there_leave_it_to_the_name_and_say_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engines = [FULL, named("fp8_e4m3", 8), named("brand_new", 3)]
    done = await swept(tmp_path, engines, VLLM)
    assert {policy: status for policy, (status, _, _) in done.status.items()} == {
        "full": "full", "fp8_e4m3": "verified", "brand_new": "verified as changed",
    }  # fmt: skip
    assert "the bytes that a token takes are not known: metric vllm" in capsys.readouterr().err


async def test_what_else_differs_between_levels_stands_on_the_first_screen(tmp_path: Path) -> None:
    def engine(policy: str, bits: float | None, dtype: str, **labels: object) -> Engine:
        info = {
            "block_size": 16,
            "enable_prefix_caching": "True",
            "num_gpu_blocks": 1000,
            "kv_cache_dtype_skip_layers": "[]",
        }
        return Engine(policy, bits, metrics=cache_info(cache_dtype=dtype, **{**info, **labels}))

    engines = [
        engine("full", None, "bfloat16"),
        engine("fp8", 8, "fp8_e4m3", enable_prefix_caching="False", num_gpu_blocks=2000),
        engine("nvfp4", 4.5, "nvfp4", kv_cache_dtype_skip_layers="['0']", block_size=32),
    ]
    done = await swept(tmp_path, engines, METRIC)
    assert {status for status, _, _ in done.status.values()} == {"full", "verified"}  # they are beside the verdict
    screen = done.first_screen()
    (line,) = [line for line in screen.caveats if line.startswith("Levels differ in more than the budget")]
    assert line.startswith(
        "Levels differ in more than the budget: enable_prefix_caching is True at full cache, nvfp4/aware 4.5 bits, "
        "False at fp8/aware 8 bits; block_size is 16 at full cache, fp8/aware 8 bits, 32 at nvfp4/aware 4.5 bits"
    )
    assert "kv_cache_dtype_skip_layers is [] at full cache, fp8/aware 8 bits, ['0'] at nvfp4/aware 4.5 bits" in line
    assert "num_gpu_blocks" not in line
    assert "cache_dtype is" not in line


async def test_levels_that_differ_in_the_budget_alone_say_nothing_of_it(tmp_path: Path) -> None:
    done = await swept(tmp_path, [FULL, named("fp8_e4m3", 8)], METRIC)
    assert not any("more than the budget" in line for line in done.first_screen().caveats)


async def test_a_name_counts_bits_where_no_unit_is_written_at_full_cache_too(tmp_path: Path) -> None:
    done = await swept(tmp_path, [FULL, named("fp8_e4m3", 8)], METRIC)
    shown = query(done.settings, "SELECT DISTINCT kv_policy, kv_effective FROM responses JOIN requests USING "
                                 "(request_id) JOIN runs USING (run_id) ORDER BY 1")  # fmt: skip
    assert shown == [("fp8_e4m3", 8.0), ("full", 1.0)]


async def test_memory_follows_from_a_width_that_was_measured(tmp_path: Path) -> None:
    engines = [sized("full", None, 1, cache_dtype="bfloat16"), sized("new", 3, 0.35, cache_dtype="brand_new_3b")]
    done = await swept(tmp_path, engines, VLLM)
    lines = [text for answer in done.first_screen().answers for text in (answer.claim, *answer.details)]
    assert any("\u221265% against full cache's 16 bits" in line for line in lines), lines


@pytest.mark.parametrize("tokens", ["NaN", "-5", "+Inf", "0", "1e308"])
async def test_tokens_that_make_no_size_leave_it_to_the_name(
    tmp_path: Path, tokens: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = cache_info(cache_dtype="fp8_e4m3") + f"held {tokens}\n"
    full = cache_info(cache_dtype="bfloat16") + f"held {tokens}\n"
    evidence = (
        "{metric: 'vllm:cache_config_info.cache_dtype', bytes_per_token: {memory: {value: 1}, "
        "tokens: [{metric: held}, {metric: held}]}}"
    )
    done = await swept(tmp_path, [Engine("full", None, full), Engine("a", 8, page)], evidence)
    assert done.status["a"][0] == "verified"
    assert "the bytes that a token takes are not known" in capsys.readouterr().err


async def test_a_level_of_full_width_under_other_restrictions_is_verified_by_its_size(tmp_path: Path) -> None:
    engines = [
        sized("full", None, 1, cache_dtype="bfloat16", enable_prefix_caching="True"),
        sized("fp8", 8, 0.5, cache_dtype="fp8", enable_prefix_caching="False"),
        sized("as_wide", 16, 1, cache_dtype="bfloat16", enable_prefix_caching="False"),
    ]
    done = await swept(tmp_path, engines, VLLM)
    assert {policy: status for policy, (status, _, _) in done.status.items()} == {
        "full": "full", "fp8": "verified", "as_wide": "verified",
    }  # fmt: skip


async def test_full_cache_under_the_levels_other_restrictions_stands_beside_them_and_is_nobodys_baseline(
    tmp_path: Path,
) -> None:
    engines = [
        sized("full", None, 1, cache_dtype="bfloat16", enable_prefix_caching="True"),
        sized(CONSTRAINED, None, 1, cache_dtype="bfloat16", enable_prefix_caching="False"),
        sized("fp8", 8, 0.5, cache_dtype="fp8", enable_prefix_caching="False"),
    ]
    done = await swept(tmp_path, engines, VLLM)
    assert {policy: status for policy, (status, _, _) in done.status.items()} == {
        "full": "full", CONSTRAINED: "full", "fp8": "verified",
    }  # fmt: skip
    stored = query(done.settings, "SELECT series, kv_policy, kv_budget, kv_unit, is_full, kv_params_json FROM runs "
                                  "ORDER BY level_idx")  # fmt: skip
    assert stored[1] == (CONSTRAINED, "full", 1.0, "fraction", 0, '{"prefix_caching":false}')
    results = done.results()
    assert (results.full.series if results.full else None, results.series) == ("full", ["fp8/aware"])
    caveats = done.first_screen().caveats
    assert any(line.endswith("False at constrained full, fp8/aware 8 bits.") for line in caveats), caveats
    (line,) = [line for line in caveats if line.startswith("The other restrictions alone")]
    assert line.startswith("The other restrictions alone (prefix_caching=false) cost 0.00 [")
    assert "at 8 bits (exploratory" in line


async def test_it_is_contradicted_where_its_server_shrank_the_cache(tmp_path: Path) -> None:
    engines = [FULL, Engine(CONSTRAINED, None, cache_info(cache_dtype="fp8_e4m3")), named("fp8_e4m3", 8)]
    done = await swept(tmp_path, engines, METRIC)
    assert {policy: status for policy, (status, _, _) in done.status.items()} == {
        "full": "full", CONSTRAINED: "contradicted", "fp8_e4m3": "verified",
    }  # fmt: skip
    assert len(done.contradicted) == 1
