"""The HTTP side: parse, queue, stream back. Nothing here computes; the model has its own thread."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from aiohttp import web

from kvt_async.serve.access import Access
from kvt_async.serve.api_errors import ApiError, shown
from kvt_async.serve.api_request import ApiRequest, parse_request
from kvt_async.serve.backend import Backend
from kvt_async.serve.engine import Engine
from kvt_async.serve.observed import ServerMetrics
from kvt_async.serve.prometheus import CONTENT_TYPE
from kvt_async.serve.prompt_format import context_tokens, prompt_context_end
from kvt_async.serve.replies import Reply, error_event
from kvt_async.serve.tokenizer import Encoded
from kvt_async.serve.weights import REFERENCE_DIR
from kvt_async.serve.work import Finished, Text, Work
from kvt_async.serve.worker import BUG, Job, ModelThread, QueueFullError

LEAST_BODY_BYTES, MOST_BODY_BYTES = 8 << 20, 64 << 20  # that are read; between them 64 a token of the context window
log = logging.getLogger(__name__)
SSE_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client may keep the server waiting, in seconds."""

    body_s: float = 30  # from the head of a request to the end of its body
    reader_s: float = 120  # until a client that reads nothing of its stream is left


class Server:
    """The state behind the routes of one application."""

    def __init__(self, engine: Backend, *, max_queue: int, patience: "Patience") -> None:
        self.patience = patience
        self.most_body = min(MOST_BODY_BYTES, max(LEAST_BODY_BYTES, 64 * engine.about.max_tokens))
        self.engine, self.template = engine, engine.template
        self.model_name = engine.about.model_name
        self.thread = ModelThread(engine.generate, max_queue=max_queue)
        self.metrics = ServerMetrics(engine, self.thread)
        self.started_at = int(time.time())

    async def chat(self, http: web.Request) -> web.StreamResponse:
        return await self._answer(http, chat=True)

    async def completions(self, http: web.Request) -> web.StreamResponse:
        return await self._answer(http, chat=False)

    async def _answer(self, http: web.Request, *, chat: bool) -> web.StreamResponse:
        request = parse_request(await self._body(http), chat=chat, policies=self.engine.policies)
        if request.model is not None and request.model != self.model_name:
            raise self._no_such_model(request.model)
        job = Job(await self._work(request), each_token=request.stream)
        try:
            self.thread.submit(job)
        except QueueFullError:
            raise ApiError(
                f"{self.thread.waiting} requests wait already; try again later",
                status=429,
                kind="rate_limit_error",
                code="queue_full",
                headers={"Retry-After": "1"},
            ) from None
        reply = Reply(request, self.model_name)
        try:
            return await (self._stream if request.stream else self._whole)(http, job, reply)
        except (asyncio.CancelledError, ConnectionError):
            self.thread.cancel(job)
            self.metrics.cancelled.add()
            raise

    async def _body(self, http: web.Request) -> bytes:
        """Raises ApiError for a body that is too large, can't be decoded, or doesn't come in time."""
        try:
            async with asyncio.timeout(self.patience.body_s):
                return await http.read()
        except TimeoutError:
            problem = ApiError(
                f"The body did not come whole within {self.patience.body_s:g} s", status=408, code="body_timeout"
            )
        except web.HTTPRequestEntityTooLarge:
            problem = ApiError(
                f"The body is larger than {self.most_body} bytes, more than any prompt that this model can read",
                status=413,
                code="body_too_large",
            )
        except web.RequestPayloadError as cause:
            problem = ApiError(f"The body can't be read: {shown(str(cause))}", code="invalid_body")
        raise problem

    def _no_such_model(self, name: str) -> ApiError:
        return ApiError(
            f"The model {shown(name)} does not exist; this server has {self.model_name!r}",
            status=404,
            kind="NotFoundError",
            code="model_not_found",
            param="model",
        )

    async def _work(self, request: ApiRequest) -> Work:
        """The request in tokens; ApiError where it doesn't fit the model."""
        kv, context_end = request.kv, None
        self._check_length(request)
        if isinstance(request.prompt, tuple):
            encoded = self._given_ids(request)
        else:
            rendered = self.template.render(request.messages, request.tools) if request.messages else request.prompt
            encoded = await self._encode(rendered, request)
            if kv.mode == "question_agnostic" and kv.context_messages is not None:
                if not request.messages:
                    raise ApiError("kv.context_messages needs messages, not a prompt", param="kv.context_messages")
                end_char = self.template.messages_end(request.messages, rendered, kv.context_messages, request.tools)
                context_end = context_tokens(encoded, end_char, end_char, may_split=True)
            elif kv.mode == "question_agnostic" and kv.context_chars is not None:
                if request.messages:
                    end_char = self.template.context_end(request.messages, rendered, kv.context_chars, request.tools)
                else:
                    end_char = prompt_context_end(request.prompt, kv.context_chars)
                context_end = context_tokens(
                    encoded, end_char, kv.context_chars, may_split=self.engine.about.splits_tokens
                )
        limit, prompt_tokens = self.engine.about.max_tokens, len(encoded.ids)
        if prompt_tokens == 0:
            raise ApiError("The prompt has no tokens", param="messages" if request.messages else "prompt")
        max_tokens = request.max_tokens if request.max_tokens is not None else max(1, limit - prompt_tokens)
        if prompt_tokens + max_tokens > limit:
            raise ApiError(
                f"This model's maximum context length is {limit} tokens. However, you requested "
                f"{prompt_tokens + max_tokens} tokens ({prompt_tokens} in the prompt, {max_tokens} in the completion).",
                code="context_length_exceeded",
                param="messages" if request.messages else "prompt",
            )
        return Work(
            encoded.ids, max_tokens, kv, context_end, request.sampling, request.stop, ignore_eos=request.ignore_eos
        )

    def _check_length(self, request: ApiRequest) -> None:
        """Refuse at once what can't fit, before a template or a tokenizer works on it."""
        most, prompt = self.engine.about.max_tokens, request.prompt
        if isinstance(prompt, tuple):
            too_long = len(prompt) > most
        else:
            chars = len(prompt) + sum(len(message.content) for message in request.messages)
            too_long = len(request.messages) > most or chars > most * self.engine.tokenizer.longest
        if too_long:
            raise self._too_long(request)

    def _too_long(self, request: ApiRequest) -> ApiError:
        limit = self.engine.about.max_tokens
        return ApiError(
            f"This model's maximum context length is {limit} tokens. However, your prompt has more than {limit} "
            "tokens; how many was not counted.",
            code="context_length_exceeded",
            param="messages" if request.messages else "prompt",
        )

    async def _encode(self, text: str, request: ApiRequest) -> Encoded:
        tokenizer, special = self.engine.tokenizer, not request.messages
        remembered = tokenizer.remembered(text, special=special)
        if remembered is not None:
            return remembered
        if not await asyncio.to_thread(tokenizer.fits, text, self.engine.about.max_tokens):
            raise self._too_long(request)
        return await asyncio.to_thread(tokenizer.encode, text, special=special)

    def _given_ids(self, request: ApiRequest) -> Encoded:
        if request.kv.mode == "question_agnostic":
            raise ApiError("kv.context_chars needs a text prompt, not token ids", param="kv.context_chars")
        largest = self.engine.about.vocab_size - 1
        if not all(0 <= token <= largest for token in request.prompt if isinstance(token, int)):
            raise ApiError(f"token ids are 0 to {largest}", param="prompt")
        ids = np.array(request.prompt, dtype=np.int64)
        return Encoded(ids, ids, ids)

    async def _stream(self, http: web.Request, job: Job, reply: Reply) -> web.StreamResponse:
        response = web.StreamResponse(headers=SSE_HEADERS)
        opening, times = reply.start(), list[float]()
        async for batch in job.events():
            out = [opening]
            for event in batch:
                if isinstance(event, Text):
                    times.append(event.at)
                    out.append(reply.text(event.text))
                elif isinstance(event, Finished):
                    self.metrics.finished(job, event, times)
                    out.append(reply.end(event))
                elif response.prepared:
                    self.metrics.errors.add(label=str(event.error.status))
                    out.append(error_event(event.error.body()))
                else:
                    raise event.error
            opening = b""
            if not response.prepared:
                await response.prepare(http)
            try:
                async with asyncio.timeout(self.patience.reader_s):
                    await response.write(b"".join(out))
            except TimeoutError:
                if http.transport is not None:
                    http.transport.abort()
                raise ConnectionError("the client reads nothing") from None
        with suppress(ConnectionError):
            await response.write_eof()
        return response

    async def _whole(self, http: web.Request, job: Job, reply: Reply) -> web.Response:
        texts: list[Text] = []
        async for batch in job.events():
            for event in batch:
                if isinstance(event, Text):
                    texts.append(event)
                elif isinstance(event, Finished):
                    self.metrics.finished(job, event, [text.at for text in texts])
                    body = reply.whole("".join(text.text for text in texts), event)
                    return web.Response(body=body, content_type="application/json")
                else:
                    raise event.error
        raise AssertionError("a job ends with Finished or Failed")

    async def models(self, _: web.Request) -> web.Response:
        return _json({"object": "list", "data": [self._card()]})

    async def model(self, http: web.Request) -> web.Response:
        """One model; the name may hold slashes."""
        if (name := http.match_info["id"]) != self.model_name:
            raise self._no_such_model(name)
        return _json(self._card())

    def _card(self) -> dict[str, object]:
        return {
            "id": self.model_name,
            "object": "model",
            "created": self.started_at,
            "owned_by": "kvt",
            "root": self.model_name,
            "parent": None,
            "max_model_len": self.engine.about.max_tokens,
        }

    async def health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def version(self, _: web.Request) -> web.Response:
        try:
            installed = version("kvt")
        except PackageNotFoundError:
            installed = "unknown"
        return _json({"version": installed, "server": "kvt", **self.engine.about.version})

    async def prometheus(self, _: web.Request) -> web.Response:
        return web.Response(body=self.metrics.page().encode(), headers={"Content-Type": CONTENT_TYPE})


