"""A Ray cluster as kvt uses it: actors that hold a shard's process, and nothing else of Ray.

No secret goes into Ray: no runtime_env, no argument and no object holds one; a node's processes have the environment
that Ray was started with there. Whoever reaches Ray's ports runs code on its nodes: a cluster that kvt starts itself
(address `local`) listens on 127.0.0.1 alone, without dashboard and usage statistics.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kvt_async.cluster.node import ShardOnNode
from kvt_async.contract.cluster_settings import Cluster
from kvt_async.contract.errors import ConfigError, GuardError

POLL_S = 0.5
_OWN_OPTIONS = ("num_cpus", "num_gpus", "memory")
_LOCAL = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # the latter: loopback alone


class NodeLostError(Exception):
    """The node or the worker that held a shard is gone, or can't do its part: its disk is full, its scratch folder
    can't be written."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A shard's actor, and the calls to it. `call` raises NodeLostError, and gives None where `is_over` says so."""

    handle: Any
    ray: Any

    def call(self, method: str, *args: Any, is_over: Callable[[], bool] = lambda: False, **options: Any) -> Any:
        reference = getattr(self.handle, method).remote(*args, **options)
        try:
            while not self.ray.wait([reference], timeout=POLL_S)[0]:
                if is_over():
                    return None
            return self.ray.get(reference)
        except (self.ray.exceptions.RayActorError, self.ray.exceptions.ObjectLostError) as lost:
            raise NodeLostError(str(lost).splitlines()[0] if str(lost) else type(lost).__name__) from None
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, OSError | sqlite3.Error):
                raise NodeLostError(f"on its node: {error.cause}") from None
            raise

    def release(self) -> None:
        """Give its place back; its process dies with it."""
        with contextlib.suppress(Exception):
            self.ray.kill(self.handle)


class RayCluster:
    """Connected while the block of `connected` runs."""

    def __init__(self, ray: Any, settings: Cluster) -> None:
        self._ray, self._settings = ray, settings
        own = {name: settings.resources[name] for name in _OWN_OPTIONS if name in settings.resources}
        others = {name: amount for name, amount in settings.resources.items() if name not in _OWN_OPTIONS}
        self._options = {"num_cpus": 0, **own, "resources": others, "max_restarts": 0}

    def place(self) -> Placed:
        """Ask for a place; its first call waits until there is one."""
        actor = self._ray.remote(ShardOnNode).options(**self._options)
        return Placed(actor.remote(), self._ray)

    @property
    def n_places(self) -> int:
        """How many shards the cluster's nodes hold at once, each with the resources of one."""
        names = {"num_cpus": "CPU", "num_gpus": "GPU"}
        places = 0
        for node in self._ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                fits = [
                    has.get(names.get(name, name), 0) // amount for name, amount in self._settings.resources.items()
                ]
                places += int(min(fits, default=1))
        return places

    @property
    def resources(self) -> str:
        """What the cluster has, in words."""
        has = {name: amount for name, amount in self._ray.cluster_resources().items() if not name.startswith("node:")}
        return ", ".join(f"{name} {amount:g}" for name, amount in sorted(has.items())) or "nothing"


@contextlib.contextmanager
def connected(settings: Cluster) -> Iterator[RayCluster]:
    """Connect to the cluster, or start one of this machine alone. Raises ConfigError where Ray is not installed,
    GuardError where no cluster answers."""
    is_local = settings.address == "local"
    if is_local:
        os.environ.update(_LOCAL)
    try:
        import ray
    except ImportError:
        raise ConfigError(
            "the engine ray is not installed", where="cluster.engine", do="Install it with `pip install 'kvt[ray]'`."
        ) from None
    quiet = {"log_to_driver": False, "logging_level": "error", "configure_logging": False}
    try:
        if is_local:
            others = {name: amount for name, amount in settings.resources.items() if name not in _OWN_OPTIONS}
            ray.init(
                address="local",
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                resources=others or None,
                **quiet,
            )
        else:
            ray.init(address=settings.address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise GuardError(
            f"no Ray cluster answers: {(str(error).strip() or type(error).__name__).splitlines()[0]}",
            where=f"cluster.address {settings.address}",
            do="Start one with `ray start --head`, or set cluster.address to local.",
        ) from None
    try:
        yield RayCluster(ray, settings)
    finally:
        ray.shutdown()
