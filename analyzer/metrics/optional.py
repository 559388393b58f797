"""Packages that only some metrics need."""

import importlib
from typing import Any

from kvt_async.contract.errors import ConfigError


def load(package: str) -> Any:
    """Import a package of the `longbench` extra; ConfigError with the command to install it."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ConfigError(
            f"this task's metric needs the package {package}", do="Install it: pip install 'kvt[longbench]'."
        ) from None
