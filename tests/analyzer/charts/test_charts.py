"""Charts draw persisted rows: readable when there is little to draw, honest, and the same bytes every time."""

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import altair as alt
import pytest
import vl_convert
from altair.utils.schemapi import SchemaBase, validate_jsonschema

from analyzer import parallel
from analyzer.charts import picture_files
from analyzer.charts.axis import LABEL_PX, budget_axis
from analyzer.charts.chart_news import BY_BIN, without_news
from analyzer.charts.draw import CHARTS, draw, draw_all
from analyzer.charts.fonts import prefer_own_fonts
from analyzer.charts.frames import chart_data
from analyzer.charts.picture_files import FILES, Picture, save
from analyzer.charts.style import DASHES, FONT, NARROW, PALETTE, SHAPES
from analyzer.results.results import Results, read_results
from kvt_async.contract.load import load_settings
from tests.analyzer.report_cases import DEGENERATE, EDGES, GROUP, SMALL, Rows
from tests.analyzer.report_rows import write

SETTINGS = load_settings(None, [f"experiment.exp_group_id={GROUP}"], environ={})
KINDS = {kind.name: kind for kind in CHARTS}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    with closing(write(tmp_path_factory.mktemp("demo") / "demo.sqlite", Rows(n=4))) as conn:
        yield conn


@pytest.fixture(scope="module")
def plots(demo: sqlite3.Connection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plots")
    draw_all(demo, SETTINGS, folder)
    return folder


def facts_of(tmp_path: Path, **changes: Any) -> Results:
    tmp_path.mkdir(exist_ok=True)
    with closing(write(tmp_path / "facts.sqlite", Rows(**{**SMALL, **changes}))) as conn:
        return read_results(conn, GROUP)


def drawn(facts: Results, name: str) -> dict[str, Any]:
    return draw(KINDS[name], facts, chart_data(facts))


def rows_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for rows in spec["datasets"].values() for row in rows]


def titles(spec: dict[str, Any]) -> str:
    return " ".join([*spec["title"]["text"], *spec["title"]["subtitle"]])


def test_the_blueprints_charts_are_there_by_name() -> None:
    assert {"acc_by_bin", "fail_by_bin", "latency_p50_by_bin", "acc_by_budget", "heatmap_budget_length"} <= set(KINDS)


def test_every_chart_is_three_files(plots: Path) -> None:
    names = {f"{k.name}{end}" for k in CHARTS for end in (".vl.json", ".svg", ".png")}
    assert {f.name for f in plots.iterdir()} == names
    for png in plots.glob("*.png"):
        assert png.read_bytes().startswith(b"\x89PNG")
        assert png.stat().st_size > 10_000, f"{png.name} looks blank"


def test_a_picture_is_the_same_where_the_machine_has_no_fonts(demo: sqlite3.Connection, tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(drawn(read_results(demo, GROUP), "verdict_by_budget")), encoding="utf-8")
    script = "import json, sys; from pathlib import Path; from analyzer.charts.picture_files import *\n"
    script += "save(Picture(json.loads(Path(sys.argv[1]).read_text(encoding='utf-8')), Path(sys.argv[2]), 'verdict'))"
    (tmp_path / "fonts.conf").write_text(
        f'<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig><dir>{tmp_path}</dir></fontconfig>'
    )
    pictures = []
    for name, fonts in (("machine", {}), ("none", {"FONTCONFIG_FILE": str(tmp_path / "fonts.conf")})):
        command = [sys.executable, "-c", script, str(spec), str(tmp_path / name)]
        subprocess.run(command, check=True, env={**os.environ, **fonts})
        pictures.append([(tmp_path / name / f"verdict.{end}").read_bytes() for end in ("svg", "png")])
    assert pictures[0] == pictures[1]


def test_letters_that_vl_convert_lacks_come_from_the_machines_fonts() -> None:
    folders = [Path(folder).expanduser() for folder in ("/usr/share/fonts", "~/.fonts")]
    if not any(file for folder in folders for file in folder.rglob("DejaVuSans.ttf")):
        pytest.skip("DejaVu Sans is not installed, or this is no Linux")
    prefer_own_fonts()
    text = '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><text y="30" font-family="{}">☃</text></svg>'
    machines = ("DejaVu Sans", "DejaVu Sans Mono", "DejaVu Serif")
    assert vl_convert.svg_to_png(text.format(FONT)) in [vl_convert.svg_to_png(text.format(font)) for font in machines]


