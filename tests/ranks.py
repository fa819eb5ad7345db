"""Several processes of a run, as torchrun would start them, for tests: start_ranks() starts this
file once for each, and gets back what each of them gives."""

import json
import os
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment_of(
    rank: int, size: int, port: int, local_size: int | None = None
) -> dict[str, str]:
    """What torchrun tells a process."""
    local_size = local_size or size
    told = {
        "RANK": rank, "WORLD_SIZE": size,
        "LOCAL_RANK": rank % local_size, "LOCAL_WORLD_SIZE": local_size,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1,
    }  # fmt: skip
    return os.environ | {name: str(value) for name, value in told.items()}


def flat(values: Any) -> list[Any]:
    """The numbers in lists of lists."""
    return [n for value in values for n in flat(value)] if isinstance(values, list) else [values]


def start_ranks(
    function: str, size: int, *arguments: Any, seconds: float = 120, local_size: int | None = None,
    tensor: int = 1,
) -> list[Any]:  # fmt: skip
    """What `function`, "module:name", gives in each of `size` processes that have joined, by rank:
    anything that JSON holds. Raises AssertionError with what a process says that fails."""
    port, command = (
        free_port(),
        [sys.executable, __file__, function, json.dumps(arguments), str(tensor)],
    )
    started = [
        subprocess.Popen(
            command, env=environment_of(rank, size, port, local_size), cwd=ROOT,
            encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(size)
    ]  # fmt: skip
    said = [process.communicate(timeout=seconds) for process in started]
    for rank, (process, (_, errors)) in enumerate(zip(started, said, strict=True)):
        assert process.returncode == 0, f"rank {rank}: {errors[-3000:]}"
    return [json.loads(out.splitlines()[-1]) for out, _ in said]


def main() -> None:
    sys.path[:0] = [str(ROOT)]
    from datetime import timedelta

    import torch

    from engine.world import join, leave

    torch.set_num_threads(1)
    join(timedelta(seconds=60), "cpu", int(sys.argv[3]))
    module, name = sys.argv[1].split(":")
    given = getattr(import_module(module), name)(*json.loads(sys.argv[2]))
    leave()
    print(json.dumps(given))


if __name__ == "__main__":
    main()
