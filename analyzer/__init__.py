"""kvt's analyzer: reads facts, writes the verdict. No asyncio, no network. Functions are loaded on their first use."""

from typing import TYPE_CHECKING, Any

__all__ = [
    "BenchResults",
    "GroupResults",
    "GroupSuite",
    "Results",
    "SuiteResults",
    "open_bench",
    "open_group",
    "open_suite",
    "paired_losses",
    "safe_budget",
]

if TYPE_CHECKING:
    from analyzer.api import (
        BenchResults,
        GroupResults,
        GroupSuite,
        Results,
        SuiteResults,
        open_bench,
        open_group,
        open_suite,
        paired_losses,
        safe_budget,
    )
else:

    def __getattr__(name: str) -> Any:
        """The public names, loaded on use: whoever imports one module of the analyzer pays for that one alone."""
        if name in __all__:
            from analyzer import api

            return getattr(api, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