def test_every_chart_is_valid_vega_lite(demo: sqlite3.Connection) -> None:
    facts = read_results(demo, GROUP)
    data, schema = chart_data(facts), alt.load_schema()
    for kind in CHARTS:
        validate_jsonschema(draw(kind, facts, data), schema)


def test_a_chart_is_the_same_whatever_was_drawn_before(demo: sqlite3.Connection, tmp_path: Path) -> None:
    facts = read_results(demo, GROUP)
    others = [facts_of(tmp_path / case, **DEGENERATE[case]) for case in ("one_bin", "one_budget", "token_caps")]
    before = [drawn(facts, kind.name) for kind in CHARTS]
    for other in others:
        for kind in CHARTS:
            draw(kind, other, chart_data(other), NARROW)
    assert [drawn(facts, kind.name) for kind in CHARTS] == before
    drawn(facts, "pareto")["layer"].clear()
    assert [drawn(facts, kind.name) for kind in CHARTS] == before


def test_every_channel_has_its_type(demo: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(cls: type[SchemaBase], /, given: Any, **_: Any) -> None:
        raise AssertionError(f"Altair hashes every class of its schema, 7 ms, to guess what {given!r} is")

    monkeypatch.setattr(SchemaBase, "from_dict", classmethod(refused))
    results = read_results(demo, GROUP)
    for kind in CHARTS:
        draw(kind, results, chart_data(results))


def test_the_same_rows_give_the_same_bytes_in_any_order(demo: sqlite3.Connection, plots: Path, tmp_path: Path) -> None:
    facts = read_results(demo, GROUP)
    for name in ("latency_p50_by_bin", "heatmap_budget_length", "acc_by_budget"):
        for file in save(Picture(drawn(facts, name), tmp_path, name)):
            assert file.read_bytes() == (plots / file.name).read_bytes(), file.name


def test_a_picture_is_the_same_from_whichever_process(
    demo: sqlite3.Connection, plots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts, data = read_results(demo, GROUP), chart_data(read_results(demo, GROUP))
    pictures = [Picture(draw(kind, facts, data), tmp_path, kind.name) for kind in CHARTS]
    monkeypatch.setattr(picture_files, "WORTH_IT", len(pictures))
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    files = save(*pictures)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime > before, "no other process took part"
    assert files == [tmp_path / f"{kind.name}{end}" for kind in CHARTS for end in FILES]
    for file in files:
        assert file.read_bytes() == (plots / file.name).read_bytes(), file.name


def test_only_pictures_of_changed_or_missing_charts_are_drawn_anew(
    demo: sqlite3.Connection, plots: Path, tmp_path: Path
) -> None:
    shutil.copytree(plots, tmp_path / "plots")
    before = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "plots").iterdir()}
    (tmp_path / "plots" / "pareto.png").unlink()
    draw_all(demo, SETTINGS, tmp_path / "plots")
    after = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "plots").iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"pareto.png", "pareto.svg", "pareto.vl.json"}


@pytest.mark.parametrize(
    "case", ["one_bin", "one_budget", "full_cache_only", "all_failed", "no_baseline", "empty_bin", "token_caps"]
)
def test_every_chart_can_be_drawn_from_little(case: str, tmp_path: Path) -> None:
    with closing(write(tmp_path / "facts.sqlite", Rows(**DEGENERATE[case]))) as conn:
        facts = read_results(conn, GROUP)
    data = chart_data(facts)
    for kind in CHARTS:
        spec = draw(kind, facts, data)
        assert rows_of(spec), f"{kind.name} draws nothing and does not say why"
        assert spec["title"]["text"][0]


def test_what_cannot_be_drawn_says_why(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, **DEGENERATE["all_failed"])
    assert "no request has been answered" in json.dumps(drawn(facts, "latency_p50_by_bin"))
    assert rows_of(drawn(facts, "acc_by_budget"))[0]["acc_mean"] == 0, "failures are answers of score 0, not gaps"


def test_memory_charts_say_when_no_evidence_was_given(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, **DEGENERATE["unverified"])
    for name in ("pareto", "acc_by_kept_tokens"):  # full cache alone would be nothing to compare with
        chart = drawn(facts, name)
        assert "drawn: it changes with the answer" in json.dumps(chart)
        assert not [row for row in rows_of(chart) if "acc_mean" in row]


