"""Whether two replies say the same, as SQL: their texts, and their tool calls without the ids, which are always new."""

_CALLS = (
    "(SELECT json_group_array(json_array(json_extract(value, '$.name'), json_extract(value, '$.arguments'))) "
    "FROM json_each({0}.tool_calls_json))"
)


def same_answer(a: str, b: str) -> str:
    """An expression over two rows of `responses` by their aliases: 1, 0, or null where either is missing."""
    calls = f"({a}.tool_calls_json IS {b}.tool_calls_json OR {_CALLS.format(a)} IS {_CALLS.format(b)})"
    return f"({a}.text = {b}.text AND {calls})"
