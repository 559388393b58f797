"""A small hub on loopback: files at one revision, served as the Hugging Face hub serves files of a data set.

HEAD announces size, commit and etag (the SHA-256, as for large files); GET serves ranges. `faults` are taken one by one
by the GETs of file content: "cut" sends half and closes, "other" sends other bytes of the same size.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Hub:
    repo: str
    revision: str
    files: dict[str, bytes]
    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """METHOD path, and the asked range where there is one."""
    url: str = ""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.answer()

        def log_message(self, *args: object) -> None:
            pass

        def answer(self) -> None:
            asked = self.headers.get("Range") or ""
            hub.requests.append(f"{self.command} {self.path} {asked}".strip())
            resolve, api = f"/datasets/{hub.repo}/resolve/", f"/api/datasets/{hub.repo}"
            if self.path.startswith(resolve):
                revision, _, name = self.path.removeprefix(resolve).partition("/")
                self.content(revision, name, asked)
            elif self.path.startswith(api):
                self.about(self.path.removeprefix(api).split("?")[0])
            else:
                self.refuse("RepoNotFound")

        def content(self, revision: str, name: str, asked: str) -> None:
            if revision != hub.revision:
                return self.refuse("RevisionNotFound")
            if name not in hub.files:
                return self.refuse("EntryNotFound")
            data = hub.files[name]
            headers = {
                "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
                "X-Linked-Size": str(len(data)),
                "X-Repo-Commit": hub.revision,
                "Accept-Ranges": "bytes",
            }
            start, stop = 0, len(data)
            if asked:
                first, _, last = asked.removeprefix("bytes=").partition("-")
                start, stop = int(first), min(stop, int(last) + 1 if last else stop)
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            part, fault = data[start:stop], ""
            if self.command == "GET" and hub.faults:
                fault = hub.faults.pop(0)
            if fault == "other":
                part = bytes(len(part))
            self.reply(206 if asked else 200, part, headers, cut=fault == "cut")

        def about(self, what: str) -> None:
            if what not in (f"/tree/{hub.revision}", f"/revision/{hub.revision}"):
                return self.refuse("RevisionNotFound")
            files = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha256(data).hexdigest()[:40]}
                for name, data in hub.files.items()
            ]
            answer = files if "tree" in what else {"id": hub.repo, "sha": hub.revision, "siblings": []}
            self.reply(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

        def refuse(self, code: str) -> None:
            self.reply(404, b"", {"X-Error-Code": code, "X-Error-Message": code})

        def reply(self, status: int, body: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if cut else body)
            if cut:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
