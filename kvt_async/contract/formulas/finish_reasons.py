"""What a server's `finish_reason` means: the reply is over, the reply failed, or nothing.

Only words that are known to end a reply do so. A word that nobody knows may stand in every chunk of a reply that is
still going on ("running", "null"), so a stream that breaks off after one is a cut stream; [DONE] ends a reply whatever
its last word was. Sources: the documents and code of OpenAI, Azure, vLLM, SGLang, llama.cpp, text-generation-inference,
TensorRT-LLM, Dynamo, LMDeploy, MLC, Ollama, Mistral, Cohere, DeepSeek, Zhipu, Baidu, Together and OpenRouter, and the
words of Anthropic, Google and Amazon, which gateways pass on.
"""

import re
from functools import lru_cache
from typing import Literal

Meaning = Literal["final", "failed", "nothing"]

CUT_OFF = frozenset(
    {
        *("length", "max_tokens", "max_length", "max_new_tokens", "max_output_tokens", "model_length", "limit"),
        *("max_completion_tokens", "max_tokens_reached", "token_limit", "length_limit"),
        *("model_context_window_exceeded", "context_length", "context_length_reached"),
    }
)
"""Final words: the reply is over because it became too long."""
_FILTERED = frozenset(
    {
        *("content_filter", "content_filtered", "safety", "sensitive", "refusal", "recitation", "blocklist"),
        *("prohibited_content", "spii", "language", "guardrail", "guardrail_intervened", "image_safety"),
    }
)
FINAL = (
    frozenset(
        {
            *("stop", "eos", "eos_token", "stop_sequence", "stop_token", "stop_string", "stop_word", "word"),
            *("stop_str", "stop_token_id", "stop_sequences", "matched_stop"),
            *("end", "end_turn", "end_of_text", "end_of_sequence", "endoftext", "pause_turn", "repetition"),
            *("tool_calls", "tool_call", "tool_use", "function_call", "malformed_function_call"),
            *("complete", "completed", "finished", "done", "normal"),
        }
    )
    | CUT_OFF
    | _FILTERED
)
FAILED = frozenset(
    {
        *("abort", "aborted", "cancelled", "canceled", "cancel", "user_cancel", "killed", "preempted", "preempt"),
        *("timeout", "timed_out", "disconnect", "disconnected", "overloaded", "unavailable", "shutdown"),
        *("insufficient_system_resource", "insufficient_resources", "out_of_memory", "oom", "failed", "failure"),
        *("context_length_exceeded", "context_window_exceeded", "rate_limit", "rate_limited", "quota_exceeded"),
        *("server_shutdown", "shutting_down", "evicted", "interrupted", "terminated", "worker_lost"),
    }
)
_FAILURES = ("error", "exception")  # inside of a word: network_error, server_error, ERROR_LIMIT


_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")  # "endTurn"


@lru_cache(256)
def meaning(word: str) -> Meaning:
    """What a finish_reason means. Upper and lower case, dashes, humps and an enum's name before it make no difference:
    "endTurn", "FinishReason.STOP", "FINISH_REASON_STOP"."""
    plain = _plain(word)
    if plain in FINAL:
        return "final"
    failed = plain in FAILED or any(part in word.lower() for part in _FAILURES)
    return "failed" if failed else "nothing"


def is_cut_off(word: str | None) -> bool:
    """Whether a final word says that the reply became too long."""
    return word is not None and _plain(word) in CUT_OFF


def _plain(word: str) -> str:
    plain = _HUMP.sub("_", word.strip().rpartition(".")[2]).lower().replace("-", "_").replace(" ", "_")
    return plain.removeprefix("finish_reason_")
