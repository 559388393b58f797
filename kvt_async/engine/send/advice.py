"""What a user can do about a refusal, beyond what the server says."""

from kvt_async.contract.load import secret
from kvt_async.contract.settings import EngineSettings

TLS_ADVICE = "Name the file of the authority that signed the server's certificate in engine.ca_file."


def key_advice(engine: EngineSettings) -> str:
    """About a refused key: which variable holds it, and whether it is set at all."""
    name = engine.api_key_env
    if any(header.lower() == "authorization" for header in engine.headers):
        return "The key is the one in engine.headers: put one there that may use this model."
    if secret(name) is None:
        return f"No key was sent: engine.api_key_env names {name}, which is set neither in the environment nor in .env."
    return f"The key is the one in {name} (engine.api_key_env): put one there that may use this model."


def field_advice(message: str | None) -> str | None:
    """About a field of the request that the server does not take, where there is a key for it; None: no word of one."""
    if message is not None and ("stream_options" in message or "include_usage" in message):
        return "engine.stream_usage: never leaves `stream_options` out; tokens are then counted by chunks."
    return None
