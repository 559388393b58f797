"""What a canary asks: prompts of the manifest from the longest to the shortest, and lookups of its own.

Eviction hurts some prompts and not others: long ones lose more tokens, short ones lose the only ones that matter, and
an answer that doesn't need the context can't change at all. The lookups always need it: several codes, at the start,
in the middle and at the end of a plain text, each to be told.
"""

from collections.abc import Sequence

from kvt_async.contract.formulas.prompt_text import DEFAULT_TEMPLATE, messages_sha256, render
from kvt_async.store.reader import Entry, Reader

FIRST, MOST = 3, 12  # prompts of the manifest: asked at once; asked in all, where those show nothing
RANKED = 10_000  # prompts that are put in order of length; of more, every so many
DEPTHS = (0.05, 0.5, 0.95)  # where in its text a lookup's codes begin
_PLACES = ("harbour", "library", "bakery", "station", "garden", "theatre", "market", "museum")
_PLAIN = "The road goes on along the river, past low houses and fields, and nothing of note is seen there. "
_SENTENCES = 24
_CHARS_A_TOKEN = 4


def choose(reader: Reader, dataset_id: str, n: int = MOST) -> list[Entry]:
    """Up to `n` prompts spread evenly over the lengths, the same ones every time.

    The longest, the shortest and a middle one come first, then those between.
    """
    step = max(1, reader.n_entries(dataset_id) // RANKED)
    ranked = [
        row[0]
        for row in reader.rows(
            "SELECT seq FROM manifest_entries WHERE dataset_id = ? AND seq % ? = 0 ORDER BY token_len DESC, example_id",
            dataset_id,
            step,
        )
    ]
    ends = [_at_end(reader, dataset_id, order) for order in ("DESC", "ASC")]
    ranks = [(len(ranked) - 1) // 2, *(round(i * (len(ranked) - 1) / max(1, n - 1)) for i in range(n))]
    seqs = list(dict.fromkeys([*ends, *(ranked[rank] for rank in ranks)]))[:n]
    entries = reader.entries(dataset_id, seqs)
    return [entries[seq] for seq in seqs]


def shortest(reader: Reader, dataset_id: str) -> Entry:
    """The shortest prompt of the manifest."""
    seq = _at_end(reader, dataset_id, "ASC")
    return reader.entries(dataset_id, [seq])[seq]


def _at_end(reader: Reader, dataset_id: str, order: str) -> int:
    sql = f"SELECT seq FROM manifest_entries WHERE dataset_id = ? ORDER BY token_len {order}, example_id LIMIT 1"
    return int(reader.value(sql, dataset_id))


def lookups() -> list[Entry]:
    """Prompts of the canary's own, one for each depth. Their lengths are estimates, their seq is below 0."""
    return [_lookup(n, depth) for n, depth in enumerate(DEPTHS, start=1)]


def _lookup(n: int, depth: float) -> Entry:
    places = _PLACES[n - 1 :: 3]
    codes = [f"The code of the {place} is {7013 + 1409 * n + 683 * i}. " for i, place in enumerate(places)]
    at = round(depth * _SENTENCES)
    sentences = [_PLAIN] * _SENTENCES
    sentences[at:at] = codes
    context = "".join(sentences).strip()
    question = f"What are the codes of the {_listed(places)}? Answer with the codes alone."
    messages, _ = render(DEFAULT_TEMPLATE, context, question, (), None)
    tokens = len(messages[0]["content"]) // _CHARS_A_TOKEN
    return Entry(
        -n, tokens, len(context) // _CHARS_A_TOKEN, messages_sha256(messages), f"canary lookup {n}", question, context
    )


def recitals() -> list[Entry]:
    """Prompts whose answers are long: the texts of the lookups, to be copied word by word."""
    question = "Copy the text above word by word, from its first sentence to its last one."
    entries = []
    for entry in lookups():
        messages, _ = render(DEFAULT_TEMPLATE, entry.context, question, (), None)
        tokens, sha256 = len(messages[0]["content"]) // _CHARS_A_TOKEN, messages_sha256(messages)
        name = f"canary copy {-entry.seq}"
        entries.append(entry._replace(token_len=tokens, prompt_sha256=sha256, example_id=name, question=question))
    return entries


def _listed(places: Sequence[str]) -> str:
    return f"{', '.join(places[:-1])} and {places[-1]}"
