"""Every error a user can meet, each with its exit code; and the names of what can go wrong with one attempt.

KvtError                     what happened, where, what to do
├── CheckFailedError    1    a `check` or a quality gate failed
├── ConfigError         2    config or argument error
├── GuardError          3    refused: going on would mix, lose or mislabel something
│   ├── ContractMismatchError    the group was made under another contract
│   ├── MissingPrerequisiteError an earlier stage has not run
│   ├── DeadKnobError            the server ignores the KV budget
│   ├── ContradictedError        the server applied another budget than asked
│   ├── DriftError               the server is not the one that served this group before
│   └── StoreError               the database can't be opened, locked or written
├── FailuresStandError  4    done, but failed requests stand, or prompts were read shorter than sent
├── ServerError         5    server unreachable, never ready, or died
│   └── LocalError      3    it can't be asked, for want of something here: files, ports, memory, names
└── InterruptedByUserError 130   everything finished so far is committed
"""

from enum import StrEnum
from typing import ClassVar, Self

from kvt_async.contract.secrets import Secrets


class KvtError(Exception):
    """A problem a user can act on: printed as text, never as a traceback.

    `what` happened; `where` (file, key, line, URL); what to `do` about it. `details` are aligned lines between them.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", do: str = "", details: tuple[str, ...] = ()) -> None:
        super().__init__(what)
        self.what, self.where, self.do, self.details = what, where, do, details

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return "\n".join([head, *(f"  {line}" for line in self.details), *([self.do] if self.do else [])])

    def masked(self, secrets: Secrets) -> Self:
        """The same error without a secret in any of its words."""
        self.what, self.where, self.do = secrets.text(self.what), secrets.text(self.where), secrets.text(self.do)
        self.details, self.args = tuple(map(secrets.text, self.details)), (self.what,)
        return self


class CheckFailedError(KvtError):
    exit_code = 1


class ConfigError(KvtError):
    exit_code = 2


class GuardError(KvtError):
    exit_code = 3


class ContractMismatchError(GuardError):
    pass


class MissingPrerequisiteError(GuardError):
    pass


class DeadKnobError(GuardError):
    pass


class ContradictedError(GuardError):
    pass


class DriftError(GuardError):
    pass


class StoreError(GuardError):
    pass


class FailuresStandError(KvtError):
    exit_code = 4


class ServerError(KvtError):
    exit_code = 5


class LocalError(ServerError):
    exit_code = 3


class InterruptedByUserError(KvtError):
    exit_code = 130


class ErrorType(StrEnum):
    """Why one attempt gave no response: the closed vocabulary of `attempts.error_type`."""

    CONNECT_TIMEOUT = "ConnectTimeout"
    TTFB_TIMEOUT = "TtfbTimeout"
    IDLE_TIMEOUT = "IdleTimeout"
    TOTAL_TIMEOUT = "TotalTimeout"
    CONNECTION = "ConnectionError"  # refused, reset, unreachable, name not resolved, closed before the first byte
    TLS = "TlsError"
    HTTP = "HttpError"  # a status >= 400 that no other name covers, or a refused redirect
    RATE_LIMITED = "RateLimited"  # 429
    QUOTA = "QuotaExhausted"  # 429 with insufficient_quota: waiting does not help
    CONTEXT_OVERFLOW = "ContextOverflow"
    STREAM_ERROR = "StreamError"  # an error object inside a 200 reply
    STREAM_CUT = "StreamCut"  # the reply ended before its end
    MALFORMED = "MalformedResponse"  # not SSE, not JSON, HTML from a proxy, or a shape we don't know
    CANCELLED = "Cancelled"  # by Ctrl-C or shutdown; never counts as a try of the request


class EndState(StrEnum):
    """How one attempt ended on the wire: the closed vocabulary of `attempts.end_state`."""

    DONE = "done"  # [DONE] after a finish reason or text
    EOF_FINISHED = "eof_finished"  # no [DONE], but a finish_reason had come: accepted
    JSON = "json"  # a complete non-streamed body
    EOF_NO_DONE = "eof_no_done"  # clean end of stream with neither [DONE] nor finish_reason
    CUT = "cut"  # the connection broke mid-reply
    ERROR_EVENT = "error_event"
    MALFORMED = "malformed"
    HTTP_ERROR = "http_error"
    NOT_CONNECTED = "not_connected"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


class FailureLabel(StrEnum):
    """Why an answer is missing or unusable: `scores.failure_label`. An answer that fits several labels takes the first
    of them here; docs/GLOSSARY.md says what each means."""

    TIMEOUT = "TIMEOUT"
    ENGINE_ERROR = "ENGINE_ERROR"
    CONTEXT_OVERFLOW = "CONTEXT_OVERFLOW"
    EMPTY_OUTPUT = "EMPTY_OUTPUT"
    REFUSAL = "REFUSAL"
    FORMAT_ERROR = "FORMAT_ERROR"
    TRUNCATED = "TRUNCATED"
    EARLIER_TURN_FAILED = "EARLIER_TURN_FAILED"  # nothing was sent: with its own history a conversation ends there
    UNKNOWN_FAILURE = "UNKNOWN_FAILURE"
