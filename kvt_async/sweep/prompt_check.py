"""Did the server read the prompts that a sweep sent? Asked of the stored counts, once everything is sent."""

from collections.abc import Sequence

from kvt_async.contract.formulas.prompt_counts import PromptCounts, judge, together
from kvt_async.contract.labels import request_ids_of
from kvt_async.data.tokens import APPROX
from kvt_async.records import Run
from kvt_async.store.reader import Reader

_COUNTS = """
SELECT t.prompt_tokens, e.token_len, count(*) FROM telemetry t
JOIN manifest_entries e ON e.dataset_id = ? AND e.seq = CAST(substr(t.request_id, ?) AS INTEGER)
WHERE t.request_id > ? AND t.request_id < ? AND t.prompt_tokens IS NOT NULL
AND (? OR t.request_id NOT LIKE '%:%.%.%') GROUP BY 1, 2
"""  # only an attempt that was answered has a count; its request_id holds the run and the entry, in the index's order


def prompts_read(reader: Reader, runs: Sequence[Run], *, history: str = "golden") -> PromptCounts:
    """What the server's counts say of these runs' answered prompts; those that were cut before sending are left out,
    and so are later turns with the model's own `history`, which have another length than their entries."""
    return together(
        judge(
            (
                (row[0], row[1], row[2])
                for row in reader.rows(
                    _COUNTS,
                    run.dataset_id,
                    len(run.run_id) + 2,
                    *request_ids_of(run.run_id),
                    history == "golden",
                )
            ),
            exact=has_own_tokenizer(reader, run.dataset_id),
        )
        for run in runs
        if not run.level.cuts_prompts
    )


def has_own_tokenizer(reader: Reader, dataset_id: str) -> bool:
    """Whether prompts were counted with a tokenizer, which the server is taken to share, rather than estimated."""
    dataset = reader.dataset(dataset_id)
    return dataset is None or dataset["tokenizer_name"] != APPROX
