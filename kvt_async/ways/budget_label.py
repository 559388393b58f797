"""The budget is a label: nothing of it is sent, and no server is shown to have applied it (kv.apply.via: none)."""

from kvt_async.contract.settings import Settings
from kvt_async.contract.settings_kv import Via
from kvt_async.contract.vocabulary import FULL, Mode, Unit
from kvt_async.records import Level
from kvt_async.ways.way import CanaryPlace, RunningServer


class BudgetLabel(RunningServer):
    """The server serves every level alike, or somebody else sees to it that it doesn't."""

    name = Via.NONE.value
    canary: CanaryPlace = "none"


def server_as_it_is(settings: Settings) -> Level:
    """The only level of a bench that compares no budgets: full cache, as far as kvt knows."""
    return Level(
        series=FULL,
        policy=FULL,
        budget=1.0,
        unit=Unit.FRACTION,
        mode=Mode.AWARE,
        params={},
        is_full=True,
        apply_via=Via.NONE.value,
        apply={"via": Via.NONE.value},
        evidence={},
        endpoints=(settings.engine.base_url,),
    )


def level_as_stated(series: str, budget: float, unit: Unit, repeat_idx: int = 0) -> Level:
    """A level that somebody else served: what they say of its budget is all that is known. A whole is full cache."""
    is_full = unit == Unit.FRACTION and budget == 1
    return Level(
        series=FULL if is_full else series,
        policy=FULL if is_full else series,
        budget=budget,
        unit=unit,
        mode=Mode.AWARE,
        params={},
        is_full=is_full,
        apply_via=Via.NONE.value,
        apply={"via": Via.NONE.value},
        evidence={"configured": True},
        repeat_idx=repeat_idx,
    )