def test_every_accuracy_point_carries_its_interval(demo: sqlite3.Connection) -> None:
    facts = read_results(demo, GROUP)
    for name in (
        "acc_by_budget",
        "acc_by_budget_bins",
        "acc_by_bin",
        "heatmap_budget_length",
        "acc_by_kept_tokens",
        "pareto",
    ):
        points = [row for row in rows_of(drawn(facts, name)) if "acc_mean" in row]
        assert points
        assert all(row["acc_ci_low"] <= row["acc_mean"] <= row["acc_ci_high"] for row in points), name
        assert json.dumps(drawn(facts, name)).count("acc_ci_low") > len(points), f"{name} holds the interval unseen"


def test_partial_and_unverified_stand_under_a_charts_title(tmp_path: Path) -> None:
    series = DEGENERATE["unverified"]["series"]
    facts = facts_of(tmp_path, series=series, pending=3)
    for name in ("acc_by_budget", "pareto", "fail_by_bin"):
        assert "PARTIAL: 3 of 80 requests pending" in titles(drawn(facts, name)), name
        assert "UNVERIFIED: the budget is a label" in titles(drawn(facts, name)), name


def test_the_title_says_the_message(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, budgets=(1.0, 0.8, 0.5, 0.1, 0.05), n=80)
    assert drawn(facts, "acc_by_budget")["title"]["text"] == [
        "SnapKV (sees the question): safe to 50%, broken from 10% down"
    ]
    assert "No request failed (0 of 960)" in titles(drawn(facts, "fail_by_bin"))


def test_the_zone_is_drawn_where_the_verdict_puts_it(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, budgets=(1.0, 0.8, 0.5, 0.1, 0.05), n=80)
    behind = {r["part"]: (r["x"], r["x2"]) for r in rows_of(drawn(facts, "acc_by_budget")) if "part" in r}
    rows = [r for r in rows_of(drawn(facts, "verdict_by_budget")) if r.get("row") == "On average" and "part" in r]
    parts = {r["part"]: (r["x"], r["x2"]) for r in rows}
    assert parts["transition zone"] == behind["transition zone"] == (0.5, 0.1)
    assert parts["safe"][1] == 0.5
    assert parts["broken"][0] == 0.1


def test_the_picture_of_the_verdict_has_a_bar_for_each_length_and_each_other_series(demo: sqlite3.Connection) -> None:
    bars = chart_data(read_results(demo, GROUP)).bars
    groups = dict(bars.group_by("group", maintain_order=True).agg("row").iter_rows())
    rows = [list(dict.fromkeys(names)) for names in groups.values()]
    assert list(groups) == ["SnapKV (sees the question)", "Other series, on average over lengths"]
    assert rows == [
        ["On average", *(f"{(low + high) // 2:,} tokens" for low, high in EDGES)],
        ["SnapKV\nquestion not yet known", "StreamingLLM", "Random eviction"],
    ]
    for spans in bars.partition_by("group", "row", maintain_order=True):
        assert spans["x"][0] == 1.0 + 0.025 * 0.95, "every bar begins at the left end of the axis"
        assert spans["x"].to_list()[1:] == spans["x2"].to_list()[:-1], "and has no gap"


def test_a_length_without_a_verdict_keeps_its_bar_and_says_so(tmp_path: Path) -> None:
    bars = chart_data(facts_of(tmp_path, empty_bin=1)).bars
    assert bars.filter(row="241–480 tokens")["part"].to_list() == ["no verdict"]


def test_full_cache_stands_left_and_budgets_fall_to_the_right(tmp_path: Path) -> None:
    axis = budget_axis(facts_of(tmp_path))
    assert axis.labels == ("full", "50%", "20%")
    assert axis.edges[0] > axis.edges[1]


def test_token_caps_stand_by_rank_because_full_cache_has_no_count(tmp_path: Path) -> None:
    axis = budget_axis(facts_of(tmp_path, **DEGENERATE["token_caps"]))
    assert axis.labels == ("full", "512", "128", "32")
    assert [axis.at(1.0, is_full=True), axis.at(128.0)] == [0.0, 2.0]
    assert axis.title == "Tokens kept (cap, as asked)"


def test_budgets_too_close_to_tell_apart_are_spaced_evenly_and_the_axis_says_so(tmp_path: Path) -> None:
    axis = budget_axis(facts_of(tmp_path, **{**DEGENERATE["close_budgets"], "n": 4}))
    assert axis.scale == "rank"
    assert axis.title.endswith("(evenly spaced)")
    assert [axis.at(b) for b in (1.0, 0.95, 0.01)] == [0.0, 1.0, 10.0]


