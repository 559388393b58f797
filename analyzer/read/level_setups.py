"""In what the servers of levels differ beside the budget. A loss may be theirs: prefix caching, block size, attention
backend, layers that are skipped, scales that nobody calibrated.

Settings are those that a server shows: its cache config on /metrics, /server_info, /props, and what its launch printed.
Which program serves is another question (server_identity.between): it takes the evidence back, while these only stand
beside the verdict.
"""

import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from kvt_async.contract.formulas.server_identity import PROGRAM_FIELDS, known, lasting
from kvt_async.contract.labels import level_label
from kvt_async.contract.vocabulary import FULL

MOST = 8  # sentences
_OF_THE_BUDGET = re.compile(r"(^|_)(cache|kv)_?dtype$|^kv_cache_type|^type_[kv]$|^num_.*_blocks|^model_path$|^engine$")
_SCALES = "kv_scales"  # what the launch printed of them; full cache has none


def setup_differences(conn: sqlite3.Connection, group: str, generation: int) -> tuple[str, ...]:
    """A sentence for each setting that differs between levels that have a server each, most telling first."""
    return differences(_settings_of_levels(conn, group, generation))


def differences(levels: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    """Of settings by level, full cache's first where it is there. What a server doesn't show is no difference."""
    names = list(dict.fromkeys(name for settings in levels.values() for name in settings if name != _SCALES))
    lines = []
    for name in names:
        by_value: dict[str, list[str]] = {}
        for level, settings in levels.items():
            if name in settings:
                by_value.setdefault(settings[name], []).append(level)
        if len(by_value) > 1:
            lines.append(f"{name} is {', '.join(f'{value} at {_listed(at)}' for value, at in by_value.items())}")
    for scales in dict.fromkeys(settings[_SCALES] for settings in levels.values() if _SCALES in settings):
        at = [level for level, settings in levels.items() if settings.get(_SCALES) == scales]
        lines.append(f"{scales} at {_listed(at)}")
    lines.sort(key=lambda line: "prefix" not in line and "radix" not in line)
    more = len(lines) - MOST
    return (*lines[:MOST], f"and {more} settings more (server_snapshots)") if more > 0 else tuple(lines)


def _settings_of_levels(conn: sqlite3.Connection, group: str, generation: int) -> dict[str, dict[str, str]]:
    runs = conn.execute(
        "SELECT run_id, base_url, series, kv_budget, kv_unit, is_full FROM runs WHERE exp_group_id = ? AND "
        "generation = ? AND repeat_idx = 0 ORDER BY is_full DESC, level_idx",
        (group, generation),
    ).fetchall()
    rows = conn.execute(
        "SELECT ifnull(n.run_id, n.endpoint), n.identity_json FROM server_snapshots n JOIN sessions s "
        "USING (session_id) WHERE s.exp_group_id = ? AND s.generation = ? ORDER BY n.taken_at, n.n",
        (group, generation),
    )
    taken: dict[str, list[Mapping[str, Any]]] = {}
    for key, text in rows:
        taken.setdefault(key, []).append(json.loads(text))
    levels: dict[str, dict[str, str]] = {}
    for run_id, base_url, series, budget, unit, is_full in runs:
        label = level_label(series, budget, unit, is_full=bool(is_full))
        snapshots = taken.get(run_id) or taken.get(base_url)
        if snapshots is not None:
            levels.setdefault("full cache" if label == FULL else label, _settings(known(snapshots)))
    return levels


def _settings(identity: Mapping[str, Any]) -> dict[str, str]:
    """What one server shows of how it is set up, by name; earlier sources first."""
    settings: dict[str, str] = {}
    for part in ("launch", "cache_config", "model"):
        shown = identity.get(part)
        for name, value in lasting(shown).items() if isinstance(shown, dict) else ():
            if name not in PROGRAM_FIELDS and not _OF_THE_BUDGET.search(name) and value is not None:
                settings.setdefault(name, str(value)[:60])
    return settings


def _listed(levels: Sequence[str]) -> str:
    shown = list(levels[:4])
    return ", ".join(shown) + (f" and {len(levels) - 4} more" if len(levels) > 4 else "")
