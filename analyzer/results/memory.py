"""GiB of KV cache that a budget saves at the user's own load, from config.json or from what the server showed.

`analysis.serving` gives prompt length and batch; `model.config` gives the bytes of a token. Whether a server really
frees them is another question, and the sentences say what is known about it.
"""

from dataclasses import dataclass

from analyzer.read.runs import Run
from analyzer.results.confidence import nothing_safe
from analyzer.results.number_format import amount, cache_kept, change, count, gib, plural
from analyzer.results.results import Results
from analyzer.store.tables import Evidence
from kvt_async.contract.cost_settings import Serving
from kvt_async.contract.formulas.kv_budget import FULL_BITS
from kvt_async.contract.formulas.kv_bytes import gib_saved
from kvt_async.contract.formulas.model_config import token_bytes_of
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import EvidenceStatus, Unit

HOW = "Set analysis.serving {context_tokens, batch} and model.config to see the GiB saved at your own load."
PAGED = (
    "A server with a paged cache (vLLM, SGLang) takes its memory at start: there a saving shows as room for more or "
    "longer requests, not as free memory, and only where whole pages become empty."
)


@dataclass(frozen=True)
class ServingLoad:
    """The load that is reckoned, and the bytes of one cached token with where they come from."""

    serving: Serving
    token_bytes: float
    source: str
    bits: float = FULL_BITS  # of one element, in those bytes

    @property
    def full_gib(self) -> float:
        return gib_saved(self.token_bytes, self.serving.context_tokens, self.serving.batch, 0.0)

    @property
    def label(self) -> str:
        return f"{count(self.serving.context_tokens)} tokens × {count(self.serving.batch)}"


def load_of(results: Results, settings: Settings) -> ServingLoad | None:
    """The load to reckon; None without `analysis.serving` or where nobody says what a token takes, or it is unknown.

    Raises ConfigError where model.config can't be read or doesn't say it.
    """
    serving = settings.analysis.serving
    if serving is None:
        return None
    if settings.model.config is not None:
        token_bytes = token_bytes_of(settings.model.config, bits=serving.cache_bits)
        if token_bytes.value is None:
            return None
        at_16 = token_bytes_of(settings.model.config, bits=FULL_BITS).value or token_bytes.value
        bound = ", an upper bound: some layers stop growing at their window" if token_bytes.windowed else ""
        return ServingLoad(
            serving, token_bytes.value, f"from {token_bytes.path.name}{bound}", FULL_BITS * token_bytes.value / at_16
        )
    full = results.stat(results.full)
    if full is None or not full.kv_bytes_p50 or not full.prompt_tokens_p50:
        return None
    return ServingLoad(serving, full.kv_bytes_p50 / full.prompt_tokens_p50, "as the server reports for full cache")


def kept_share(results: Results, run: Run, load: ServingLoad) -> float | None:
    """Share of full cache's bytes that a level keeps at the load's prompt length; as asked where nothing was shown.

    None of a level that evicts while it answers: what is held hangs on how long answers get.
    """
    if run.is_full:
        return 1.0
    if run.decodes:
        return None
    stat, evidence = results.stat(run), results.evidence.get(run.run_id)
    if run.kv_unit == Unit.TOKENS:
        return min(1.0, run.kv_budget / load.serving.context_tokens)
    if run.kv_unit == Unit.BITS:
        return (_shown_bits(evidence) or run.kv_budget) / load.bits
    shown = stat.kept_fraction_p50 if stat and evidence and evidence.status == EvidenceStatus.VERIFIED else None
    return run.kv_budget if shown is None else shown


