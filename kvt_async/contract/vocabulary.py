"""The closed vocabularies of the database and the config: every word that one module writes and another compares.

Each member is the stored text, byte for byte; text read back from a database compares equal to it. Why an attempt
failed and how it ended stand in errors.py; how a budget reaches the server, in settings_kv.py.
"""

from enum import StrEnum
from typing import Final

FULL: Final = "full"  # series and policy of full cache, the baseline of every series
CONSTRAINED: Final = "constrained full"  # series of full cache under the other restrictions of the levels
NODE_REPEATS: Final = 1000  # a repeat_idx above: full cache on the server of shard repeat_idx - NODE_REPEATS, at a few
# entries that all shards of levels answer, so that their servers can be compared
CUT_OFF: Final = "CUT_OFF"  # in budget_stats.drop_json, beside labels: answers cut off before anything right
ONE_TASK_SOURCES: Final = (  # those whose one task has the source's name: dataset.task may be left out
    "gsm8k",
    "math500",
    "aime24",
    "aime25",
    "gpqa_diamond",
    "ifeval",
    "longbench_v2",
)
OUR_SOURCES: Final = (  # dataset.name, plugins' aside
    "longbench",
    "longbench_e",
    "ruler",
    "kvtext",
    "jsonl",
    "bfcl",
    "mrcr",
    "scbench",
    *ONE_TASK_SOURCES,
)


class Unit(StrEnum):
    """What a budget counts: `kv.unit`, `runs.kv_unit`."""

    FRACTION = "fraction"  # of the compressible prompt kept
    TOKENS = "tokens"  # kept
    BITS = "bits"  # per element


class Spelling(StrEnum):
    """How a budget can be written, in a config or by a server: formulas/kv_budget.py turns each into each."""

    FRACTION = "fraction"
    TOKENS = "tokens"
    BITS = "bits"
    COMPRESSION_RATIO = "compression_ratio"  # 1 - fraction
    DIVISOR = "divisor"  # 1 / fraction
    BYTES = "bytes"  # of the tokens kept


class SeedVerdict(StrEnum):
    """What is known of a server's seeds: `transition_summary.zone_json`, seeds. Where texts part is worth showing where
    they are kept or nothing differs."""

    KEPT = "kept"  # proven that equal seeds take away more than a fifth of the differences
    IGNORED = "ignored"  # proven that they take away less
    NOTHING_DIFFERS = "nothing_differs"  # nor do other seeds make a difference: sampling is off, or the answer is sure
    CANNOT_TELL = "cannot_tell"


class Measure(StrEnum):
    """What is told of answers beside their scores: `outcome_changes.measure`."""

    TOKENS = "completion_tokens"  # as the server counts them, reasoning included
    CUT_OFF = "cut_off"  # ended by its length: max_tokens, or the model's own limit
    EMPTY = "empty"  # nothing was answered: the label EMPTY_OUTPUT
    REPETITION = "repetition"  # the flag repetition_loop
    FORMAT_ERROR = "format_error"  # the metric cannot read it: the label FORMAT_ERROR
    IDENTICAL = "identical"  # the same text as at full cache
    DIVERGENCE = "first_divergence"  # the character at which another text parts from full cache's
    TTFT = "ttft"  # seconds to the first output, as attempt_metrics has them
    TPOT = "tpot"  # seconds between its tokens
    LATENCY = "latency"  # seconds of the whole request
    CALL_UNREADABLE = "call_unreadable"  # a call that can't be read: of tool calls this and the next three are the
    CALL_SCHEMA = "call_schema"  # arguments that don't fit the tool's schema; first thing that is wrong of an answer,
    CALL_NAME = "call_name"  # other functions than expected, or none; and the flag of that name
    CALL_ARGUMENTS = "call_arguments"  # the right functions with other arguments


TIMES: Final = (Measure.TTFT, Measure.TPOT, Measure.LATENCY)
CALL_FAULTS: Final = (Measure.CALL_UNREADABLE, Measure.CALL_SCHEMA, Measure.CALL_NAME, Measure.CALL_ARGUMENTS)


PART: Final = "part:"  # before the name of a part of the score, in `outcome_changes.measure`: part:punctuation:no_comma
SUM: Final = "all of "  # begins the name of a part that sums up others


class Mode(StrEnum):
    """What the policy sees before it evicts: `kv.mode`, `runs.kv_mode`."""

    AWARE = "question_aware"  # the whole prompt, question included
    AGNOSTIC = "question_agnostic"  # the context alone


class When(StrEnum):
    """When the policy evicts: `kv.when`, `runs.kv_when`."""

    PREFILL = "prefill"  # once the prompt is read
    DECODE = "decode"  # while the answer is generated; the prompt alone is never compressed
    BOTH = "both"


class CanaryVerdict(StrEnum):
    """Does a destructive budget change the answers? `probes.verdict` on a canary's last row."""

    ALIVE = "alive"  # it does
    DEAD = "dead"  # it changes nothing
    INCONCLUSIVE = "inconclusive"  # full cache did not repeat itself, so it can't be told


class ClientVerdict(StrEnum):
    """Whose slowness was measured: `client_health.verdict`, `bench_points.client`."""

    CLEAN = "client-clean"  # the server's
    BOUND = "CLIENT-BOUND"  # the client's own
    UNKNOWN = "unknown"  # nothing was measured


class EvidenceStatus(StrEnum):
    """Was the budget applied? `run_evidence.status`, `transition_summary.evidence`."""

    VERIFIED = "verified"
    CHANGED = "verified as changed"  # the cache is another one than at full cache; how wide, no name says
    UNVERIFIED = "unverified"
    CONTRADICTED = "contradicted"
    FULL = "full"  # full cache: nothing to prove


class SeriesVerdict(StrEnum):
    """The verdict on one series in one bin: `transition_summary.verdict`."""

    TRANSITION = "transition"
    NO_TRANSITION = "no_transition_in_range"
    CANNOT_TELL = "cannot_tell"
    NOTHING_TO_LOSE = "nothing_to_lose"
    NO_BASELINE = "no_baseline"
    UNVERIFIED = "unverified"  # prompts were read shorter than sent

    @property
    def judges(self) -> bool:
        """Whether this is a verdict about budgets, rather than the reason why there is none."""
        return self in (SeriesVerdict.TRANSITION, SeriesVerdict.NO_TRANSITION, SeriesVerdict.CANNOT_TELL)


class Role(StrEnum):
    """What a verdict may be used for: `transition_summary.role`."""

    CONFIRMATORY = "confirmatory"  # the first series, all bins together
    HOLM = "holm"  # the other series, all bins together: adjusted for their number
    EXPLORATORY = "exploratory"  # one bin


class EndReason(StrEnum):
    """Why a session or a bench's window ended: `session_ends.reason`, `bench_window_ends.reason`."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"  # Ctrl-C
    SERVER = "server"  # it is gone, or never got ready
    FAILURES = "failures"  # all was sent, and failed requests stand
    REFUSED = "refused"  # by us or by the server: going on would help nobody
    LOCAL = "local"  # this machine lacks something: files, ports, memory, names
    BUG = "bug"
    STOP_RULE = "stop_rule"  # a window alone: the requests that it left unsent aren't owed


class CacheState(StrEnum):
    """Where prompts came from: `responses.cache_state` (NULL for UNKNOWN), `bench_points.cache` and the report's cost
    tables. Bounds: cache_state.py."""

    COLD = "cold"  # prefilled
    WARM = "warm"  # out of the prefix cache
    MIXED = "mixed"
    UNKNOWN = "unknown"  # the server says nothing
