"""`kvt view` as a user meets it: in a real browser, over a group that is there and a sweep at work."""

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import pytest

from tests.analyzer.browser import Browser
from tests.analyzer.page_contrast import RATIO
from tests.servers.openai_server import Script, serving
from tests.sweep_process import config_of, kvt, wait_for
from tests.viewer.conftest import GROUP
from tests.worlds import query, sweep_settings
from viewer.groups.group_places import group_places

pytestmark = pytest.mark.browser
ROWS = "document.querySelectorAll('#list button').length"
SHOWN = "document.getElementById('n').textContent"
DETAIL = "document.getElementById('detail').innerText"
CONTRAST = f"""
(() => {{{RATIO}
  const texts = [...document.querySelectorAll('p, dt, dd, td, th, a, summary, h1, h2, h3, label, button, mark, span')];
  const isRead = e => e.innerText?.trim() && e.checkVisibility() && !e.matches(':disabled');
  return Math.min(...texts.filter(isRead).map(ratio));
}})()
"""
ANSWERED = "Number(document.getElementById('counts').textContent.match(/: ([0-9,]+) answered/)?.[1].replace(',', ''))"
WIDE = "document.documentElement.scrollWidth <= innerWidth"


@pytest.fixture(scope="module")
def viewed(runs_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a `kvt view` over the group and an empty folder, and that folder."""
    live = tmp_path_factory.mktemp("live")
    (live / "runs").mkdir()
    command = [sys.executable, "-m", "kvt_async", "view", str(runs_dir), str(live / "runs"), "--no-open"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", process.stdout.readline())
    assert address is not None
    yield address[0], live
    process.terminate()
    assert process.wait(30) == 0
    process.stdout.close()


def opened(browser: Browser, address: str, path: str, *, width: int = 1280, wait_for: str = "true") -> None:
    """A page of the server, through the address with the token."""
    root, _, token = address.partition("?")
    browser.open(f"{root.rstrip('/')}{path}{'&' if '?' in path else '?'}{token}", width=width, wait_for=wait_for)


def test_from_the_overview_to_the_answers_that_differ_by_keys_alone(
    browser: Browser, viewed: tuple[str, Path], runs_dir: Path
) -> None:
    browser.open(viewed[0], width=1280, wait_for="document.querySelector('.state.finished')")
    assert "token" not in browser.js("location.href")
    assert "snapkv/aware" in browser.js("document.body.innerText")
    browser.page.get_by_role("link", name=GROUP, exact=True).click()
    browser.wait("document.querySelectorAll('#levels tbody tr').length === 6")
    browser.page.get_by_role("link", name="Answers").click()
    browser.wait(f"{SHOWN}.includes('of 360 answers')")
    keys = browser.page.keyboard
    keys.press("d")
    browser.wait(f"{ROWS} > 0 && !{SHOWN}.includes('of 360') && {SHOWN}.includes('answers')")
    n = int(browser.js(f"{SHOWN}.match(/of ([0-9,]+)/)[1]").replace(",", ""))
    db = runs_dir / GROUP / "kv_transition.sqlite"
    assert n == query(db, "SELECT count(*) FROM scores WHERE first_divergence IS NOT NULL")[0][0]
    browser.wait("document.querySelector('#detail mark')")
    first = browser.js("document.querySelector('#detail h2').textContent")
    keys.press("j")
    browser.wait("document.activeElement.getAttribute('aria-pressed') === 'true'")
    keys.press("n")
    browser.wait(f"{SHOWN}.startsWith('51 to')")
    browser.wait(f"document.querySelector('#detail h2').textContent !== {first!r}")
    keys.press("k")
    browser.wait(f"{SHOWN}.startsWith('1 to')")
    keys.press("?")
    browser.wait("document.getElementById('keys').open")
    keys.press("Escape")
    keys.press("d")
    browser.wait(f"{SHOWN}.includes('of 360 answers')")
    keys.press("/")
    browser.wait("document.activeElement.name === 'text'")
    keys.type("window.hacked")
    browser.wait(f"location.search.includes('window.hacked') && /of [0-9] answers/.test({SHOWN})")
    assert browser.complaints == []


def test_hostile_answers_are_text(browser: Browser, viewed: tuple[str, Path], runs_dir: Path) -> None:
    key = group_places([runs_dir])[0].key
    for width in (1280, 390):
        opened(browser, viewed[0], f"/g/{key}/answers?text=window.hacked", width=width, wait_for=f"{ROWS} > 0")
        browser.page.keyboard.press("j")
        browser.wait(f"{DETAIL}.includes('<script>window.hacked')")
        assert "\\x1b[31mred \\u202eleft" in browser.js(DETAIL)
        assert browser.js("window.hacked") is None
        assert browser.js("document.querySelectorAll('main img').length") == 0
        assert browser.js(WIDE)
        assert browser.complaints == []


def test_every_page_is_readable_on_a_desk_and_a_phone_in_both_schemes(
    browser: Browser, viewed: tuple[str, Path], runs_dir: Path
) -> None:
    key = group_places([runs_dir])[0].key
    pages = {
        "/": "document.querySelector('.state.finished')",
        f"/g/{key}": "document.querySelectorAll('#levels tbody tr').length === 6",
        f"/g/{key}/verdict": "document.documentElement.dataset.charts > 5",
        f"/g/{key}/answers?differs=yes": f"{ROWS} > 0",
        f"/compare?a={key}&b={key}": "document.querySelector('#curves svg')",
    }
    for path, ready in pages.items():
        opened(browser, viewed[0], path, wait_for=ready)
        for scheme in ("light", "dark"):
            browser.page.emulate_media(color_scheme=scheme)
            for width in (1280, 390):
                browser.page.set_viewport_size({"width": width, "height": 900})
                assert browser.js(CONTRAST) >= 4.5, (path, scheme)
                assert browser.js(WIDE), (path, width)
        assert browser.complaints == []


@pytest.fixture
def server() -> Iterator[tuple[str, Script]]:
    """A server in a thread (Playwright's loop has this one), and its script, which may be changed meanwhile."""
    script, address, over = Script(delay_s=0.4), Queue[str](), threading.Event()

    async def serve() -> None:
        async with serving(script) as (_, url):
            address.put(url)
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    yield address.get(), script
    over.set()
    thread.join()


def test_it_follows_a_sweep_that_is_killed_and_goes_on(
    browser: Browser, viewed: tuple[str, Path], server: tuple[str, Script]
) -> None:
    (address, live), (url, script) = viewed, server
    settings = sweep_settings(live, url, "kv.apply={via: none}", "kv.policy=label", n=40)
    config = config_of(settings, live)
    sweep = kvt(config)
    wait_for(settings, 4, sweep)
    opened(browser, address, f"/g/{group_places([live / 'runs'])[0].key}")
    browser.wait("document.querySelector('.state.running')")
    browser.wait("document.getElementById('says').textContent.includes('process')")
    seen = answered(browser)
    browser.wait(f"{ANSWERED} > {seen}")
    sweep.kill()
    sweep.communicate()
    browser.wait("document.querySelector('.state.killed')")
    assert 0 < answered(browser) < 160
    again = kvt(config)
    browser.wait("document.querySelector('.state.running')")
    script.delay_s = 0.0
    browser.wait("document.querySelector('.state.finished')")
    _, err = again.communicate()
    assert again.returncode == 0, err
    browser.wait(f"{ANSWERED} === 160")
    assert browser.js("document.querySelectorAll('#sessions tbody tr').length") == 2
    assert browser.complaints == []
    _answers_are_there(browser)


def answered(browser: Browser) -> int:
    return int(browser.js(ANSWERED))


def _answers_are_there(browser: Browser) -> None:
    """Nothing is scored yet, and every answer can be read."""
    browser.page.get_by_role("link", name="Answers").click()
    browser.wait(f"{SHOWN}.includes('of 160 answers')")
    browser.page.locator("#f-level").select_option("full")
    browser.wait(f"{SHOWN}.includes('of 40 answers')")
