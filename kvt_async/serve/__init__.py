"""A small real model behind an OpenAI-compatible API, with a KV cache that really evicts."""

from pathlib import Path


def launch(
    host: str, port: int, *, model_dir: Path | None = None, prefill_cache_mb: int = 1024, max_queue: int = 4096
) -> None:
    """What `kvt serve` calls: serve until SIGTERM or SIGINT. Raises ConfigError; nothing heavy is loaded before."""
    from kvt_async.serve.server import serve

    serve(host, port, model_dir=model_dir, prefill_cache_mb=prefill_cache_mb, max_queue=max_queue)
