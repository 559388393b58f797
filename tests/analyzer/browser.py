"""A headless Chromium for tests: opens a local file and tells what a person would meet there.

Speaks the DevTools protocol over a pipe, so that nothing listens on a port and no driver has to be installed. Every
request, console message and page error is kept.
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FONTCONFIG = (
    '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">'
    "<fontconfig>{folders}<cachedir>{cache}</cachedir></fontconfig>"
)
FONTS = ("/usr/share/fonts", "/usr/local/share/fonts")
MISSING = "no headless Chromium on this machine: install Debian's chromium (apt-get install chromium)"


def find() -> str | None:
    """Path of a browser, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def folder_of(font: str) -> Path | None:
    """Where an installed font's file lies, or None."""
    return next((file.parent for folder in FONTS for file in Path(folder).rglob(font)), None)


class Browser:
    """`with Browser() as browser: browser.open(path, width=390)`."""

    def __init__(self, patience_s: float = 60, *, fonts: Sequence[Path] | None = None) -> None:
        """`fonts`: folders in which it finds its fonts; none of them: the barest machine; None: this machine's."""
        self.patience_s, self.fonts = patience_s, fonts
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._seen: list[dict[str, Any]] = []
        self._last_id = 0
        self._buffer = b""

    def __enter__(self) -> "Browser":
        path = find()
        if path is None:
            raise RuntimeError(MISSING)
        self._home = tempfile.TemporaryDirectory(prefix="kvt-browser-", ignore_cleanup_errors=True)
        read_end, self._write = _pipe()
        self._read, write_end = _pipe()
        command = (
            path, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={self._home.name}", "--remote-debugging-pipe", "about:blank",
        )  # fmt: skip
        null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        pipes = [(os.POSIX_SPAWN_DUP2, read_end, 3), (os.POSIX_SPAWN_DUP2, write_end, 4)]
        env = dict(os.environ)
        if self.fonts is not None:
            config = Path(self._home.name) / "fonts.conf"
            folders = "".join(f"<dir>{folder}</dir>" for folder in self.fonts)
            config.write_text(FONTCONFIG.format(folders=folders, cache=self._home.name), encoding="utf-8")
            env["FONTCONFIG_FILE"] = str(config)
        self._pid = os.posix_spawn(path, command, env, file_actions=[*null, *pipes], setpgroup=0)
        os.close(read_end)
        os.close(write_end)
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._read)
        os.close(self._write)
        self._home.cleanup()

    def open(self, page: Path, *, width: int, height: int = 900, wait_for: str = "true") -> None:
        """Load `page` offline at `width` CSS pixels and wait until the JavaScript `wait_for` is true."""
        self.requests.clear()
        self.complaints.clear()
        self.ask("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.ask("Page.navigate", url=page.resolve().as_uri())
        self.wait(f"document.readyState === 'complete' && ({wait_for})")

    def wait(self, condition: str) -> None:
        deadline = time.monotonic() + self.patience_s
        while self.js(condition) is not True:
            if time.monotonic() > deadline:
                raise TimeoutError(f"never became true: {condition}; the page said {self.complaints}")
            select.select([self._read], [], [], 0.1)

    def js(self, expression: str) -> Any:
        """Value of a JavaScript expression in the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def click(self, x: float, y: float) -> None:
        """A real mouse click at page coordinates that are in view."""
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def hover(self, x: float, y: float) -> None:
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, file: Path, *, top: float = 0, height: float | None = None) -> None:
        """PNG of the whole page, or of a stripe of it."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": top, "width": size["width"], "height": height or size["height"] - top, "scale": 1}
        shot = self.ask("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """One DevTools command to the page."""
        return self._ask(method, session=self._session, **params)

    def _ask(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + self.patience_s
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self._last_id:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError("the browser did not answer")
            chunk = os.read(self._read, 1 << 20)
            if not chunk:
                raise RuntimeError("the browser ended")
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(json.dumps(params["entry"]))


def _pipe() -> tuple[int, int]:
    """A pipe above the low descriptors that the browser's own ends will take."""
    ends = os.pipe()
    read_end, write_end = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in ends)
    for fd in ends:
        os.close(fd)
    return read_end, write_end
