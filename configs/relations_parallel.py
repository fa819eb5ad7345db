"""What must hold between the settings of several processes."""

from collections.abc import Mapping
from typing import Any


def shards_are_of_fsdp(s: Mapping[str, Any]) -> str | None:
    if s["parallel.strategy"] == "ddp" and s["parallel.shard"] != "full":
        return (
            f'parallel.shard: got "{s["parallel.shard"]}" beside parallel.strategy = "ddp", where '
            'each process has all of the model; remove it, or set parallel.strategy = "fsdp"'
        )
    return None


def offloading_is_of_fsdp_on_gpus(s: Mapping[str, Any]) -> str | None:
    if not s["parallel.offload"]:
        return None
    if s["parallel.strategy"] == "ddp":
        return (
            'parallel.offload: got true beside parallel.strategy = "ddp", which has no shards; '
            'remove it, or set parallel.strategy = "fsdp"'
        )
    if s["precision.device"] == "cpu":
        return (
            'parallel.offload: got true beside precision.device = "cpu", whose memory is the '
            "host's already; remove it"
        )
    return None


PARALLEL_RULES = (shards_are_of_fsdp, offloading_is_of_fsdp_on_gpus)
