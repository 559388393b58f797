"""What a series is called where people read: its label in the config's terms, put into words. Pure."""

from collections import Counter
from collections.abc import Sequence

from analyzer.results.number_format import listed
from kvt_async.contract.settings_kv import cuts_prompts
from kvt_async.contract.vocabulary import When

_POLICIES = {
    "snapkv": "SnapKV",
    "streaming_llm": "StreamingLLM",
    "random": "Random eviction",
    "h2o": "H2O",
    "tova": "TOVA",
    "knorm": "Key norm",
    "observed_attention": "Observed attention",
    "expected_attention": "Expected attention",
}
_MODES = {
    "aware": "sees the question",
    "agnostic": "evicts before the question is known",
}
_ANSWERING = "while it answers"
_WHENS: dict[str, str] = {
    When.DECODE: f"evicts {_ANSWERING}",
    When.BOTH: f"evicts {_ANSWERING} too",
}
_INTERVAL = "compression_interval="  # said in words with the time it belongs to
_CUTS = {"left": "its start left out", "middle": "its middle left out"}
_DTYPE = "kv_dtype"  # the policy that recipes use where a level is a data type of the cache


def series_name(label: str) -> str:
    """`SnapKV (sees the question)` for `snapkv/aware`; a label of unknown parts stays as it is."""
    parts = _parts(label)
    if parts is None:
        return _dtype_name(label)
    policy, mode, remarks = parts
    return _named(policy, [*mode, *remarks])


def _parts(label: str) -> tuple[str, list[str], list[str]] | None:
    """The policy's name, what its mode means, and what else tells the series apart; None: it has unknown parts."""
    head, *params = label.split(" ")
    head, when = _when(head)
    policy, slash, mode = head.partition("/")
    known = _CUTS if cuts_prompts(policy) else _MODES
    policies = _POLICIES | ({policy: "Prompt cut short"} if cuts_prompts(policy) else {})
    if (policy not in policies and mode not in _MODES and when not in _WHENS) or (slash and mode not in known):
        return None
    if not all("=" in param for param in params):
        return None
    every = next((param for param in params if param.startswith(_INTERVAL) and when in _WHENS), None)
    remarks = [_WHENS[when].replace(_ANSWERING, _every(every.removeprefix(_INTERVAL)))] if every else []
    remarks += [_WHENS[when]] if when in _WHENS and not every else []
    remarks += [param for param in params if param != every]
    return policies.get(policy, policy), [known[mode]] if slash and when != When.DECODE else [], remarks


def _every(tokens: str) -> str:
    return "at every answer token" if tokens == "1" else f"every {tokens} answer tokens"


def _named(policy: str, remarks: Sequence[str]) -> str:
    return policy + (f" ({', '.join(remarks)})" if remarks else "")


def _when(head: str) -> tuple[str, str]:
    """A label's head without what it says of when the policy evicts, and that."""
    policy, slash, when = head.rpartition("/")
    return (policy, when) if slash and when in _WHENS else (head, When.PREFILL)


def series_names(labels: Sequence[str]) -> str:
    """Several of them in a sentence."""
    return listed([series_name(label) for label in labels])


def short_names(labels: Sequence[str]) -> dict[str, str]:
    """Label -> its name for a legend, without when it evicts and parameters where these are the same for all.

    Two series of one name keep their labels.
    """
    names = {label: _beside(label, labels).replace(_MODES["agnostic"], "question not yet known") for label in labels}
    alike = Counter(names.values())
    return {label: label if alike[name] > 1 else name for label, name in names.items()}


def _beside(label: str, labels: Sequence[str]) -> str:
    """The name of a series beside the others, which needn't say what all of them share."""
    of_all = [_parts(each) for each in labels]
    parts = _parts(label)
    if parts is None or len(labels) == 1 or None in of_all:
        return series_name(label)
    policy, mode, remarks = parts
    shared = set(remarks).intersection(*(each[2] for each in of_all if each))
    return _named(policy, [*mode, *(remark for remark in remarks if remark not in shared)])


def briefest_names(labels: Sequence[str]) -> dict[str, str]:
    """Label -> its name without what stands in brackets; series that would share one keep their whole names."""
    heads = {label: series_name(label).partition(" (")[0] for label in labels}
    alike = Counter(heads.values())
    return {label: series_name(label) if alike[head] > 1 else head for label, head in heads.items()}


def two_lines(name: str) -> str:
    """A name with what stands in brackets on a line of its own."""
    start, bracket, remarks = name.partition(" (")
    return f"{start}\n{remarks.removesuffix(')')}" if bracket else name


def _dtype_name(label: str) -> str:
    head, *params = label.split(" ")
    if head == _DTYPE and len(params) == 1 and params[0].startswith("dtype="):
        return f"Cache stored as {params[0].removeprefix('dtype=')}"
    return label
