"""Which plugin's file a database says a metric came from: for whoever has the database and not the file."""

import sqlite3
from typing import Any

import yaml

from kvt_async.contract.command_line.run_folder import MOST_YAML

_SCORED = (
    "SELECT DISTINCT json_extract(detail_json, '$.plugin.path'), json_extract(detail_json, '$.plugin.sha256'), "
    "json_extract(detail_json, '$.plugin.package') FROM analysis_state "
    "WHERE stage = 'score' AND json_extract(detail_json, '$.metric') = ? "
    "AND json_extract(detail_json, '$.plugin.path') IS NOT NULL ORDER BY 1, 2"
)
_NEWEST = "SELECT config_yaml, max(started_at) FROM sessions GROUP BY exp_group_id ORDER BY exp_group_id"
_MOST, _LONGEST = 20, 300  # files that are named, characters of a name


def scored_from(facts: sqlite3.Connection, metric: str) -> list[str]:
    """Files, with their SHA-256, that gave this metric when answers were scored by it."""
    return [_says(*row) for row in facts.execute(_SCORED, (metric,)).fetchmany(_MOST)]


def of_sessions(facts: sqlite3.Connection) -> list[str]:
    """The files of every plugin that the newest session of a group had, with their SHA-256."""
    files = []
    for text, _ in facts.execute(_NEWEST).fetchmany(_MOST):
        files += [_says(entry.get("path"), entry.get("sha256"), entry.get("package")) for entry in _plugins(text)]
    return list(dict.fromkeys(files))[:_MOST]


def _plugins(text: str) -> list[dict[str, Any]]:
    try:
        loaded = yaml.safe_load(text) if len(text) <= MOST_YAML else None
    except (yaml.YAMLError, RecursionError, ValueError):  # the database may be anybody's
        return []
    entries = loaded.get("plugins") if isinstance(loaded, dict) else None
    return [entry for entry in entries[:_MOST] if isinstance(entry, dict)] if isinstance(entries, list) else []


def _says(path: object, sha256: object, package: object) -> str:
    """Texts alone: what else stands there may unfold to gigabytes."""
    name, digest, of = (value[:_LONGEST] if isinstance(value, str) else "" for value in (path, sha256, package))
    return f"{name}{f' of {of}' if of else ''}, SHA-256 {digest}"
