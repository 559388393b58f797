"""The parts of a score of tool calls, so that what broke can be told: JSON, schema, names, arguments."""

from dataclasses import dataclass

from kvt_async.contract.vocabulary import CALL_FAULTS, Measure


@dataclass(frozen=True)
class CallScore:
    """The parts of one answer's score. A later part is not asked where an earlier one is False."""

    json_valid: bool  # all calls can be read: their arguments are JSON objects
    schema_valid: bool  # and fit the schemas of their tools
    names: bool  # the functions are those of one alternative, as often as there
    arguments: bool  # and so are their arguments

    @property
    def is_right(self) -> bool:
        return self.fault is None

    @property
    def fault(self) -> Measure | None:
        """The first part that is wrong; None: none is."""
        parts = self.json_valid, self.schema_valid, self.names, self.arguments
        return next((fault for fault, is_right in zip(CALL_FAULTS, parts, strict=True) if not is_right), None)
