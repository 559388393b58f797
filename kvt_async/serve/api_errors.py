"""Errors as an OpenAI-compatible server says them: status, type, code and the parameter that is wrong."""

import difflib
import reprlib
from collections.abc import Iterable

MOST_SHOWN = 2000  # characters of a message: a client's mistake is not sent back to it whole
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100


class ApiError(Exception):
    """Answered as {"error": {message, type, param, code}} with `status`."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.code, self.param, self.headers = status, kind, code, param, headers or {}

    def body(self) -> dict[str, object]:
        message = str(self) if len(str(self)) <= MOST_SHOWN else str(self)[:MOST_SHOWN] + "..."
        param = None if self.param is None else self.param[:100]
        return {"error": {"message": message, "type": self.kind, "param": param, "code": self.code}}


def shown(value: object) -> str:
    """A value of a request as an error names it: as Python writes it, cut where it is long or deep."""
    return _SHORT.repr(value)


def one_of(value: object, known: Iterable[str]) -> str:
    """'; did you mean X? Known: A, B.': the end of a message about a name that nobody knows."""
    names = sorted(known)
    near = difflib.get_close_matches(str(value)[:100], names, n=1, cutoff=0.6)
    return (f"; did you mean {near[0]!r}?" if near else ".") + f" Known: {', '.join(names)}."
