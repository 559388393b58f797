"""bench_report.html in a real browser: offline, complete, and readable on a desk and on a phone."""

from pathlib import Path

import pytest

from analyzer.bench.bench_analysis import bench_stages
from kvt_async.contract.load import load_settings
from tests.analyzer.bench_rows import GROUP, Load, Sent, steady, write_bench
from tests.analyzer.browser import Browser
from tests.analyzer.page_contrast import CHART_CONTRAST, CONTRAST, SKIPPED_HEADINGS

pytestmark = pytest.mark.browser

CHARTS = {"bench_frontier", "bench_latency_cdf", "bench_over_time", "bench_ttft_parts"}
DRAWN = f"document.documentElement.dataset.charts === '{len(CHARTS)}'"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rates of a server that says how long its queue was; some requests failed."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / f"runs/{GROUP}").mkdir(parents=True)
    loads = [
        Load([Sent(i * 100, ttft_ms=90 + i % 30, failed=i % 20 == 7) for i in range(60)], slo={"ttft_p95_ms": 500},
             before=_metrics(0, 0), after=_metrics(60, 6)),
        Load(steady(120, gap_ms=50, ttft_ms=140), label="rate 20/s", rate=20, slo={"ttft_p95_ms": 500},
             before=_metrics(60, 6), after=_metrics(180, 18)),
    ]  # fmt: skip
    write_bench(folder / f"runs/{GROUP}/kv_transition.sqlite", loads).close()
    settings = load_settings(None, [
        f"experiment.exp_group_id={GROUP}", "dataset.name=jsonl", "dataset.task=t", "dataset.path=x.jsonl",
        f"output.runs_dir={folder}/runs",
    ], environ={})  # fmt: skip
    return Path(bench_stages(settings, as_tool="vllm")["report_html"])


def _metrics(count: int, seconds: float) -> dict[str, object]:
    names = ("time_to_first_token", "request_queue_time", "request_prefill_time")
    return {f"vllm:{name}_seconds": {"count": count, "sum": seconds * share, "buckets": {"+Inf": count}}
            for name, share in zip(names, (1.0, 0.25, 0.5), strict=True)}  # fmt: skip


@pytest.mark.parametrize("width", [1280, 390])
def test_it_opens_offline_with_every_chart_drawn_and_nothing_wider_than_the_screen(
    dressed: Browser, page: Path, width: int
) -> None:
    dressed.open(page, width=width, wait_for=DRAWN)
    assert dressed.requests == [page.resolve().as_uri()]
    assert dressed.complaints == []
    marks = dressed.js(
        "Object.fromEntries([...document.querySelectorAll('[data-chart]')].map(place => [place.dataset.chart,"
        " place.querySelectorAll('svg .mark-symbol path, svg .mark-line path, svg .mark-rect path').length]))"
    )
    assert set(marks) == CHARTS
    assert min(marks.values()) >= 2, marks
    assert dressed.js("document.documentElement.scrollWidth") == width
    loose = dressed.js(
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') && !e.closest('details')"
        " && !e.closest('pre') && e.getBoundingClientRect().right > innerWidth)"
        ".map(e => e.tagName + ' ' + e.textContent.slice(0, 40))"
    )
    assert loose == []
    wide = dressed.js(
        "[...document.querySelectorAll('.chart')].filter(c => c.scrollWidth > c.parentElement.clientWidth + 1)"
        ".map(c => c.dataset.chart)"
    )
    assert wide == []


def test_it_is_readable_dark_its_headings_in_order_and_what_scrolls_is_reached_by_keyboard(
    browser: Browser, page: Path
) -> None:
    browser.open(page, width=1280, wait_for=DRAWN, is_dark=True)
    assert browser.js(CONTRAST) >= 4.5
    assert browser.js(CHART_CONTRAST) == []
    assert browser.js(SKIPPED_HEADINGS) == []
    unreachable = browser.js(
        "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1 && e.tabIndex !== 0)"
        ".map(e => e.textContent.slice(0, 40))"
    )
    assert unreachable == []


def test_the_verdict_is_above_the_fold_of_a_phone(browser: Browser, page: Path) -> None:
    browser.open(page, width=390, height=844, wait_for=DRAWN)
    assert browser.js("document.querySelector('.headline').getBoundingClientRect().bottom") < 844
