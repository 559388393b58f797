"""report.html in a real browser: offline, complete, interactive, and readable on a desk and on a phone."""

from contextlib import closing
from pathlib import Path

import pytest

from analyzer.report.build import html
from analyzer.report.suite_build import suite_html
from analyzer.results.results import read_results
from tests.analyzer.browser import Browser
from tests.analyzer.page_contrast import CHART_CONTRAST, CONTRAST, SKIPPED_HEADINGS
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
CUT_TABLES = """
[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1)
  .map(e => e.getAttribute('aria-label'))
"""
DRAWN = "document.documentElement.dataset.charts === String(document.querySelectorAll('[data-chart]').length)"
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
    assert len(marks) == 9
    said = browser.js("document.querySelector('.left-out').textContent")
    assert "No request failed" in said
    assert "Accuracy by prompt length (it repeats" in said
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


@pytest.mark.parametrize("is_dark", [False, True])
def test_quiet_text_and_the_words_of_charts_stand_out_from_their_ground(
    browser: Browser, page: Path, is_dark: bool
) -> None:
    browser.open(page, width=1280, wait_for=DRAWN, is_dark=is_dark)
    ground = browser.js("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(19, 21, 23)" if is_dark else "rgb(245, 245, 243)")
    browser.js("document.querySelectorAll('details').forEach(folded => { folded.open = true; })")
    assert browser.js(CONTRAST) >= 4.5, "WCAG AA for text"
    assert browser.js(CHART_CONTRAST) == [], browser.js(CHART_CONTRAST)


def test_a_dark_page_is_printed_on_white_paper(browser: Browser, page: Path) -> None:
    browser.open(page, width=1280, wait_for=DRAWN, is_dark=True)
    browser.page.emulate_media(media="print", color_scheme="dark")
    assert browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.js("getComputedStyle(document.querySelector('.chart svg')).filter") == "none"
    assert browser.js(CONTRAST) >= 4.5


def test_no_table_is_cut_on_a_desk_and_on_a_phone_each_that_is_says_so(dressed: Browser, page: Path) -> None:
    for width in WIDTHS:
        dressed.open(page, width=width, wait_for=DRAWN)
        dressed.js("document.querySelectorAll('details').forEach(folded => { folded.open = true; })")
        dressed.wait("!document.querySelector('.scroll[tabindex]:not(.wide)')")
        cut = dressed.js(CUT_TABLES)
        if width == 1280:
            assert cut == []
            continue
        assert "Every level over all lengths" in cut
        said = (
            "[...document.querySelectorAll('.scroll')].filter(e => e.tabIndex === 0"
            " && e.getAttribute('role') === 'region'"
            " && getComputedStyle(e, '::before').content.startsWith('\"Scrolls sideways'))"
            ".map(e => e.getAttribute('aria-label'))"
        )
        assert dressed.js(said) == cut


def test_the_keyboard_alone_and_a_screen_reader_find_their_way(browser: Browser, page: Path) -> None:
    browser.open(page, width=390, wait_for=DRAWN)
    browser.page.keyboard.press("Tab")
    assert browser.js("document.activeElement.textContent") == "Skip to the content"
    assert browser.js("document.activeElement.getBoundingClientRect().left") >= 0
    browser.page.keyboard.press("Enter")
    assert browser.js("document.activeElement.id") == "main"
    browser.page.keyboard.press("Tab")
    assert browser.js("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert browser.js(SKIPPED_HEADINGS) == []
    labels = browser.js("[...document.querySelectorAll('[data-chart]')].map(e => e.getAttribute('aria-label'))")
    assert [label for label in labels if ". " not in label] == [], "the title and the sentence that explains the marks"
    assert (
        browser.js("['header', 'main', 'nav', 'footer'].map(tag => document.querySelectorAll(tag).length)") == [1] * 4
    )


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
    dressed.wait("document.querySelectorAll('details[data-task]')[1].dataset.drawn === '9'")
    assert dressed.complaints == []
    assert dressed.js("document.documentElement.scrollWidth") == width
    assert dressed.js("document.querySelectorAll('details[data-task]')[0].dataset.drawn ?? null") is None
    empty = (
        "[...document.querySelectorAll('details[open] [data-chart]')].filter(c => !c.querySelector('svg text')).length"
    )
    assert dressed.js(empty) == 0
    assert dressed.js(TOUCHING) == []


def test_a_suite_is_readable_dark_and_its_headings_are_in_order(browser: Browser, suite_page: Path) -> None:
    browser.open(suite_page, width=1280, wait_for=SUITE_DRAWN, is_dark=True)
    assert browser.js(CONTRAST) >= 4.5
    assert browser.js(CHART_CONTRAST) == [], browser.js(CHART_CONTRAST)
    assert browser.js(SKIPPED_HEADINGS) == []
