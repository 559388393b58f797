"""report.html in a real browser: offline, complete, interactive, and readable on a desk and on a phone."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.analyzer.browser import MISSING, Browser, find
from tests.analyzer.report_page import demo_report

pytestmark = pytest.mark.browser

DRAWN = "document.documentElement.dataset.charts === '10'"
WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if find() is None:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    with Browser() as chromium:
        yield chromium


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
    assert len(marks) == 10
    assert min(marks.values()) > 5, marks


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_never_scrolls_sideways_and_wide_things_scroll_in_their_own_box(
    browser: Browser, page: Path, width: int
) -> None:
    browser.open(page, width=width, wait_for=DRAWN)
    assert browser.js("document.documentElement.scrollWidth") == width
    loose = browser.js(
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') && !e.closest('details')"
        " && e.getBoundingClientRect().right > innerWidth).map(e => e.tagName + ' ' + e.textContent.slice(0, 40))"
    )
    assert loose == []


@pytest.mark.parametrize("width", WIDTHS)
def test_charts_fit_the_column_without_scrolling(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width=width, wait_for=DRAWN)
    wide = browser.js(
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
        ".find(e => e.textContent === 'random'); name.scrollIntoView({block: 'center', behavior: 'instant'});"
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
