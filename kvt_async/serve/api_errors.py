"""Errors as an OpenAI-compatible server says them: status, type, code and the parameter that is wrong."""

import difflib
from collections.abc import Iterable


class ApiError(Exception):
    """Answered as {"error": {message, type, param, code}} with `status`."""

    def __init__(
        self, message: str, *, status: int = 400, kind: str = "invalid_request_error", code: str | None = None,
        param: str | None = None, headers: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.kind, self.code, self.param, self.headers = status, kind, code, param, headers or {}

    def body(self) -> dict[str, object]:
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


def one_of(value: object, known: Iterable[str]) -> str:
    """'; did you mean X? Known: A, B.': the end of a message about a name that nobody knows."""
    names = sorted(known)
    near = difflib.get_close_matches(str(value), names, n=1, cutoff=0.6)
    return (f"; did you mean {near[0]!r}?" if near else ".") + f" Known: {', '.join(names)}."
