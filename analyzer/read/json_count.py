"""Counts out of replies. They are the server's: anything may stand where a count belongs."""

_MOST = "1e15"  # more tokens, or bytes, than anybody has


def json_count(column: str, path: str) -> str:
    """SQL for the number at a path of a JSON column; null where none from 0 to 1e15 stands there."""
    value = f"json_extract({column}, '{path}')"
    is_count = f"json_type({column}, '{path}') IN ('integer', 'real') AND {value} BETWEEN 0 AND {_MOST}"
    return f"CASE WHEN {is_count} THEN {value} END"
