"""What a canary compares, and what it concludes from the answers. Pure.

A budget that applies once the prompt is read must change some answer. One that applies while the answer is generated
can change it only behind the first compression, so what ends before that says nothing; and what changes before that
was evicted from the prompt, which was not asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from kvt_async.contract.formulas.decode_budget import INTERVAL, USUAL_INTERVAL, first_compression, interval_of
from kvt_async.contract.vocabulary import CanaryVerdict, Mode, Unit, When
from kvt_async.records import Attempt, Level, Reply
from kvt_async.store.reader import Entry
from kvt_async.ways.registry import way_of

COMMON_TOKENS = 2000
ENOUGH_TOKENS = 48  # generated behind first compressions, over all answers: one of them should have come out otherwise


@dataclass(frozen=True, slots=True)
class Canary:
    verdict: CanaryVerdict
    reason: str
    asked_in: str | None = None  # the session that asked, where it was an earlier one
    counts: tuple[tuple[int, int], ...] = ()  # prompt tokens as the server read them, and as we counted them
    when: When = When.PREFILL  # the budgets that it is about apply
    is_open: bool = False  # more prompts, or a harsher budget, may still show that answers change


@dataclass(frozen=True, slots=True)
class Pair:
    """The mildest level, and the one to hold against it."""

    mild: Level
    harsh: Level

    @property
    def when(self) -> When:
        """When the budgets that it judges apply."""
        return self.harsh.when


def pairs(levels: Sequence[Level]) -> list[Pair]:
    """What canaries compare, one for each time at which levels evict: against full cache, or the mildest of them. A
    level that evicts at both times is held against the same after prefill alone, where a server can be asked that.

    Empty: at most one eviction budget, bit widths or labels, which rest on evidence alone.
    """
    tried = [level for level in levels if not level.repeat_idx and not level.is_constrained]
    evicting = [level for level in tried if level.unit != Unit.BITS and not level.cuts_prompts]
    if not evicting or way_of(evicting[0].apply_via).canary == "none":
        return []
    kinds = ([level for level in evicting if level.is_full or level.when == when] for when in When)
    return [_pair(of_kind) for of_kind in kinds if len({(level.budget, level.unit) for level in of_kind}) > 1]


def _pair(evicting: Sequence[Level]) -> Pair:
    harsh = min(
        (level for level in evicting if not level.is_full),
        key=lambda level: (_kept(level), level.mode != Mode.AGNOSTIC),
    )
    if harsh.when == When.BOTH and way_of(harsh.apply_via).takes_any_budget:
        params = {name: value for name, value in harsh.params.items() if name != INTERVAL}
        series = harsh.series.replace(f"/{When.BOTH}", "", 1).replace(
            f" {INTERVAL}={harsh.params.get(INTERVAL)}", "", 1
        )
        return Pair(replace(harsh, when=When.PREFILL, series=series, params=params), harsh)
    return Pair(next((level for level in evicting if level.is_full), max(evicting, key=_kept)), harsh)


def _kept(level: Level) -> float:
    """What a level keeps of a prompt of common length: only to tell which is the harsher."""
    return level.budget if level.unit == Unit.FRACTION else level.budget / COMMON_TOKENS


def compressed_after(level: Level, prompt_tokens: int) -> int:
    """Tokens of an answer that a level leaves as they are; 0 of one that evicts once the prompt is read."""
    if not level.decodes:
        return 0
    interval = interval_of(level.params) or USUAL_INTERVAL
    return first_compression(level.budget, level.unit, level.when, interval, prompt_tokens)


@dataclass(slots=True)
class AskedPrompt:
    """One prompt's answers: at full cache, again there, and at levels below it. `early`: at a level below it, as long
    as it must be full cache's."""

    entry: Entry
    full: Attempt
    again: Attempt | None = None
    below: list[tuple[Level, Attempt]] = field(default_factory=list)
    early: Attempt | None = None

    @property
    def attempts(self) -> list[Attempt]:
        """All of them, in the order of asking."""
        again = [] if self.again is None else [self.again]
        return [self.full, *again, *(attempt for _, attempt in self.below)]


@dataclass(frozen=True, slots=True)
class _Beside:
    """An answer at a level below full cache, and full cache's."""

    level: Level
    full: str
    reply: Reply
    behind: int | None  # tokens generated behind the first compression; None: nobody counted them

    @property
    def changed(self) -> bool:
        return self.reply.answer != self.full

    @property
    def compressions(self) -> float | None:
        """As the server says; None: it says nothing."""
        number = (self.reply.kv_evidence or {}).get("n_compressions")
        return float(number) if number is not None else None

    @property
    def when(self) -> str | None:
        """When the server says that it evicts."""
        when = (self.reply.kv_evidence or {}).get("when")
        return when if isinstance(when, str) else None

    @property
    def is_silent(self) -> bool:
        """Whether nothing stands where the server should say how often it compressed."""
        evidence = self.reply.kv_evidence or {}
        return self.compressions is None and "missing" in evidence


