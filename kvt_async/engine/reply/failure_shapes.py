"""What in a server's object says that the request failed, in whatever shape.

`told`: a failure under a name of its own; it is one whatever else was sent. `complaint`: an object without `choices`
and `usage` that reads like one ({code, message}, detail, errors, type: error, ...); a reply that then ends as replies
do was none.
"""

import re
from typing import Any

from kvt_async.records import Json

PLAIN_FIELDS = frozenset({"id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier"})
PLAIN_OBJECTS = (None, "chat.completion.chunk", "text_completion")  # a server may put a list here: nothing is hashed
"""An event of these fields and kinds alone, as the usage that ends a reply, tells no failure: none is looked for."""
_FAILED = re.compile(r"error|exception|fail|abort|cancel|fault|traceback|^err(?:no|msg|code|[^a-z]|$)", re.IGNORECASE)
_WELL = frozenset({"", "0", "200", "ok", "success", "succeeded", "none", "null", "false"})
_CODES = ("code", "status_code", "statusCode", "status", "http_status", "httpStatus", "http_code")
_WORDS = ("type", "object", "status", "event", "state", "result")
_SENTENCES = ("message", "Message", "msg", "detail", "details", "reason")
_ENVELOPES = ("response", "data", "output", "result", "body")


def told(holder: Json) -> Any:
    """The failure that an event, a choice, a delta or a body tells; None: none."""
    for place in (holder, part(holder, "x_groq")):
        error = place.get("error")
        if not _is_well(error):
            return error if isinstance(error, (str, dict, list)) else holder  # `true` has its words beside it
    base = part(holder, "base_resp")
    if not _is_well(base.get("status_code")):
        return base
    return holder if holder.get("object") == "error" else None


def complaint(event: Json) -> Any:
    """The event, where it reads like a failure; None: it is a keep-alive, a header, or says that all is well."""
    for name, value in event.items():
        if _FAILED.search(name) and not _is_well(value):
            return event
    if any(isinstance(word := event.get(name), str) and _FAILED.search(word) for name in _WORDS):
        return event
    codes = [event[name] for name in _CODES if isinstance(event.get(name), (int, str))]
    codes = [code for code in codes if not isinstance(code, str) or code.isdigit() or "code" in event]
    if event.get("success") is False or event.get("ok") is False or not all(map(_is_well, codes)):
        return event
    is_sentence = any(event.get(name) and isinstance(event[name], (str, list)) for name in _SENTENCES)
    if is_sentence and not codes and not event.get("usage"):
        return event
    inner = [*(part(event, name) for name in _ENVELOPES), part(event, "detail")]
    return event if any(told(held) or ("choices" not in held and complaint(held)) for held in inner if held) else None


def part(holder: Json, name: str) -> Json:
    """An object inside of an object; empty where there is none."""
    value = holder.get(name)
    return value if type(value) is dict else {}


def unwrapped(body: Any) -> Any:
    """The object of a list of one, as Google's servers send their errors."""
    return body[0] if isinstance(body, list) and len(body) == 1 and isinstance(body[0], dict) else body


def _is_well(value: Any) -> bool:
    """Whether a code, or the value of an error field, says that nothing is wrong."""
    if isinstance(value, dict):
        return all(map(_is_well, value.values()))
    if isinstance(value, str):
        return value.strip().lower() in _WELL
    return not value or (type(value) is int and 200 <= value < 300)
