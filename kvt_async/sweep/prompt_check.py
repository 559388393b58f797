"""Did the server read the prompts that a sweep sent? Asked of the stored counts, once everything is sent."""

from collections.abc import Sequence

from kvt_async.contract.formulas.prompt_counts import PromptCounts, judge, together
from kvt_async.data.tokens import APPROX
from kvt_async.engine.request.kv_body import TRUNCATE
from kvt_async.records import Run
from kvt_async.store.reader import Reader

_COUNTS = """
SELECT t.prompt_tokens, e.token_len, count(*) FROM requests r JOIN responses p ON p.request_id = r.request_id
JOIN telemetry t ON t.request_id = p.request_id AND t.attempt_idx = p.attempt_idx
JOIN manifest_entries e ON e.dataset_id = ? AND e.example_id = r.example_id
WHERE r.run_id = ? AND t.prompt_tokens IS NOT NULL GROUP BY 1, 2
"""


def prompts_read(reader: Reader, dataset_id: str, runs: Sequence[Run]) -> PromptCounts:
    """What the server's counts say of these runs' answered prompts; those that were cut before sending are left out."""
    return together(
        judge(
            ((row[0], row[1], row[2]) for row in reader.rows(_COUNTS, dataset_id, run.run_id)),
            exact=has_own_tokenizer(reader, dataset_id),
        )
        for run in runs
        if run.level.policy != TRUNCATE
    )


def has_own_tokenizer(reader: Reader, dataset_id: str) -> bool:
    """Whether prompts were counted with a tokenizer, which the server is taken to share, rather than estimated."""
    return bool(reader.value("SELECT tokenizer_name FROM datasets WHERE dataset_id = ?", dataset_id) != APPROX)