def says_when(prompts: Sequence[AskedPrompt]) -> bool:
    """Whether the server says of every answer below full cache how often it compressed while generating it."""
    replies = [attempt.reply for prompt in prompts for _, attempt in prompt.below if attempt.reply is not None]
    return all((reply.kv_evidence or {}).get("n_compressions") is not None for reply in replies)


def judge(levels: Pair, prompts: Sequence[AskedPrompt]) -> Canary:
    """The verdict on the prompts whose answers came: those that failed tell nothing."""
    mild = levels.mild.label
    answered = [
        (prompt, prompt.full.reply.answer, prompt.again.reply.answer)
        for prompt in prompts
        if prompt.full.reply is not None and prompt.again is not None and prompt.again.reply is not None
    ]
    unlike = sum(full != again for _, full, again in answered)
    if unlike:
        reason = f"{mild} twice gave different answers to {unlike} of {len(answered)} prompts"
        return Canary(CanaryVerdict.INCONCLUSIVE, reason)
    below = [
        _Beside(level, full, attempt.reply, _behind(level, prompt.entry, attempt))
        for prompt, full, _ in answered
        for level, attempt in prompt.below
        if attempt.reply is not None
    ]
    if not below:
        failed = next((attempt for prompt in prompts for attempt in prompt.attempts if attempt.reply is None), None)
        fault = (failed.error_message or failed.error_type) if failed else "nothing was asked"
        return Canary(CanaryVerdict.INCONCLUSIVE, f"a probe failed: {fault}")
    if levels.when != When.PREFILL and (canary := _too_early(levels, prompts, below)) is not None:
        return canary
    names = list(dict.fromkeys(beside.level.label for beside in below))
    for name in names:
        changed = [beside.changed for beside in below if beside.level.label == name]
        if any(changed):
            reason = f"{sum(changed)} of {len(changed)} answers changed between {mild} and {name}"
            return Canary(CanaryVerdict.ALIVE, reason)
    kept = [beside.reply.kv_effective for beside in below if beside.reply.kv_effective is not None]
    echo = f", although the server reports {min(kept):g} kept" if kept else ""
    reason = f"{' and '.join([mild, *names])} gave the same answer to all {len(answered)} prompts{echo}"
    if levels.when == When.PREFILL:
        return Canary(CanaryVerdict.DEAD, reason, is_open=True)
    return _unchanged_while_generating(below, reason)


def _behind(level: Level, entry: Entry, attempt: Attempt) -> int | None:
    tokens = attempt.marks.completion_tokens
    if tokens is None:
        return None
    return max(0, tokens - 1 - compressed_after(level, attempt.marks.prompt_tokens or entry.token_len))


def _too_early(levels: Pair, prompts: Sequence[AskedPrompt], below: Sequence[_Beside]) -> Canary | None:
    """The verdict where the server evicts at another time than asked: by its own words, or because answers change that
    no compression while generating can have reached. None: nothing of the kind is seen."""
    name, when = levels.harsh.label, levels.when
    other = next((beside.when for beside in below if beside.when not in (None, when)), None)
    if other is not None:
        return Canary(CanaryVerdict.DEAD, f"asked for {name}, the server says that it evicts at {other}")
    if when == When.BOTH:
        return None
    early = [
        (prompt.full.reply.text, prompt.early.reply.text.rstrip("\ufffd"))  # a character may be cut in two
        for prompt in prompts
        if prompt.full.reply is not None and prompt.early is not None and prompt.early.reply is not None
    ]
    unlike = sum(not whole.startswith(part) for whole, part in early)
    if unlike:
        reason = (
            f"at {name} {unlike} of {len(early)} answers are others than at {levels.mild.label} before anything can "
            "have been evicted while they were generated: the server evicts from the prompt, as if `when` were prefill"
        )
        return Canary(CanaryVerdict.DEAD, reason)
    changed = [beside for beside in below if beside.changed]
    if changed and all(beside.compressions == 0 for beside in changed):
        reason = (
            f"{len(changed)} of {len(below)} answers changed between {levels.mild.label} and {name}, and the server "
            "says that it compressed nothing while it generated them"
        )
        return Canary(CanaryVerdict.DEAD, reason, is_open=True)
    return None


def _unchanged_while_generating(below: Sequence[_Beside], reason: str) -> Canary:
    """The verdict where no answer changed. It takes answers that go on for long enough behind a compression."""
    if all(beside.is_silent for beside in below):
        missing = (below[0].reply.kv_evidence or {})["missing"]
        reason = f"{reason}, and the server doesn't say how often it compressed ({missing})"
        return Canary(CanaryVerdict.DEAD, reason, is_open=True)
    behind = sum(beside.behind or 0 for beside in below)
    if behind >= ENOUGH_TOKENS:
        reason = f"{reason}, {behind} tokens of them generated behind the first compression"
        return Canary(CanaryVerdict.DEAD, reason, is_open=True)
    return Canary(
        CanaryVerdict.INCONCLUSIVE,
        f"{reason}, but only {behind} tokens of them could be generated behind a first compression: the answers are "
        "too short to show whether the cache is compressed while they are generated",
        is_open=True,
    )