def of_bits(results: Results, settings: Settings, run: Run) -> str:
    """What a budget in bits per element buys where the evidence shows the bits: all tokens are kept, so bytes follow
    from them. In bytes where `model.config` is given and the prompt's length known; empty where nothing shows the bits.

    Raises ConfigError where model.config can't be read or doesn't say what a token takes.
    """
    evidence = results.evidence.get(run.run_id)
    bits = _shown_bits(evidence)
    if run.kv_unit != Unit.BITS or evidence is None or bits is None:
        return ""
    at_full = results.evidence.get(results.full.run_id) if results.full else None
    full_bits = FULL_BITS * (at_full.effective_p50 if at_full and at_full.effective_p50 else 1.0)
    smaller = change(bits, full_bits)
    start = f"Memory with {cache_kept(run.kv_budget, run.kv_unit)} ({evidence.source})"
    full = results.stat(results.full)
    tokens = full.prompt_tokens_p50 if full else None
    if settings.model.config is not None and tokens:
        here, there = (token_bytes_of(settings.model.config, bits=width).value for width in (bits, full_bits))
        if here is not None and there is not None:
            return (
                f"{start}: {amount(here * tokens)} of KV cache for a prompt of {count(tokens)} tokens (median) instead "
                f"of {amount(there * tokens)} with full cache's {full_bits:g} bits, {smaller}: every token is kept, so "
                "bytes follow from the bits."
            )
    kept = "since every token is kept; for bytes set model.config."
    return f"{start}: {smaller} against full cache's {full_bits:g} bits, {kept}"


def _shown_bits(evidence: Evidence | None) -> float | None:
    """Bits per element that evidence shows, whether or not it is what the level's name means."""
    proven = evidence is not None and evidence.status in (EvidenceStatus.VERIFIED, EvidenceStatus.CHANGED)
    return evidence.effective_p50 if evidence is not None and proven else None


def saved_gib(results: Results, run: Run, load: ServingLoad | None) -> float | None:
    share = None if load is None else kept_share(results, run, load)
    if load is None or share is None:
        return None
    return gib_saved(load.token_bytes, load.serving.context_tokens, load.serving.batch, share)


def serving(results: Results, settings: Settings, run: Run) -> list[str]:
    """What the level saves at the user's load, whether that is real, and how far the tested lengths carry."""
    load = load_of(results, settings)
    if load is None:
        if settings.analysis.serving is None or settings.model.config is None:
            return [HOW]
        token_bytes = token_bytes_of(settings.model.config, bits=settings.analysis.serving.cache_bits)
        name, why = token_bytes.path.name, token_bytes.why
        return [f"Memory at your load: bytes unknown. {name} doesn't say what a token takes: {why}."]
    saved = saved_gib(results, run, load)
    at = cache_kept(run.kv_budget, run.kv_unit)
    batch = plural(load.serving.batch, "request")
    verb = "takes" if load.serving.batch == 1 else "take"
    head = (
        f"Memory at your load: {batch} of {count(load.serving.context_tokens)} tokens {verb} {gib(load.full_gib)} at "
        f"full cache ({count(load.token_bytes)} bytes a token, {load.source})"
    )
    if saved is None:
        why = "hangs on how long answers get" if run.decodes else "can't be reckoned from its unit"
        return [f"{head}; what a cache with {at} saves of it {why}."]
    v = results.verdict(run.series)
    proven = v is not None and not nothing_safe(v)
    safe = "the safe budget" if proven else "which is not proven safe,"
    return [
        f"{head}; with {at}, {safe} {gib(load.full_gib - saved)}: {gib(saved)} saved.",
        f"{_real(results, run)} {PAGED}",
        _beyond(results, load),
    ]


def _real(results: Results, run: Run) -> str:
    if run.cuts_prompts:
        return "Is it real? Yes: the prompt itself was shorter, so its cache is."
    evidence = results.evidence.get(run.run_id)
    if evidence is not None and evidence.status == EvidenceStatus.CHANGED and evidence.effective_p50 is None:
        return "Is it real? The cache is another one than at full cache; how much smaller it is, is not known."
    if evidence is None or evidence.status not in (EvidenceStatus.VERIFIED, EvidenceStatus.CHANGED):
        return "Is it real? Not shown: nothing says that the server applied the budget, so this is arithmetic."
    stat = results.stat(run)
    if run.kv_unit == Unit.BITS:
        return (
            f"Is it real? The server says ({evidence.source}) that an element has so many bits; free memory itself was "
            "not measured."
        )
    what = "it keeps that share in bytes" if stat and stat.kv_bytes_p50 else "it keeps that share of the tokens"
    return f"Is it real? The server says ({evidence.source}) that {what}; free memory itself was not measured."


def _beyond(results: Results, load: ServingLoad) -> str:
    longest = max((b.hi_tokens for b in results.bins), default=0)
    if load.serving.context_tokens <= longest:
        return ""
    return (
        f"Prompts of {count(load.serving.context_tokens)} tokens were not tested (the longest had {count(longest)}): "
        "that the budget is safe there is not shown."
    )
