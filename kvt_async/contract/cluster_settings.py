"""The `cluster` section of the config: where the shards of a group run, other than in this process."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from kvt_async.contract.config_section import PathText, Seconds, Section

Amount = Annotated[float, Field(gt=0, le=1e15)]


class Cluster(Section):
    """A sweep whose shards are tasks of a cluster."""

    engine: Literal["ray"] = "ray"
    address: Annotated[str, Field(min_length=1, max_length=255)] = "local"  # local: a cluster of this machine alone
    resources: dict[str, Amount] = {"num_cpus": 1}  # of each shard; num_cpus, num_gpus, memory, or a name of your own
    shards: Annotated[int, Field(ge=1, le=10_000)] | Literal["auto"] = "auto"  # auto: as many as fit at once
    split: Literal["entries", "levels"] = "entries"
    scratch: PathText = "/tmp/kvt-scratch"  # on each node's own disk
    pull_s: Seconds = 30  # rows come here so often: what a lost node costs at most
    wait_s: Seconds = 600  # for the first place in the cluster

    @field_validator("resources")
    @classmethod
    def _are_named(cls, resources: dict[str, float]) -> dict[str, float]:
        if any(not name.strip() for name in resources):
            raise ValueError("a resource needs a name")
        return resources