def make_app(
    model: Path | None = None,
    *,
    prefill_cache_mb: int = 1024,
    max_queue: int = 4096,
    model_name: str | None = None,
    names: Collection[str] = (),
    patience: Patience = Patience(),
) -> web.Application:
    """The numpy engine behind the API.

    `model`: a Hugging Face folder or a GGUF file; None: the reference model that ships with the package. Raises
    ConfigError for a model that it can't serve.
    """
    engine = Engine(model or REFERENCE_DIR, prefill_cache_mb << 20, model_name)
    return application(engine, max_queue=max_queue, names=names, patience=patience)


def application(
    engine: Backend, *, max_queue: int = 4096, names: Collection[str] = (), patience: Patience = Patience()
) -> web.Application:
    """Any engine behind the API; its thread lives from startup to cleanup. `names`: see Access."""
    server = Server(engine, max_queue=max_queue, patience=patience)
    app = web.Application(client_max_size=server.most_body, middlewares=[_errors(server, Access(names))])
    app.add_routes(
        [
            web.post("/v1/chat/completions", server.chat),
            web.post("/v1/completions", server.completions),
            web.get("/v1/models", server.models),
            web.get("/v1/models/{id:.+}", server.model),
            web.get("/health", server.health),
            web.get("/version", server.version),
            web.get("/metrics", server.prometheus),
        ]
    )

    async def model_thread(_: web.Application) -> AsyncIterator[None]:
        server.thread.start()
        yield
        await asyncio.to_thread(server.thread.stop)

    app.cleanup_ctx.append(model_thread)
    return app


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _errors(server: Server, access: Access) -> Any:
    @web.middleware
    async def middleware(http: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            access.check(http)
            return await handler(http)
        except ApiError as error:
            problem = error
        except web.HTTPException as error:
            if error.status < 400:
                raise
            message = f"{error.reason}: {shown(http.method)} {shown(http.path)}"
            problem = ApiError(
                message, status=error.status, kind="NotFoundError" if error.status == 404 else "invalid_request_error"
            )
            problem.headers.update({"Allow": error.headers["Allow"]} if "Allow" in error.headers else {})
        except ConnectionError:
            raise
        except Exception:
            log.exception("the server failed on a request")
            problem = ApiError(BUG, status=500, kind="internal_server_error")
        server.metrics.errors.add(label=str(problem.status))
        response = _json(problem.body(), problem.status, problem.headers)
        if problem.status in (408, 413):
            response.force_close()  # what of the body is still to come is no request
        return response

    return middleware


def _json(body: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, headers=headers, content_type="application/json")
