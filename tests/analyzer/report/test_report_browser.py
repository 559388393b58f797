"""report.html in a real browser: offline, complete, interactive, and readable on a desk and on a phone."""

from contextlib import closing
from pathlib import Path

import pytest

from analyzer.report.build import html
from analyzer.report.suite_build import suite_html
from analyzer.results.results import read_results
from tests.analyzer.browser import Browser
from tests.analyzer.report_cases import DEGENERATE, GROUP, Rows
from tests.analyzer.report_page import NOON, SETTINGS, demo_report
from tests.analyzer.report_rows import write
from tests.analyzer.suite_cases import suite_of

pytestmark = pytest.mark.browser

TOUCHING = """
[...document.querySelectorAll('svg .role-axis-label')].flatMap(axis => {
  const boxes = [...axis.querySelectorAll('text')]
    .filter(t => t.textContent.trim() && !/rotate\\((?!0\\))/.test(t.getAttribute('transform')))
    .filter(t => t.getAttribute('opacity') !== '0')
    .map(t => [t.textContent, t.getBoundingClientRect()]);
  return boxes.slice(1).filter(([, b], i) => {
    const a = boxes[i][1];
    return a.left < b.right - 0.5 && b.left < a.right - 0.5 && a.top < b.bottom - 2 && b.top < a.bottom - 2;
  }).map(([name]) => axis.closest('[data-chart]').dataset.chart + ' ' + name);
})
"""
CONTRAST = """
(() => {
  const lum = c => {
    const [r, g, b] = c.match(/[0-9.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (!c.startsWith('rgba(0, 0, 0, 0')) return c;
    }
    return 'rgb(255, 255, 255)';
  };
  const ratio = e => {
    const [a, b] = [lum(getComputedStyle(e).color), lum(ground(e))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const texts = [...document.querySelectorAll('p, dt, dd, td, th, a, summary, h1, h2, h3')];
  return Math.min(...texts.filter(e => e.textContent.trim()).map(ratio));
})()
"""
DRAWN = "document.documentElement.dataset.charts === '11'"
WIDTHS = (1280, 390)
CASES = (
    "one_example", "all_failed", "dead_knob", "close_budgets",
)  # fmt: skip


