"""What goes back over the wire: whole bodies and the chunks of a stream, ready as bytes."""

import time
import uuid
from typing import Any

import orjson

from kvt_async.serve.api_request import ApiRequest
from kvt_async.serve.work import Finished, Usage

DONE = b"data: [DONE]\n\n"


def usage_body(usage: Usage) -> dict[str, Any]:
    """OpenAI's usage with `kv`, the evidence of what was evicted (per layer and KV head; bytes over all of them).

    With `when` prefill, kept_tokens and kept_fraction are of the prompt's compressible tokens. Else kept_tokens is what
    the cache held at the end, and kept_fraction the largest share of the tokens seen that a compression left.
    """
    held, later = usage.held, usage.when != "prefill"
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "kv": {
            "policy": usage.policy,
            "mode": usage.mode,
            "prompt_tokens": usage.prompt_tokens,
            "compressible_tokens": usage.compressible_tokens,
            "kept_tokens": held.now_tokens if later else usage.kept_tokens,
            "kept_fraction": held.compressed_fraction if later else usage.kept_fraction,
            "when": usage.when,
            "n_compressions": held.n_compressions,
            "peak_tokens": held.peak_tokens,
            "compressed_tokens": held.compressed_tokens if later else None,
            "bytes": usage.bytes,
            "prefill_cached": usage.prefill_cached,
        },
    }


class Reply:
    """One request's reply, chat or completion: the two differ in names and in where the text stands."""

    def __init__(self, request: ApiRequest, model: str) -> None:
        self._chat = bool(request.messages)
        self._include_usage = request.include_usage
        kind, object_name = ("chatcmpl", "chat.completion") if self._chat else ("cmpl", "text_completion")
        self._head: dict[str, Any] = {
            "id": f"{kind}-{uuid.uuid4().hex}",
            "object": object_name,
            "created": int(time.time()),
            "model": model,
        }
        chunk_head = {**self._head, "object": "chat.completion.chunk" if self._chat else object_name}
        opened = b"data: " + orjson.dumps(chunk_head)[:-1] + b',"choices":'
        text_key = b'[{"index":0,"delta":{"content":' if self._chat else b'[{"index":0,"text":'
        after = (
            b'},"logprobs":null,"finish_reason":null}]' if self._chat else b',"logprobs":null,"finish_reason":null}]'
        )
        self._opened = opened
        self._close = b',"usage":null}\n\n' if self._include_usage else b"}\n\n"
        self._before_text = opened + text_key
        self._after_text = after + self._close

    def start(self) -> bytes:
        """The role chunk that opens a chat stream; a completion has none."""
        if not self._chat:
            return b""
        delta = b'[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
        return self._opened + delta + self._close

    def text(self, text: str) -> bytes:
        return self._before_text + orjson.dumps(text) + self._after_text

    def end(self, end: Finished) -> bytes:
        """Finish chunk, usage chunk if it was asked for, [DONE]."""
        body = b'"delta":{}' if self._chat else b'"text":""'
        finish = b'[{"index":0,' + body + b',"logprobs":null,"finish_reason":"' + end.reason.encode() + b'"}]'
        usage = b""
        if self._include_usage:
            usage = self._opened + b'[],"usage":' + orjson.dumps(usage_body(end.usage)) + b"}\n\n"
        return self._opened + finish + self._close + usage + DONE

    def whole(self, text: str, end: Finished) -> bytes:
        """The body of a reply that is not streamed."""
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": end.reason}
        choice |= {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
        return orjson.dumps({**self._head, "choices": [choice], "usage": usage_body(end.usage)})


def error_event(body: dict[str, object]) -> bytes:
    """An error inside a stream that has begun."""
    return b"data: " + orjson.dumps(body) + b"\n\n" + DONE
