"""A config on its way to another machine: all that was set here, and of secrets only the names of their variables."""

import os
from pathlib import Path
from typing import Any

import yaml

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.load import dotenv, known_secrets
from kvt_async.contract.settings import Settings
from kvt_async.contract.variables import resolve


def travelling_yaml(settings: Settings) -> str:
    """The config that `settings` came from, for `load_settings` on another machine: every variable is filled but those
    that hold a secret, which stand in it by their names. Raises ConfigError where a secret itself was written into it.
    """
    env, secrets = {**dotenv(Path(".env")), **os.environ}, known_secrets(settings)

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [filled(item) for item in value]
        text = resolve(value, env, lambda key: key, [])
        return value if isinstance(text, str) and secrets.hit(text) else text

    text = yaml.safe_dump(filled(settings.written), sort_keys=False, allow_unicode=True)
    if secrets.hit(text):
        line = next((line.strip() for line in text.splitlines() if secrets.hit(line)), "")
        raise ConfigError(
            "the config holds a secret itself, and it would travel to other machines",
            where=secrets.text(line),
            do="Write ${NAME} in its place, and set that variable on every node.",
        )
    return text