@pytest.fixture(scope="module", params=CASES)
def case_page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of one degenerate case, its pictures left out."""
    folder = tmp_path_factory.mktemp("case")
    with closing(write(folder / "facts.sqlite", Rows(**DEGENERATE[request.param]))) as conn:
        text = html(read_results(conn, GROUP, volumes=True), SETTINGS, NOON)
    file = folder / "report.html"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def page() -> Path:
    return demo_report()[1].html


@pytest.mark.parametrize("width", WIDTHS)
def test_it_opens_offline_without_a_request_or_a_complaint(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width=width, wait_for=DRAWN)
    assert browser.requests == [page.resolve().as_uri()]
    assert browser.complaints == []


@pytest.mark.parametrize("width", WIDTHS)
def test_every_chart_is_drawn(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width=width, wait_for=DRAWN)
    marks = browser.js(
        "Object.fromEntries([...document.querySelectorAll('[data-chart]')].map(place =>"
        " [place.dataset.chart, place.querySelectorAll('svg .mark-symbol path, svg .mark-rect path').length]))"
    )
    assert len(marks) == 11
    assert marks.pop("fail_by_bin") == 0, "no request failed: a sentence in place of a chart"
    assert min(marks.values()) > 5, marks


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_never_scrolls_sideways_and_wide_things_scroll_in_their_own_box(
    dressed: Browser, page: Path, width: int
) -> None:
    dressed.open(page, width=width, wait_for=DRAWN)
    assert dressed.js("document.documentElement.scrollWidth") == width
    loose = dressed.js(
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') && !e.closest('details')"
        " && e.getBoundingClientRect().right > innerWidth).map(e => e.tagName + ' ' + e.textContent.slice(0, 40))"
    )
    assert loose == []


@pytest.mark.parametrize("width", WIDTHS)
def test_charts_fit_the_column_without_scrolling(dressed: Browser, page: Path, width: int) -> None:
    dressed.open(page, width=width, wait_for=DRAWN)
    wide = dressed.js(
        "[...document.querySelectorAll('.chart')].filter(c => c.scrollWidth > c.parentElement.clientWidth + 1)"
        ".map(c => c.dataset.chart + ' ' + c.scrollWidth)"
    )
    assert wide == []


def test_text_is_large_enough_to_read_on_a_phone(browser: Browser, page: Path) -> None:
    browser.open(page, width=390, wait_for=DRAWN)
    sizes = browser.js(
        "[...document.querySelectorAll('p, dt, dd, td, th, svg text')].filter(e => e.textContent.trim())"
        ".map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 9


def test_a_click_in_the_legend_sets_one_series_off(browser: Browser, page: Path) -> None:
    browser.open(page, width=1280, wait_for=DRAWN)
    faint = (
        "[...document.querySelectorAll('[data-chart=acc_by_budget] svg .mark-symbol path[aria-roledescription=point]')]"
        ".filter(e => parseFloat(getComputedStyle(e).opacity) < 0.5).length"
    )
    assert browser.js(faint) == 0
    spot = browser.js(
        "(() => { const name = [...document.querySelectorAll('[data-chart=acc_by_budget] .role-legend-label text')]"
        ".find(e => e.textContent === 'Random eviction'); name.scrollIntoView({block: 'center', behavior: 'instant'});"
        " const box = name.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    browser.click(*spot)
    browser.wait(f"{faint} > 0")
    assert browser.js(faint) == 3 * 9, "the points of the three other series fade"


def test_hovering_a_point_shows_its_numbers(browser: Browser, page: Path) -> None:
    browser.open(page, width=1280, wait_for=DRAWN)
    spot = browser.js(
        "(() => { const point = document.querySelector('[data-chart=acc_by_budget] svg"
        " .mark-symbol path[aria-roledescription=point]');"
        " point.scrollIntoView({block: 'center', behavior: 'instant'});"
        " const box = point.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    browser.hover(*spot)
    browser.wait("!!document.querySelector('#vg-tooltip-element.visible')")
    shown = browser.js("document.querySelector('#vg-tooltip-element').innerText")
    for word in ("accuracy", "95% CI from", "examples", "evidence"):
        assert word in shown


def test_the_verdict_is_above_the_fold(browser: Browser, page: Path) -> None:
    for width, height in ((1280, 900), (390, 844)):
        browser.open(page, width=width, height=height, wait_for=DRAWN)
        assert browser.js("document.querySelector('.headline').getBoundingClientRect().bottom") < height


def test_a_degenerate_case_is_whole_on_a_desk_and_on_a_phone(browser: Browser, case_page: Path) -> None:
    for width in WIDTHS:
        browser.open(case_page, width=width, wait_for=DRAWN)
        assert browser.complaints == []
        assert browser.js("document.documentElement.scrollWidth") == width
        assert (
            browser.js(
                "[...document.querySelectorAll('.chart')].filter(c => c.scrollWidth > c.parentElement.clientWidth + 1)"
                ".map(c => c.dataset.chart + ' ' + c.scrollWidth)"
            )
            == []
        ), width
        assert (
            browser.js(
                "[...document.querySelectorAll('[data-chart]')].filter(c => !c.querySelector('svg text'))"
                ".map(c => c.dataset.chart)"
            )
            == []
        ), "a chart that draws nothing says why"
        assert browser.js(TOUCHING) == [], "labels of an axis never overlap"
        texts = browser.js("[...document.querySelectorAll('.headline, dd p')].map(e => e.textContent.trim())")
        assert all(text.endswith((".", ")", "%")) for text in texts), texts


def test_quiet_text_stands_out_from_its_ground(browser: Browser, page: Path) -> None:
    browser.open(page, width=1280, wait_for=DRAWN)
    contrast = browser.js(CONTRAST)
    assert contrast >= 4.5, "WCAG AA for text"


# ---------------------------------------------------------------- several tasks

SUITE_DRAWN = "document.documentElement.dataset.charts === '2'"


@pytest.fixture(scope="module")
def suite_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    file = folder / "report.html"
    file.write_text(suite_html(suite_of(folder), SETTINGS, NOON), encoding="utf-8")
    return file


@pytest.mark.parametrize("width", WIDTHS)
def test_a_suite_opens_with_its_verdict_and_picture_and_its_tasks_folded(
    dressed: Browser, suite_page: Path, width: int
) -> None:
    dressed.open(suite_page, width=width, wait_for=SUITE_DRAWN)
    assert dressed.requests == [suite_page.resolve().as_uri()]
    assert dressed.complaints == []
    assert dressed.js("document.documentElement.scrollWidth") == width
    assert dressed.js("document.querySelector('.headline').getBoundingClientRect().bottom") < 844
    assert dressed.js("[...document.querySelectorAll('details[data-task]')].map(task => task.open)") == [False] * 3
    assert dressed.js("document.querySelectorAll('details[data-task] svg').length") == 0, "drawn when they are opened"
    ids = dressed.js("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    targets = dressed.js("[...document.querySelectorAll('nav a')].map(a => a.getAttribute('href').slice(1))")
    assert set(targets) <= set(ids)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_task_that_is_opened_draws_all_its_charts(dressed: Browser, suite_page: Path, width: int) -> None:
    dressed.open(suite_page, width=width, wait_for=SUITE_DRAWN)
    dressed.js("document.querySelectorAll('details[data-task]')[1].querySelector('summary').click()")
    dressed.wait("document.querySelectorAll('details[data-task]')[1].dataset.drawn === '11'")
    assert dressed.complaints == []
    assert dressed.js("document.documentElement.scrollWidth") == width
    assert dressed.js("document.querySelectorAll('details[data-task]')[0].dataset.drawn ?? null") is None
    empty = (
        "[...document.querySelectorAll('details[open] [data-chart]')].filter(c => !c.querySelector('svg text')).length"
    )
    assert dressed.js(empty) == 0
    assert dressed.js(TOUCHING) == []


def test_quiet_text_of_a_suite_stands_out_from_its_ground(browser: Browser, suite_page: Path) -> None:
    browser.open(suite_page, width=1280, wait_for=SUITE_DRAWN)
    assert browser.js(CONTRAST) >= 4.5
