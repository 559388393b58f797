"""The config: merge order, interpolation, near misses, secrets."""

from pathlib import Path

import pytest
import yaml

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.load import dump_yaml, load_settings, secret
from kvt_async.contract.settings import Settings
from kvt_async.contract.settings_kv import Apply, EvidenceSource
from kvt_async.contract.timeouts import Timeouts
from kvt_async.contract.urls import public_url
from kvt_async.ways.levels import make_levels

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted((ROOT / "configs/experiments").glob("*.yaml"))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_default_yaml_is_an_equal_copy_of_the_settings_models() -> None:
    copy = yaml.safe_load((ROOT / "configs/default.yaml").read_text(encoding="utf-8"))
    assert copy == Settings.model_construct().model_dump(mode="json")


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_every_shipped_experiment_is_a_valid_config(path: Path) -> None:
    assert load_settings(path, environ={}).experiment.exp_group_id


def test_environment_beats_the_file_and_an_override_beats_both(tmp_path: Path) -> None:
    file = write(tmp_path, "limits: {concurrency: 2}\nbinning: {n_bins: 3}\nmodel: {name: file}")
    environ = {"KVT__limits__concurrency": "3", "KVT__binning__n_bins": "4", "UNRELATED": "x"}
    settings = load_settings(file, ["limits.concurrency=5"], environ=environ)
    assert (settings.limits.concurrency, settings.binning.n_bins, settings.model.name) == (5, 4, "file")


def test_sections_merge_deeply_but_kv_apply_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = write(tmp_path, "engine: {timeouts: {idle_s: 7}}\nkv: {apply: {via: none}, evidence: {}}")
    settings = load_settings(file, environ={})
    assert settings.engine.timeouts.idle_s == 7
    assert settings.engine.timeouts.ttfb_s == 120
    assert settings.kv.apply.body is None
    assert settings.kv.evidence.usage is None


@pytest.mark.parametrize(
    ("overrides", "params"),
    [
        (["dataset.params={per_length: 5}"], {"lengths": [512], "per_length": 5}),
        (["dataset.name=ruler", "dataset.params.per_length=5"], {"lengths": [512], "per_length": 5}),
        (["dataset.name=kvtext"], {}),
        (["dataset.name=kvtext", "dataset.params={contexts: 12}"], {"contexts": 12}),
    ],
)
def test_another_source_of_data_starts_without_the_params_of_the_first(
    tmp_path: Path, overrides: list[str], params: dict[str, object]
) -> None:
    file = write(tmp_path, "dataset: {name: ruler, task: niah_single_1, params: {lengths: [512], per_length: 20}}")
    assert load_settings(file, [*overrides, "dataset.task=multikey"], environ={}).dataset.params == params


def test_a_null_leaves_the_default_of_a_replaced_key_out(tmp_path: Path) -> None:
    text = "kv: {apply: null, evidence: null, budgets: null, policies: null, levels: [{budget: 1.0}, {budget: 0.5}]}"
    settings = load_settings(write(tmp_path, f"{text}\ncheck: null\n"), environ={})
    assert settings.kv.apply == Apply(via="none")
    assert settings.kv.evidence == EvidenceSource()
    assert settings.kv.budgets == []
    assert settings.check == []
    assert [level.evidence for level in make_levels(settings).levels if not level.is_full] == [{}]


def test_no_budgets_and_no_levels_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="budgets is empty"):
        load_settings(write(tmp_path, "kv: {budgets: null}"), environ={})


def test_a_null_in_the_file_is_kept(tmp_path: Path) -> None:
    assert (
        load_settings(write(tmp_path, "limits: {tokens_per_minute: null}"), environ={}).limits.tokens_per_minute is None
    )


def test_variables_resolve_after_the_merge_with_their_default(tmp_path: Path) -> None:
    file = write(tmp_path, 'model: {name: "${WHO:-nobody}"}\nengine: {base_url: "http://${HOST}/v1"}')
    settings = load_settings(file, environ={"HOST": "h:1"})
    assert (settings.model.name, settings.engine.base_url) == ("nobody", "http://h:1/v1")


