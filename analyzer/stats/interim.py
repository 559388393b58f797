"""A manifest that grows after an analysis is looked at more than once; each look pays for its own chance of error.

With sampling.strategy focus_transition the first look already spends half of alpha, the second a quarter, the k-th
alpha / 2**k: together never more than alpha, however often one looks. Every look tests all examples so far.
"""

from dataclasses import dataclass

FOCUS = "focus_transition"


@dataclass(frozen=True, slots=True)
class InterimLook:
    """Which look this is (the manifest's version), and the share of alpha that its claims may spend."""

    number: int = 1
    share: float = 1.0

    @property
    def note(self) -> list[str]:
        """A sentence for the verdict's notes; none where there is only ever one look."""
        if self.share == 1:
            return []
        return [
            f"look {self.number}: examples may be added after an analysis, so this one's claims spend "
            f"1/{round(1 / self.share)} of alpha; intervals are shown at their usual level"
        ]


ONLY_LOOK = InterimLook()


def look_of(strategy: str, version: int) -> InterimLook:
    """The look that an analysis of this manifest version is."""
    return InterimLook(version, 0.5**version) if strategy == FOCUS else ONLY_LOOK
