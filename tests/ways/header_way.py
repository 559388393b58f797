"""kv.apply.via: header, as somebody would add it who needs it: this file is all that there is of it.

kv:
  apply: {via: header, header: {X-KV-Budget: "{budget}", X-KV-Policy: "{policy}"}}
"""

from collections.abc import Iterator
from contextlib import contextmanager

from kvt_async.contract.checked_text import valid_headers
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.settings import Settings
from kvt_async.contract.settings_kv import Apply, ApplyKeys
from kvt_async.engine.request.kv_fields import PromptSize, check_template, kv_headers
from kvt_async.records import Json, Level
from kvt_async.ways.registry import register, unregister
from kvt_async.ways.way import RunningServer


class Header(RunningServer):
    """The budget stands in headers of each request, whose templates are kv.apply.header."""

    name = "header"
    takes_any_budget = True
    names_mode = True

    def check(self, settings: Settings, level: Level) -> None:
        check_template(level.apply["header"], "kv.apply.header", level)
        try:
            valid_headers(dict(kv_headers(level, PromptSize(1, 1, 1))))
        except (ValueError, AttributeError, TypeError) as error:
            raise ConfigError(f"no headers: {error}", where="kv.apply.header") from None

    def identity(self, apply: Apply, *, serves_full: bool) -> Json:
        return {"header": (apply.model_extra or {})["header"]}


@contextmanager
def header_way() -> Iterator[None]:
    """The way is known while the block runs."""
    register(Header(), ApplyKeys(needed=("header",)))
    try:
        yield
    finally:
        unregister(Header.name)
