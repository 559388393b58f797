"""What a server printed of its own set-up while it started, where no page says it: vLLM's and SGLang's log lines.

Names and forms are those of the engines' logs in 2025 and 2026. A line that isn't there is a fact that isn't known.
"""

import re
from collections.abc import Callable

from kvt_async.records import Json

_PATTERNS = {
    "attention_backend": (
        r"Using (\w+) attention backend",
        r"Using (\w[\w ]{0,40}?) backend on V1",
        r"attention_backend='?(\w+)",
        r"Attention backend: (\w+)",
    ),
    "tensor_parallel_size": (r"tensor_parallel_size=(\d+)", r"\btp_size=(\d+)"),
    "enable_prefix_caching": (r"enable_prefix_caching=(True|False)",),
    "disable_radix_cache": (r"disable_radix_cache=(True|False)",),
}
_UNCALIBRATED = re.compile(
    r"(?i)using (?:kv cache )?scal(?:e|ing factors?)[^\n]{0,40}\b1\.0\b|without scaling factors?"
)
_MOST = 4 << 20  # characters of a log that are read, from its end: it is continued when a server is started again


def launch_facts(output: Callable[[], str]) -> Json:
    """By name, the last word of the log on each; empty where it says nothing."""
    text = output()[-_MOST:]
    facts: Json = {}
    for name, patterns in _PATTERNS.items():
        values = [match.group(1) for pattern in patterns for match in re.finditer(pattern, text)]
        if values:
            facts[name] = values[-1].strip()
    if _UNCALIBRATED.search(text):
        facts["kv_scales"] = "scales of the KV cache are 1.0, not calibrated,"
    return facts
