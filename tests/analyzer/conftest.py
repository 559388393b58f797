"""Fixtures shared by the analyzer's tests: a database with a known truth, opened as the analyzer opens it."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Playwright, sync_playwright

from kvt_async.contract.load import load_settings
from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.settings import Settings
from tests.analyzer.browser import MISSING, Browser, find, folder_of, launched
from tests.analyzer.synthetic import make_db

Opened = tuple[sqlite3.Connection, Settings]
Experiment = Callable[..., Opened]


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """What drives the browsers. Without one their tests are skipped, and fail where CI asks for everything."""
    if find() is None:
        _lacks(MISSING)
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """A Chromium with this machine's fonts."""
    with launched(playwright) as chromium:
        yield chromium


@pytest.fixture(scope="module", params=["no fonts", "DejaVu"])
def dressed(request: pytest.FixtureRequest, playwright: Playwright) -> Iterator[Browser]:
    """One without a font and one with those that are widest: no layout may depend on how wide a label's letters are."""
    folder = folder_of("DejaVuSans.ttf") if request.param == "DejaVu" else None
    if request.param == "DejaVu" and folder is None:
        _lacks("no DejaVu fonts on this machine: install Debian's fonts-dejavu-core")
    with launched(playwright, [folder] if folder is not None else []) as chromium:
        yield chromium


def _lacks(what: str) -> None:
    """Skip, and fail where CI asks for everything."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture
def experiment(tmp_path: Path) -> Iterator[Experiment]:
    """Make a database with `make_db`'s parameters; give a connection that may write derived tables, and settings."""
    opened: list[sqlite3.Connection] = []

    def make(*, resamples: int = 500, overrides: tuple[str, ...] = (), **asked: Any) -> Opened:
        db = make_db(tmp_path / f"db{len(opened)}.sqlite", **asked)
        conn = connect_for_reading(db, write_derived=True)
        conn.row_factory = sqlite3.Row
        opened.append(conn)
        group = asked.get("exp_group_id", "synthetic")
        given = (f"experiment.exp_group_id={group}", f"analysis.resamples={resamples}", *overrides)
        return conn, load_settings(None, given, environ={})

    yield make
    for conn in opened:
        conn.close()
