"""The metrics that a dataset can be scored with, and what each needs installed: the runner refuses a config before
the first request is sent that the analyzer could not score afterwards.
"""

import difflib
from importlib.util import find_spec

from kvt_async.contract import plugin_registry
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.plugin_registry import Kind

TOOL_CALL = "tool_call"
BFCL_AST = "bfcl_ast"
MATH_VERIFY = "math_verify"
GIVEN_SCORE = "given_score"
_JIEBA = ("jieba",)
_IFEVAL = ("langdetect", "nltk", "punkt")
_GRAMMARS = ("tree_sitter", *(f"tree_sitter_{name}" for name in ("cpp", "go", "java", "python", "rust", "typescript")))
NEEDS: dict[str, tuple[str, ...]] = {
    "em": (),
    "f1": (),
    "qa_f1": (),
    "qa_f1_first_line": (),
    "qa_f1_zh": _JIEBA,
    "rouge": (),
    "rouge_first_line": (),
    "rouge_fixed": (),
    "rouge_zh": _JIEBA,
    "classification": (),
    "classification_first_line": (),
    "classification_fixed": (),
    "classification_fixed_first_line": (),
    "count": (),
    "retrieval": (),
    "retrieval_zh": (),
    "code_sim": (),
    "code_sim_indel": (),
    "string_match_all": (),
    "string_match_part": (),
    "choice_letter": (),
    "squad_em": (),
    "squad_f1": (),
    TOOL_CALL: (),
    GIVEN_SCORE: (),
    MATH_VERIFY: ("math_verify",),
    "gsm8k_number": (),
    "gsm8k_strict": (),
    "gpqa_letter": (),
    "mrcr": (),
    "longbench_v2_letter": (),
    "ifeval_strict": _IFEVAL,
    "ifeval_loose": _IFEVAL,
    "ifeval_instructions": _IFEVAL,
    BFCL_AST: (),
    "scbench_kv": (),
    "scbench_vt": (),
    "scbench_qa_eng": (),
    "scbench_qa_chn": (),
    "scbench_qa_chn_fixed": (),
    "scbench_choice_eng": (),
    "scbench_many_shot": (),
    "scbench_many_shot_fixed": (),
    "scbench_mf": (),
    "scbench_summary": (),
    "scbench_passkey": (),
    "scbench_repoqa": _GRAMMARS,
    "scbench_summary_with_needles": (),
    "scbench_repoqa_and_kv": _GRAMMARS,
}
"""Name of a metric -> packages that it imports. The analyzer registers exactly these names."""

_EXTRA = {
    "jieba": "longbench",
    "math_verify": "math",
    **dict.fromkeys(_IFEVAL, "ifeval"),
    **dict.fromkeys(_GRAMMARS, "scbench"),
}
"""Package -> the extra of kvt that installs it."""


def install(package: str) -> str:
    """The advice where a package that one of kvt's metrics imports is missing."""
    return f"Install it: pip install 'kvt[{_EXTRA[package]}]'; in a checkout `make setup` does."


def check_known(name: str, where: str = "") -> None:
    """Raises ConfigError for a metric that does not exist, with the nearest name."""
    if not is_known(name):
        names = sorted({*NEEDS, *plugin_registry.names(Kind.METRIC)})
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"Did you mean {close[0]}? " if close else ""
        raise ConfigError(f"no metric is called {name!r}", where=where, do=f"{hint}Known metrics: {', '.join(names)}.")


def is_known(name: str) -> bool:
    """Whether there is a metric of that name: one of kvt's, or a plugin's that is loaded or installed."""
    return name in NEEDS or plugin_registry.find(Kind.METRIC, name) is not None


def check_installed(name: str, where: str) -> None:
    """Raises ConfigError where a package that the metric imports is missing."""
    plugin = None if name in NEEDS else plugin_registry.find(Kind.METRIC, name)
    for package in NEEDS[name] if plugin is None else plugin.options["packages"]:
        if not is_installed(package):
            do = install(package) if plugin is None else f"Install it: pip install {package}."
            raise ConfigError(f"the metric {name} needs the package {package}", where=where, do=do)


def is_installed(package: str) -> bool:
    """Whether a package can be found; nothing is imported."""
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # a module that was put in place by hand has no spec
        return False
