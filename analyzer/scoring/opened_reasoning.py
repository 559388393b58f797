"""Whether the chat template opened reasoning, so that an answer begins inside of it and may close what it never opened.

Known from the chat template where `kvt prepare` rendered it (`datasets.prompt_json`: reasoning_tag, and the
chat_template_kwargs it was rendered with). Where that isn't stored, or the group sends other arguments, full cache's
own answers tell: most of those that were not cut close what they never opened. They have the last word: where the
template opens reasoning and not one of many whole answers closes it, the server has taken it away.
"""

import json
import sqlite3

from analyzer.read.group_connection import parts
from kvt_async.contract.formulas.finish_reasons import is_cut_off
from kvt_async.contract.formulas.reasoning import closes_what_it_never_opened

_LOOKED_AT = 200  # answers of full cache
_ENOUGH = 10  # whole answers, none of which closes a mark: the server takes reasoning away, or there is none


def opens_reasoning(conn: sqlite3.Connection, run_id: str, full_run_id: str | None) -> bool:
    """Whether the template opened reasoning in a run's requests. False where nothing tells: then only marks inside an
    answer count."""
    prompt, contract = conn.execute(
        "SELECT d.prompt_json, ifnull(t.contract_json, '{}') FROM runs u "
        "JOIN datasets d ON d.dataset_id = u.dataset_id "
        "LEFT JOIN task_contracts t ON t.exp_group_id = u.exp_group_id AND t.generation = u.generation "
        "AND t.dataset_id = u.dataset_id WHERE u.run_id = ?",
        (run_id,),
    ).fetchone()
    rendered = json.loads(prompt)
    sent = json.loads(contract).get("decoding.extra_body") or {}
    same_arguments = (rendered.get("chat_template_kwargs") or {}) == (sent.get("chat_template_kwargs") or {})
    sql = """SELECT r.request_id, p.text, p.finish_reason FROM requests r
        JOIN responses p ON p.request_id = r.request_id WHERE r.run_id = ? ORDER BY r.request_id LIMIT ?"""
    replies = sorted(row for part in parts(conn) for row in part.execute(sql, (full_run_id, _LOOKED_AT)))[:_LOOKED_AT]
    closing = [closes_what_it_never_opened(text) for _, text, reason in replies if not is_cut_off(reason)]
    if rendered.get("reasoning_tag") and same_arguments:
        return any(closing) or len(closing) < _ENOUGH
    return 2 * sum(closing) > len(closing)
