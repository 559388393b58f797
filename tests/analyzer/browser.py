"""A headless Chromium for tests: opens a local file, offline, and tells what a person would meet there.

Playwright drives the browser that the machine has (Debian's chromium); it downloads none. Its synchronous interface
keeps an event loop in the thread that it was started in: no test that has a loop of its own may run beside it.
"""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import Browser as Chromium
from playwright.sync_api import ConsoleMessage, Page, Playwright
from playwright.sync_api import Error as PageError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FONTCONFIG = (
    '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">'
    "<fontconfig>{folders}<cachedir>{cache}</cachedir></fontconfig>"
)
FONTS = ("/usr/share/fonts", "/usr/local/share/fonts")
MISSING = "no headless Chromium on this machine: install Debian's chromium (apt-get install chromium)"
PATIENCE_MS = 60_000
POLL_MS = 25


def find() -> str | None:
    """Path of a browser, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def folder_of(font: str) -> Path | None:
    """Where an installed font's file lies, or None."""
    return next((file.parent for folder in FONTS for file in Path(folder).rglob(font)), None)


@contextmanager
def launched(playwright: Playwright, fonts: Sequence[Path] | None = None) -> "Iterator[Browser]":
    """A browser that finds its fonts in these folders; no folder: the barest machine; None: this machine's fonts."""
    path = find()
    if path is None:
        raise RuntimeError(MISSING)
    with TemporaryDirectory(prefix="kvt-fonts-", ignore_cleanup_errors=True) as folder:
        env: dict[str, str | float | bool] = dict(os.environ)
        if fonts is not None:
            config = Path(folder) / "fonts.conf"
            folders = "".join(f"<dir>{font}</dir>" for font in fonts)
            config.write_text(FONTCONFIG.format(folders=folders, cache=folder), encoding="utf-8")
            env["FONTCONFIG_FILE"] = str(config)
        chromium = playwright.chromium.launch(executable_path=path, args=["--disable-dev-shm-usage"], env=env)
        yield Browser(chromium)
        chromium.close()


class Browser:
    """One page at a time; every request, console message and page error of it is kept."""

    def __init__(self, chromium: Chromium) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._chromium = chromium
        self._page: Page | None = None

    def open(
        self, place: Path | str, *, width: int, height: int = 900, wait_for: str = "true", is_dark: bool = False
    ) -> None:
        """Load a file offline, or an address, at `width` CSS pixels and wait until the JavaScript `wait_for` is true;
        is_dark: as a reader who asked their system for dark pages."""
        if self._page is not None:
            self._page.context.close()
        self.requests, self.complaints = [], []
        context = self._chromium.new_context(
            viewport={"width": width, "height": height},
            is_mobile=width < 600,
            offline=isinstance(place, Path),
            color_scheme="dark" if is_dark else "light",
        )
        context.set_default_timeout(PATIENCE_MS)
        self._page = context.new_page()
        self._page.on("request", lambda request: self.requests.append(request.url))
        self._page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self._page.on("console", self._heard)
        self._page.goto(place.resolve().as_uri() if isinstance(place, Path) else place)
        self.wait(wait_for)

    @property
    def page(self) -> Page:
        """The page that was opened last."""
        assert self._page is not None, "no page was opened"
        return self._page

    def wait(self, condition: str) -> None:
        """Until a JavaScript condition is true, asked from outside: pages may forbid that text becomes code. An error
        after a minute."""
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while True:
            with suppress(PageError):  # the page is just going to another address
                if self.page.evaluate(condition):
                    return
            assert time.monotonic() < deadline, f"never true: {condition}; {self.complaints}"
            self.page.wait_for_timeout(POLL_MS)

    def js(self, expression: str) -> Any:
        """Value of a JavaScript expression in the page."""
        return self.page.evaluate(expression)

    def click(self, x: float, y: float) -> None:
        """A real mouse click at page coordinates that are in view."""
        self.page.mouse.click(x, y)

    def hover(self, x: float, y: float) -> None:
        self.page.mouse.move(x, y)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            self.complaints.append(message.text)
