"""Eviction policies of plugins: kept as ours are, and what is wrong in one is said to whoever asked for it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kvt_async.contract import plugin_files
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.settings import PluginFile
from kvt_async.serve.api_errors import ApiError
from kvt_async.serve.catalogue import ReferencePolicies
from kvt_async.serve.engine import Engine
from kvt_async.serve.kv_request import parse_kv
from kvt_async.serve.policies import Choice
from kvt_async.serve.process import load_plugins
from kvt_async.serve.views import PromptView
from kvt_async.serve.weights import REFERENCE_DIR
from kvt_async.serve.work import Finished, Work

POLICY = """
import numpy as np
from kvt_async.plugins import policy

@policy("oldest", skipped=0)
def oldest(view, params):
    scores = -np.arange(view.length, dtype=np.float32)
    scores[: params["skipped"]] = -view.length
    return SCORES
"""


@pytest.fixture(autouse=True)
def _nothing_stays_loaded() -> Iterator[None]:
    yield
    plugin_files.load([])


@pytest.fixture(scope="module")
def view() -> PromptView:
    engine = Engine(REFERENCE_DIR, 1 << 24)
    prefill, _ = engine.prefill(np.arange(5, 45, dtype=np.int32))
    return PromptView(engine.model, prefill, 40)


def load(folder: Path, scores: str = "np.broadcast_to(scores, view.shape())", name: str = "oldest") -> None:
    file = folder / "mine.py"
    file.write_text(POLICY.replace("SCORES", scores).replace('"oldest"', f'"{name}"'))
    plugin_files.load([PluginFile(path=str(file))])


def test_its_highest_scores_stay_and_its_parameters_are_checked(tmp_path: Path, view: PromptView) -> None:
    load(tmp_path)
    assert "oldest" in ReferencePolicies().names()
    kept = Choice.of("oldest", {"skipped": 2}).kept(view, 5)
    assert (kept == np.arange(2, 7)).all()
    ReferencePolicies().check("oldest", {"skipped": 2})
    for params, says in (({"skiped": 2}, "did you mean 'skipped'?"), ({"skipped": -1}, "must be at least 0")):
        with pytest.raises(ApiError, match=says):
            ReferencePolicies().check("oldest", params)


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        ("scores", r"gave scores of shape \(40,\); it gives a number for each entry"),
        ("np.full(view.shape(), np.nan)", "gave NaN"),
        ("None", "gave"),
        ("1 / 0", "the policy oldest of .*mine.py failed: ZeroDivisionError"),
    ],
)
def test_scores_that_are_none_are_an_error_that_names_the_file(
    tmp_path: Path, view: PromptView, scores: str, says: str
) -> None:
    load(tmp_path, scores)
    view.prefill.ranks.clear()
    with pytest.raises(ConfigError, match=says) as caught:
        Choice.of("oldest", {}).kept(view, 5)
    assert "mine.py" in caught.value.where


MIDDLE = """
import numpy as np
from kvt_async.plugins import policy

@policy("middle")
def middle(view, params):
    assert view.positions.shape == view.shape() and len(view.ids) == view.seen
    return -np.abs(view.positions - 50)

@policy("onlooker")
def onlooker(view, params):
    return view.attention_from(0).sum(axis=2)

@policy("counter", counts_attention=True)
def counter(view, params):
    return view.received().sum(axis=2)
"""


def test_while_an_answer_is_generated_it_sees_what_is_held_and_where_that_stood_in_the_text(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MIDDLE)
    plugin_files.load([PluginFile(path=str(tmp_path / "mine.py"))])
    engine, ids = Engine(REFERENCE_DIR, 1 << 24), np.arange(5, 65)
    for name in ("middle", "onlooker", "counter"):
        kv = parse_kv({"policy": name, "when": "decode", "keep_tokens": 9, "params": {"compression_interval": 10}})
        events = engine.generate(Work(ids, 21, kv, ignore_eos=True))
        if name == "onlooker":
            with pytest.raises(ApiError, match=r"onlooker .*mine.py failed: ValueError: the query of entry 0 is gone"):
                list(events)
        else:
            *_, end = events
            assert name == "counter" or (engine._cache.positions(80) == np.arange(46, 55)).all()
            assert isinstance(end, Finished)
            assert end.usage.held.n_compressions == 2


def test_a_name_of_ours_is_refused_when_the_server_starts(tmp_path: Path) -> None:
    for name in ("snapkv", "full"):
        (tmp_path / "mine.py").write_text(POLICY.replace('"oldest"', f'"{name}"'))
        with pytest.raises(ConfigError, match=f"another policy called {name}: one of kvt's own"):
            load_plugins([str(tmp_path / "mine.py")])
