"""What else is planned of a bench request, where its workload knows it: the columns of `bench_requests`."""

from dataclasses import astuple, dataclass

from kvt_async.store.columns import Row


@dataclass(frozen=True, slots=True)
class RequestDetails:
    """In the order of the table's columns; None: it isn't known, or doesn't apply."""

    conversation_idx: int | None = None  # which conversation of the stage
    turn_idx: int | None = None  # 0, 1, ... of its conversation
    think_ns: int | None = None  # planned wait after the end of the turn before
    model: str | None = None  # asked of this request instead of model.name
    source_line: int | None = None  # of the trace or file, from 1
    shared_tokens: int | None = None  # of the prompt, as its source says: begun alike by an earlier one
    example_id: str | None = None  # of the manifest whose prompt this is

    def row(self, request_id: str) -> Row | None:
        """Its row; None: nothing of it is known, and then there is none."""
        values = astuple(self)
        return None if all(value is None for value in values) else ("bench_requests", (request_id, *values))


NO_DETAILS = RequestDetails()
