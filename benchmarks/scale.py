"""How fast several processes train the same steps: on CPUs with gloo, on GPUs with NCCL.

    python benchmarks/scale.py                         1 and 2 processes; of GPUs 1, 2, 4 … all
    python benchmarks/scale.py --processes 1,2,4,8 --config my.toml train.accumulate=32
    python benchmarks/scale.py --quick                 short rows, one round: half a minute

Each number of processes takes the same steps: the same recipe and the same micro-batches, shared
out. In every round each has a turn, in the other order each time, since whoever shares the machine
comes and goes; figures are medians of the rounds. Results: benchmarks/scale/NAME.json and .md.

Time in sums is that of a step's all_reduce: for others that are not there yet, and for the bytes.
"By arithmetic" a rank sends 2 (n-1)/n of its gradients' bytes in a step; the next column is what it
gave to sums. The link is a plain all_reduce of a buffer of the gradients' size, by itself.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from child import ROOT  # makes the project importable
from machine import processor, usable_cores
from scale_tables import page

from files.write import save_text

CHILD = Path(__file__).parent / "scale_child.py"
CONFIG = ROOT / "configs/imdb_quick.toml"
WORDS = ["train.micro_batch_size=4", "train.accumulate=4", "eval.baseline=false"]
WORDS += ["data.subset={ train = 400, validation = 20, test = 20 }"]
QUICK = ["data.max_length=32", "data.subset={ train = 120, validation = 20, test = 20 }"]
WARM_UP = 2  # steps that do not count


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_all(size: int, settings: Mapping[str, Any], seconds: float) -> list[dict[str, Any]]:
    """What each of `size` processes measured, by rank. Raises ValueError with what one says that
    fails."""
    port = free_port()
    command = [sys.executable, str(CHILD), json.dumps(settings)]
    started = []
    for rank in range(size):
        told = {
            "RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size,
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        }  # fmt: skip
        environment = os.environ | {name: str(value) for name, value in told.items()}
        started.append(subprocess.Popen(
            command, cwd=ROOT, env=environment, encoding="utf-8",
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ))  # fmt: skip
    try:
        told_all = [process.communicate(timeout=seconds) for process in started]
    finally:
        for process in started:
            process.kill()
    for rank, (process, (_, errors)) in enumerate(zip(started, told_all, strict=True)):
        if process.returncode:
            raise ValueError(f"rank {rank} of {size} failed:\n{errors[-3000:]}")
    return [json.loads(out.splitlines()[-1]) for out, _ in told_all]


def summarise(ranks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One round of one number of processes: the slowest rank's steps, everybody's waiting."""
    first = ranks[0]
    step = max(rank["seconds"] for rank in ranks) / first["steps"]
    gradients, size = first["gradient_bytes"], len(ranks)
    waits = [rank["waiting"] / rank["steps"] for rank in ranks]
    return {
        "step_s": step,
        "tokens_per_s": first["tokens"] / first["steps"] / step,
        "waiting_s": statistics.mean(waits),
        "longest_waiting_s": max(waits),
        "arithmetic_bytes": 2 * (size - 1) / size * gradients,
        "summed_bytes": max(rank["summed_bytes"] for rank in ranks) / first["steps"],
        "gradient_bytes": gradients,
        "link_s": first["link_s"],
        "device": first["device"],
        "backend": first["backend"],
        "loss": first["loss"],
    }


def measure(sizes: Sequence[int], rounds: int, settings: Mapping[str, Any], limit: float) -> Any:
    """Rounds of each number of processes."""
    measured: dict[int, list[dict[str, Any]]] = {size: [] for size in sizes}
    for number in range(rounds):
        # turned round each time, so that a machine that slows down favours nobody
        for size in sizes if number % 2 == 0 else sizes[::-1]:
            row = summarise(start_all(size, settings, limit))
            row["load"] = os.getloadavg()[0]
            measured[size].append(row)
            print(f"round {number + 1}, {size} processes: {1 / row['step_s']:.2f} steps/s, "
                  f"{row['waiting_s']:.3f} s of a step in sums", flush=True)  # fmt: skip
    losses = [row["loss"] for rows in measured.values() for row in rows]
    if max(losses) - min(losses) > 1e-3 * abs(max(losses)):
        raise ValueError(f"the processes did not train the same steps: last losses {losses}")
    return measured


def usual_sizes() -> list[int]:
    """1, 2, 4 … up to the GPUs of this machine; 1 and 2 on a CPU."""
    import torch

    most = torch.cuda.device_count() or 2
    return [2**power for power in range(most.bit_length()) if 2**power <= most]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--config", type=Path, default=CONFIG, help="the recipe")
    parser.add_argument("--processes", help="numbers of processes: 1,2,4")
    parser.add_argument("--strategy", help="ddp or fsdp, as parallel.strategy of the recipe")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="that count, after a warm-up of 2")
    parser.add_argument("--limit", type=float, default=900, help="seconds for a start")
    parser.add_argument("--name", default="results", help="of the files in benchmarks/scale/")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "scale")
    parser.add_argument(
        "--quick", action="store_true", help="short rows, one round, three steps; no files"
    )
    options = parser.parse_intermixed_args()
    try:
        sizes = [int(n) for n in options.processes.split(",")] if options.processes else None
    except ValueError:
        parser.error(f"--processes is {options.processes!r}; expected integers: 1,2,4")
    if options.quick:
        options.rounds, options.steps = 1, 3
    with tempfile.TemporaryDirectory() as folder:
        words = WORDS + (QUICK if options.quick else []) + options.overrides
        if options.strategy:
            words.append(f"parallel.strategy={options.strategy}")
        settings = {
            "config": str(options.config), "steps": options.steps, "warm_up": WARM_UP,
            "words": [*words, f"train.max_steps={options.steps + WARM_UP}", f"run.dir={folder}"],
        }  # fmt: skip
        measured = measure(sizes or usual_sizes(), options.rounds, settings, options.limit)
    result = {
        "command": ["python", "benchmarks/scale.py", *sys.argv[1:]],
        "machine": {"processor": processor(), "cores": usable_cores()},
        "recipe": [options.config.name, *words],
        "steps": options.steps, "rounds": {str(size): rows for size, rows in measured.items()},
    }  # fmt: skip
    print("\n" + page(result))
    if not options.quick:
        options.out.mkdir(parents=True, exist_ok=True)
        save_text(options.out / f"{options.name}.json", json.dumps(result, indent=1) + "\n")
        save_text(options.out / f"{options.name}.md", page(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
