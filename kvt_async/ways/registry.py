"""The ways of applying a budget by their names, kv.apply.via. Others than kvt's own are added with `register`."""

from kvt_async.contract.settings import Settings
from kvt_async.contract.settings_kv import ApplyKeys, add_way, remove_way
from kvt_async.records import Level
from kvt_async.ways import truncate
from kvt_async.ways.body import BodyFields
from kvt_async.ways.budget_label import BudgetLabel
from kvt_async.ways.endpoint import Endpoint
from kvt_async.ways.launch import Launch
from kvt_async.ways.way import Way

_OURS: tuple[Way, ...] = (BodyFields(), Endpoint(), Launch(), BudgetLabel())
_WAYS: dict[str, Way] = {way.name: way for way in _OURS}


def register(way: Way, keys: ApplyKeys) -> None:
    """From now on a config may have kv.apply.via: `way.name`, and `keys` in kv.apply.

    Raises ValueError where the name or a key is taken.
    """
    add_way(way.name, keys)
    _WAYS[way.name] = way


def unregister(name: str) -> None:
    """Undo `register`."""
    remove_way(name)
    del _WAYS[name]


def way_of(via: str) -> Way:
    """The way of a name that a config had or a level has."""
    return _WAYS[via]


def check_level(settings: Settings, level: Level) -> None:
    """Raises ConfigError for a level that can't be applied. Called before anything is sent."""
    way_of(level.apply_via).check(settings, level)
    if level.cuts_prompts:
        truncate.mode_of(level)
