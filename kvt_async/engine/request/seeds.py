"""The seed of each request of a level: see contract/formulas/sample_seed.py."""

from dataclasses import dataclass

from kvt_async.contract.formulas.sample_seed import base_seed, has_other_seeds, seed_of
from kvt_async.contract.settings import Decoding, Settings
from kvt_async.records import Level


@dataclass(frozen=True, slots=True)
class Seeds:
    """Makes the seeds of a level's requests; `base` None: none is sent."""

    base: int | None
    draw: int

    @classmethod
    def of_level(cls, decoding: Decoding, level: Level) -> "Seeds":
        draw = level.repeat_idx if has_other_seeds(level.repeat_idx, decoding) else 0
        return cls(base_seed(decoding), draw)

    def __call__(self, example_id: str, sample_idx: int, turn_idx: int = 0) -> int | None:
        return None if self.base is None else seed_of(self.base, example_id, sample_idx, turn_idx, draw=self.draw)


def with_seed(settings: Settings, seed: object) -> Settings:
    """The same settings with this seed to send; None: they stay as they are."""
    if seed is None:
        return settings
    return settings.model_copy(update={"decoding": settings.decoding.model_copy(update={"seed": seed})})
