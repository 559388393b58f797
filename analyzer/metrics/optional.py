"""Packages that only some metrics need."""

import importlib
from typing import Any

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.metric_needs import install, is_installed


def require(package: str) -> None:
    """ConfigError, with the command to install it, where a package of one of kvt's extras is missing."""
    if not is_installed(package):
        raise ConfigError(f"this task's metric needs the package {package}", do=install(package))


def load(package: str) -> Any:
    """Import a package of one of kvt's extras; ConfigError with the command to install it."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ConfigError(f"this task's metric needs the package {package}", do=install(package)) from None