@pytest.mark.parametrize("width", [200, 236, 340, 490, 700])
@pytest.mark.parametrize("case", ["close_budgets", "tiny_budgets", "token_caps", "one_budget"])
def test_labels_of_budgets_never_touch_and_both_ends_have_one(case: str, width: int, tmp_path: Path) -> None:
    axis = budget_axis(facts_of(tmp_path, **{**DEGENERATE[case], "n": 4}))
    shown = axis.labelled(width)
    assert {0, len(axis.values) - 1} <= set(shown)
    ends = [(axis.share(axis.values[i]) * width, len(axis.labels[i]) * LABEL_PX / 2) for i in shown]
    assert all(b - a > half_a + half_b for (a, half_a), (b, half_b) in pairwise(ends))


def test_the_axis_says_which_budget_was_applied_beside_the_one_asked(tmp_path: Path) -> None:
    same = budget_axis(facts_of(tmp_path))
    assert same.applied_title == "applied (median): the same, within 0.5%"
    caps = budget_axis(facts_of(tmp_path / "caps", **DEGENERATE["token_caps"]))
    assert caps.applied == ("", "100%", "53%", "13%")
    assert caps.applied_title == "below: share of the prompt kept, median"
    label = budget_axis(facts_of(tmp_path / "label", **DEGENERATE["unverified"]))
    assert label.applied_title == "applied: not known"


def test_a_rounded_budget_stands_below_the_one_asked(tmp_path: Path) -> None:
    facts = facts_of(tmp_path)
    run = next(r for r in facts.runs if r.kv_budget == 0.2)
    rounded = {k: replace(s, kept_fraction_p50=0.25) if k[0] == run.run_id else s for k, s in facts.stats.items()}
    axis = budget_axis(replace(facts, stats=rounded))
    assert axis.applied == ("", "50%", "25%")
    assert "25%" in json.dumps(drawn(replace(facts, stats=rounded), "acc_by_budget"))


def test_a_second_axis_is_relative_to_full_cache(tmp_path: Path) -> None:
    spec = json.dumps(drawn(facts_of(tmp_path, full_acc=0.8), "acc_by_budget"))
    assert '"domain": [0, 1.25]' in spec, "100% of full cache stands where accuracy is 0.8"
    assert "relative to full cache" in spec
    floor = json.dumps(drawn(facts_of(tmp_path / "floor", **DEGENERATE["all_failed"]), "acc_by_budget"))
    assert "relative to full cache" not in floor


def test_a_zone_without_any_safe_budget_is_paler_and_named_as_open(tmp_path: Path) -> None:
    spec = drawn(facts_of(tmp_path), "acc_by_budget")
    assert "transition zone" not in {r.get("part") for r in rows_of(spec)}
    assert {"zone open above", "broken"} <= {r.get("part") for r in rows_of(spec)}
    assert {"name": "zone open above: nothing is proven safe"} in rows_of(spec)
    assert "open above, because no budget is proven safe" in titles(spec)


def test_very_small_budgets_get_a_logarithmic_axis(tmp_path: Path) -> None:
    assert budget_axis(facts_of(tmp_path, **DEGENERATE["tiny_budgets"])).scale == "log"


def test_series_differ_by_colour_shape_and_dash() -> None:
    looks = [(colour, shape, tuple(dash)) for colour, shape, dash in zip(PALETTE, SHAPES, DASHES, strict=True)]
    for part in range(3):
        assert len({look[part] for look in looks}) == len(PALETTE)


def test_narrow_charts_have_one_column_and_leave_the_message_to_the_page(demo: sqlite3.Connection) -> None:
    facts = read_results(demo, GROUP)
    spec = draw(KINDS["acc_by_bin"], facts, chart_data(facts), NARROW, title=False)
    assert "title" not in spec
    assert spec["columns"] == 1


def test_charts_that_show_nothing_new_are_named_with_the_reason(tmp_path: Path) -> None:
    def reasons(name: str, **changes: Any) -> dict[str, str]:
        (tmp_path / name).mkdir()
        facts = facts_of(tmp_path / name, **changes)
        return dict(without_news(facts, chart_data(facts)))

    usual = {"acc_by_bin": "it repeats the accuracy in each length bin", "fail_by_bin": "no request failed, of 80"}
    assert reasons("several") == usual
    repeats = "all prompts are in one length bin: it repeats accuracy by budget"
    assert [name for name, why in reasons("one", edges=EDGES[:1]).items() if why == repeats] == list(BY_BIN)
    unknown = reasons("unknown", series=(replace(SMALL["series"][0], evidence="unverified"),))
    assert {"acc_by_kept_tokens", "pareto"} <= set(unknown)
    assert "fail_by_bin" not in reasons("failures", series=(replace(SMALL["series"][0], fail=lambda *_: 0.2),))
