"""What a workload is asked for and what it gives: a place, and the prompt that has it."""

from dataclasses import dataclass

from kvt_async.bench.request_details import NO_DETAILS, RequestDetails
from kvt_async.contract.formulas.prompt_text import template_version
from kvt_async.contract.settings import Settings

INPUT_STREAM, OUTPUT_STREAM = 1, 2  # streams of draws


@dataclass(frozen=True, slots=True)
class Place:
    """What decides a prompt: its number, and the stage's salt (None: the same prompt in every stage) and repeat."""

    seq: int
    salt: str | None
    repeat: int = 0
    is_warm_up: bool = False


@dataclass(frozen=True, slots=True)
class WorkloadPrompt:
    messages: list[dict[str, str]]
    input_tokens: int  # of the whole rendered prompt
    output_tokens: int  # to ask for
    group_idx: int | None = None
    context_chars: int | None = None
    context_messages: int | None = None
    details: RequestDetails = NO_DETAILS
    at_s: float | None = None  # when it was asked for, on a trace's own clock


def bare_template(settings: Settings) -> str:
    """The version of a prompt whose text is sent as it is."""
    return template_version("", settings.prompt.system, settings.prompt.endpoint)
