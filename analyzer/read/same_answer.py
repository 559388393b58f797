"""Tool calls without their ids, which are new in every reply; and whether two replies say the same. As SQL."""


def calls_of(alias: str) -> str:
    """An expression: the tool calls of a row of `responses` as JSON, without ids; null where it made none."""
    column = f"{alias}.tool_calls_json"
    calls = f"(SELECT json_group_array(json_remove(value, '$.id')) FROM json_each({column}) WHERE type = 'object')"
    return f"CASE WHEN json_valid({column}) THEN {calls} END"


def same_answer(a: str, b: str) -> str:
    """An expression over two rows of `responses` by their aliases: 1 where their texts and tool calls are the same, 0
    where they aren't, null where either row is missing."""
    calls = f"({a}.tool_calls_json IS {b}.tool_calls_json OR {calls_of(a)} IS {calls_of(b)})"
    return f"({a}.text = {b}.text AND {calls})"
