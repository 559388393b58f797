"""kvt starts a server for each level, one after the other (kv.apply.via: launch).

Consecutive levels whose command, environment and health URL are equal share one server. Port 0 in engine.base_url
asks for a free one: {port} then says which.
"""

import socket
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from urllib.parse import urlsplit

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.settings import Settings
from kvt_async.contract.settings_kv import Apply, Via
from kvt_async.records import Json, Level, Run
from kvt_async.ways.launch_command import LaunchCommand
from kvt_async.ways.launched_server import launched
from kvt_async.ways.way import CanaryPlace, RunningServer, Say, StartedServer


class Launch(RunningServer):
    """kv.apply.command starts the server of a level; it is stopped with all its children once the level is done."""

    name = Via.LAUNCH.value
    canary: CanaryPlace = "across"
    one_server = False
    full_has_params = True
    restarts = 2

    def check_order(self, order: str) -> None:
        if order == "interleaved":
            raise ConfigError(
                "interleaved can't be had with kv.apply.via launch: it runs one level's server after the other",
                where="limits.order",
                do="Use limits.order: by_budget, or start the servers yourself and use kv.apply.via: endpoint.",
            )

    def check(self, settings: Settings, level: Level) -> None:
        LaunchCommand.of_level(settings, level)

    def with_port(self, settings: Settings) -> Settings:
        parts = urlsplit(settings.engine.base_url)
        if parts.port != 0:
            return settings
        with socket.socket() as probe:
            probe.bind((parts.hostname or "127.0.0.1", 0))
            port = probe.getsockname()[1]
        url = parts._replace(netloc=parts.netloc.removesuffix(":0") + f":{port}").geturl()
        return settings.model_copy(update={"engine": settings.engine.model_copy(update={"base_url": url})})

    def identity(self, apply: Apply, *, serves_full: bool) -> Json:
        return {"command": apply.command}

    def groups(self, settings: Settings, runs: Sequence[Run]) -> list[list[Run]]:
        servers: list[list[Run]] = []
        last: LaunchCommand | None = None
        for run in runs:
            command = LaunchCommand.of_level(settings, run.level)
            if command == last:
                servers[-1].append(run)
            else:
                servers.append([run])
            last = command
        return servers

    def serve(
        self, settings: Settings, level: Level, folder: Path, say: Say
    ) -> AbstractAsyncContextManager[StartedServer | None]:
        return launched(settings, level, folder, say)