def test_a_missing_variable_is_an_error_that_names_key_and_file(tmp_path: Path) -> None:
    file = write(tmp_path, 'engine: {base_url: "http://${NOT_SET_ANYWHERE}/v1"}')
    with pytest.raises(ConfigError) as error:
        load_settings(file, environ={})
    assert "engine.base_url" in str(error.value)
    assert "NOT_SET_ANYWHERE" in str(error.value)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kv: {budgts: [1.0]}", "Did you mean kv.budgets?"),
        ("engine: {timeouts: {connect: 1}}", "Did you mean engine.timeouts.connect_s?"),
        ("modle: {name: x}", "Did you mean model?"),
        ("kv: {budgets: [1.5]}", "fractions kept"),
        ("kv: {budgets: [0.5, 0.5]}", "duplicates"),
        ("kv: {budgets: []}", "empty"),
        ("kv: {apply: {via: body}, evidence: {}}", "via: body needs body"),
        ("kv: {apply: {via: none, body: {a: 1}}}", "body is given, but via is none"),
        ("limits: {concurrency: 0}", "greater than or equal to 1"),
        ("experiment: {exp_group_id: ../up}", "experiment.exp_group_id"),
        ("binning: {edges: [5, 5]}", "rising"),
        ("analysis: {aggregate: best@2}", "analysis.aggregate"),
        ("analysis: {aggregate: pass@4}", "  analysis.aggregate pass@4 needs decoding.samples 4 or more, it is 1"),
        ("a: [", "not valid YAML"),
        ("kv:\n\tbudgets: [1.0]\n", "Indent with spaces: YAML takes no tabs."),
        ("- 1", "mapping of sections"),
    ],
)
def test_a_bad_config_says_what_and_where(tmp_path: Path, text: str, says: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load_settings(file, environ={})
    assert says in str(error.value)
    assert str(file) in str(error.value)


def test_a_malformed_override_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not key=value"):
        load_settings(write(tmp_path, ""), ["kv.budgets"], environ={})


def test_a_missing_file_suggests_the_nearest_one() -> None:
    with pytest.raises(ConfigError) as error:
        load_settings(ROOT / "configs/experiments/dmo.yaml", environ={})
    assert "demo.yaml" in error.value.do


def test_header_values_and_url_credentials_never_reach_a_snapshot(tmp_path: Path) -> None:
    file = write(tmp_path, "engine: {base_url: 'http://me:pass1@h/v1?api-key=query3', headers: {X-Team: value2}}")
    shown = dump_yaml(load_settings(file, environ={}))
    assert "pass1" not in shown
    assert "query3" not in shown
    assert "http://***@h/v1?***" in shown
    assert public_url("http://me:pass1@h:1/v1?api-key=query3") == "http://h:1/v1"
    assert "value2" not in shown


def test_a_key_is_a_secret_and_an_empty_one_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOME_KEY", "sk-123")
    found = secret("SOME_KEY")
    assert found is not None
    assert "sk-123" not in repr(found)
    monkeypatch.setenv("SOME_KEY", "")
    assert secret("SOME_KEY") is None


def test_a_dotenv_file_fills_in_what_the_environment_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("WHO=dotenv\nSOME_OTHER_KEY=sk-9\n", encoding="utf-8")
    file = write(tmp_path, 'model: {name: "${WHO}"}')
    assert load_settings(file, environ={}).model.name == "dotenv"
    assert load_settings(file, environ={"WHO": "env"}).model.name == "env"
    found = secret("SOME_OTHER_KEY")
    assert found is not None
    assert found.get_secret_value() == "sk-9"


def test_every_task_needs_the_answers_that_an_aggregate_takes(tmp_path: Path) -> None:
    entries = "tasks: [{name: a, decoding: {samples: 5}}, {name: b, decoding: {samples: %d}}]"
    text = "analysis: {aggregate: majority@5}\n" + entries
    assert load_settings(write(tmp_path, text % 5), environ={}).analysis.aggregate == "majority@5"
    with pytest.raises(ConfigError, match="it is 4"):
        load_settings(write(tmp_path, text % 4), environ={})


@pytest.mark.parametrize("value", ["inf", ".inf", "-.inf", ".nan", "nan", "Infinity", "1e999"])
@pytest.mark.parametrize(
    "key",
    ["bench.rate", "bench.duration_s", "bench.slo.ttft_p99_ms", "bench.workload.input_tokens.std",
     "engine.timeouts.ttfb_s", "limits.retry.max_elapsed_s", "analysis.alpha", "decoding.temperature",
     "db.flush_interval_s"],
)  # fmt: skip
def test_a_number_that_is_not_finite_is_refused_by_its_key(key: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(None, [f"{key}={value}"], environ={})
    assert key in str(caught.value)


@pytest.mark.parametrize("key", ["decoding.extra_body.x", "bench.body.x", "kv.params.x"])
def test_free_mappings_hold_no_number_that_json_cannot_say(key: str) -> None:
    with pytest.raises(ConfigError, match="no finite number"):
        load_settings(None, [f"{key}=.inf"], environ={})


@pytest.mark.parametrize("key", ["sampling.seed", "decoding.seed", "binning.n_per_bin", "decoding.extra_body.x"])
def test_a_whole_number_that_nothing_can_store_is_refused_by_its_key(key: str) -> None:
    with pytest.raises(ConfigError, match="beyond 64 bits") as caught:
        load_settings(None, [f"{key}=100000000000000000000"], environ={})
    assert key in str(caught.value)


def test_more_requests_than_can_be_planned_are_refused_before_they_are() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(None, ["bench.rate=1e6", "bench.duration_s=1e6"], environ={})
    assert "more than 100,000,000 requests" in str(caught.value)


def test_a_verdict_over_no_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="analysis") as refused:
        load_settings(write(tmp_path, "analysis: {tasks: []}"))
    assert "analysis.tasks" in " ".join(refused.value.details)


@pytest.mark.parametrize(
    ("timeouts", "max_tokens", "seconds"),
    [
        ({}, 256, 600),
        ({}, 3_000, 600),
        ({}, 32_768, 32_768 / 5),
        ({}, 10**9, 365 * 86_400),
        ({"total_s": 42}, 32_768, 42),
        ({"total_s": "auto"}, 6_000, 1_200),
    ],
)
def test_the_time_of_an_answer_follows_its_max_tokens_unless_a_number_is_given(
    timeouts: dict[str, object], max_tokens: int, seconds: float
) -> None:
    assert Timeouts.model_validate(timeouts).answer_s(max_tokens) == seconds
