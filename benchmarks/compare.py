"""Training speed side by side: openloop and the stock Trainer with PEFT, on the same rows.

    python benchmarks/compare.py                  five windows of 60 s each
    python benchmarks/compare.py --rounds 3 --seconds 20

Each contestant trains in a process of its own; they take turns, one window at a time, so that a
machine whose speed drifts slows both. The figure to quote is the median of the rounds' ratios.
Needs the development extras (peft, accelerate). Writes benchmarks/results.json and results.md.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NAMES = ("openloop", "stock")
CONFIG = HERE.parent / "configs" / "imdb_lora.toml"
# one task for both: the default model's own dropout, rank 8 on query and value, batch 16, 256
TASK = [
    "data.max_length=256", "data.truncation=right", "train.epochs=50", "train.micro_batch_size=16",
    'lora.targets=["query", "value"]', "lora.rank=8", "precision.dtype=fp32",
    "precision.device=cpu", "data.subset={train = 4000, validation = 100, test = 100}",
]  # fmt: skip
DROPOUTS = {"dropout as published (0.1)": "model.dropout=0.1", "dropout 0": "model.dropout=0.0"}


class Contestant:
    """A child process that trains when asked."""

    def __init__(self, name: str, overrides: list[str]):
        command = [sys.executable, str(HERE / "contestants.py"), name, str(CONFIG), *overrides]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        self.read()

    def read(self) -> dict:
        """The child's next answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a contestant ended early: {self.process.args}")
        return json.loads(line)

    def train(self, seconds: float) -> dict:
        """One window."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return self.read()

    def close(self) -> None:
        """An empty line ends it."""
        self.process.kill()
        self.process.wait()


def compare(task: str, overrides: list[str], rounds: int, seconds: float) -> dict:
    """Windows of both contestants in turn, after one short window each to warm up."""
    contestants = {name: Contestant(name, overrides) for name in NAMES}
    try:
        for contestant in contestants.values():
            contestant.train(min(seconds, 5))
        windows: dict[str, list[dict]] = {name: [] for name in NAMES}
        for number in range(rounds):
            for name, contestant in contestants.items():
                windows[name].append(contestant.train(seconds))
            speeds = {name: windows[name][-1] for name in NAMES}
            shown = ", ".join(
                f"{name} {w['tokens'] / w['seconds']:,.0f} tokens/s" for name, w in speeds.items()
            )
            print(f"{task}, round {number + 1}: {shown}", flush=True)
    finally:
        for contestant in contestants.values():
            contestant.close()
    return summarise(task, windows)


def summarise(task: str, windows: dict[str, list[dict]]) -> dict:
    """Medians of the windows, and the median of the rounds' ratios."""
    speed = {n: [w["tokens"] / w["seconds"] for w in ws] for n, ws in windows.items()}
    ratios = [a / b for a, b in zip(speed["openloop"], speed["stock"], strict=True)]
    return {
        "task": task,
        "tokens_per_s": {name: statistics.median(values) for name, values in speed.items()},
        "peak": {name: ws[-1]["peak"] for name, ws in windows.items()},
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "windows": windows,
    }


def table(results: list[dict], command: str) -> str:
    """Markdown for benchmarks/results.md."""
    import torch
    import transformers

    lines = [
        f"`{command}` on {os.cpu_count()} CPU cores ({platform.machine()}, "
        f"{torch.backends.cpu.get_cpu_capability()}), torch {torch.__version__}, transformers "
        f"{transformers.__version__}. fp32, LoRA rank 8 on query and value, batch 16, 256 tokens.",
        "",
        "| task | openloop tokens/s | stock Trainer + PEFT | ratio (lowest to highest round) | "
        "peak memory |",
        "| :-- | --: | --: | --: | --: |",
    ]
    for r in results:
        fast, stock = r["tokens_per_s"]["openloop"], r["tokens_per_s"]["stock"]
        peaks = r["peak"]["openloop"] / r["peak"]["stock"]
        lines.append(
            f"| {r['task']} | {fast:,.0f} | {stock:,.0f} | {r['ratio']:.2f} "
            f"({r['ratio_low']:.2f} to {r['ratio_high']:.2f}) | {peaks:.2f}x |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of a window")
    options = parser.parse_args()
    results = [
        compare(task, [*TASK, dropout], options.rounds, options.seconds)
        for task, dropout in DROPOUTS.items()
    ]
    command = " ".join(["python benchmarks/compare.py", *sys.argv[1:]])
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "results.md").write_text(table(results, command))
    print("\n" + table(results, command))


if __name__ == "__main__":
    main()
