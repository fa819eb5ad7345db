"""A trainer whose workers are processes of this machine, and call the function in a thread, as
those of Ray do; all of them again where one fails."""

import multiprocessing
import os
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray.train import RunConfig, ScalingConfig, collective


@dataclass
class TorchTrainer:
    train_loop_per_worker: Callable[[dict[str, Any]], None]
    train_loop_config: dict[str, Any]
    scaling_config: ScalingConfig
    run_config: RunConfig

    def fit(self) -> None:
        """Attempts until one goes well. Raises RuntimeError after the last."""
        for _ in range(1 + self.run_config.failure_config.max_failures):
            with socket.create_server(("127.0.0.1", 0)) as taken:  # by Ray's own process group
                if not any(self.attempt(taken.getsockname()[1])):
                    return
        raise RuntimeError("the last attempt failed")

    def attempt(self, port: int) -> list[int]:
        """What each worker ended with."""
        fork, size = multiprocessing.get_context("fork"), self.scaling_config.num_workers
        collective.everyone = (fork.Barrier(size), fork.Value("i", 0))
        workers = [fork.Process(target=self.work, args=(rank, size, port)) for rank in range(size)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return [worker.exitcode or 0 for worker in workers]

    def work(self, rank: int, size: int, port: int) -> None:
        """One worker."""
        told = {
            "RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size,
            "NODE_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        }  # fmt: skip
        os.environ.update({name: str(value) for name, value in told.items()})
        failed = []

        def call() -> None:
            try:
                self.train_loop_per_worker(self.train_loop_config)
            except Exception as error:
                failed.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        sys.exit(bool(failed))
