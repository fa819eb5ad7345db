"""Ray Train: a process for each of its workers, started again where one is lost.

    python docs/launch/ray_train.py --workers 16 configs/imdb_lora.toml train.accumulate=16

Needs Ray 2.51 or newer (`pip install "ray[default,train]"`) on every machine. All see this folder,
the model, the data and the run's folder (run.dir). The same line starts a run and goes on with it.
"""

import argparse
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import TorchTrainer

ROOT = str(Path(__file__).resolve().parents[2])


def train_along(settings: dict[str, Any]) -> None:
    """One process of the run. The trainer has set RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE
    and MASTER_ADDR; MASTER_PORT is taken by its own process group, so rank 0 chooses another.

    A process of its own: a run hears signals, which Python allows in a main thread alone, and Ray's
    workers call this in another. It is killed with the worker (setpriv, of util-linux), else it
    would keep the run's folder from the next attempt.
    """
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = broadcast_from_rank_zero(probe.getsockname()[1])
    command = ["setpriv", "--pdeathsig", "KILL", sys.executable, "train.py", *settings["words"]]
    environment = os.environ | {"MASTER_PORT": str(port)}
    subprocess.run(command, cwd=settings["folder"], env=environment, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train with Ray Train.")
    parser.add_argument("--workers", type=int, required=True, help="processes in all")
    parser.add_argument("--cpu", action="store_true", help="without GPUs")
    parser.add_argument("--failures", type=int, default=10, help="attempts after the first")
    parser.add_argument("config", help="the recipe, then what train.py takes too")
    options, words = parser.parse_known_args()
    words = ["--config", options.config, *words, "--resume"]
    TorchTrainer(
        train_along,
        train_loop_config={"words": words, "folder": ROOT},
        scaling_config=ScalingConfig(num_workers=options.workers, use_gpu=not options.cpu),
        run_config=RunConfig(failure_config=FailureConfig(max_failures=options.failures)),
    ).fit()


if __name__ == "__main__":
    main()
