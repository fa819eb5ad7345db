"""What the host itself does in a training step: it has to launch faster than a GPU computes.

    python benchmarks/host_time.py
    python benchmarks/host_time.py --gpu-paths

A model of one layer, eight numbers wide, on three short rows: its arithmetic is nothing, so what a
step takes is Python, torch's dispatch and autograd. Beside it what a batch of 32 long rows takes to
make (reading, padding, layout), which a thread does meanwhile.
"""

import argparse
import cProfile
import pstats
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import child  # noqa: F401  makes the project importable
import torch
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification

from data.loaders import Padding, epoch_order, train_batches
from engine.loop import train_step
from engine.losses import count_items, cross_entropy, loss_from_logits
from engine.optim import Schedule, build_optimizer, parameter_groups
from engine.plan import Plan, Progress
from engine.precision import Precision
from models.fast.speed import SpeedArgs, speed_up
from models.fast.streams import lay_out

CPU = torch.device("cpu")
WIDTH, ROWS, WARM = 8, 3, 20


def tiny_model(gpu_paths: bool) -> torch.nn.Module:
    """One layer, with the fast paths of this machine or those of a GPU."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=100, hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=2 * WIDTH, pad_token_id=0,
    )  # fmt: skip
    model = BertForSequenceClassification(config).train()
    device = torch.device("cuda") if gpu_paths else CPU
    speed_up(model, SpeedArgs(compile=False), device, torch.float32)
    return model


def short_batch() -> dict[str, Any]:
    """Rows of 5, 3 and 2 tokens."""
    mask = (torch.arange(5) < torch.tensor([[5], [3], [2]])).long()
    ids = torch.randint(1, 100, mask.shape) * mask
    labels = torch.tensor([0, 1, 0])
    inputs = {"input_ids": ids, "attention_mask": mask}
    return lay_out({"inputs": inputs, "labels": labels, "items": ROWS, "tokens": 10}, in_front=0)


def step_of(gpu_paths: bool) -> Callable[[], None]:
    """A whole train_step, without waiting for its figures."""
    model, batch = tiny_model(gpu_paths), short_batch()
    precision = Precision(CPU, "", "fp32", "")
    optimizer = build_optimizer(parameter_groups(model, 1e-4, None, set(), 0.01), (0.9, 0.99), 1e-8)
    plan, progress = Plan(0, 1, 1, 1, 1, 1.0, None, None), Progress()
    rest = (
        loss_from_logits(cross_entropy), count_items, optimizer, precision.scaler(),
        Schedule("constant", 1, 0), precision, plan, progress,
    )  # fmt: skip

    def step() -> None:
        train_step(model, [batch], *rest)

    return step


def batch_of() -> Callable[[], Any]:
    """A batch of 32 rows of 240 tokens on its way to the model."""
    rows = [{"input_ids": [7] * 240, "labels": 0, "row": i, "length": 240} for i in range(640)]
    dataset = Dataset.from_list(rows)
    order = epoch_order(len(dataset), 0, 0)
    batches: Iterator[Any] = iter(())

    def make() -> None:
        nonlocal batches
        batch = next(batches, None)
        if batch is None:
            batches = train_batches(dataset, order, range(len(order) // 32), 32, Padding(0))
            batches = (lay_out(batch, in_front=0) for batch in batches)
            next(batches)

    return make


def milliseconds(function: Callable[[], Any], times: int) -> tuple[float, float]:
    """(median, lowest decile) of one call, of this thread's own time: others share the cores."""
    taken = []
    for _ in range(WARM + times):
        start = time.thread_time()
        function()
        taken.append(1e3 * (time.thread_time() - start))
    taken = sorted(taken[WARM:])
    return statistics.median(taken), taken[len(taken) // 10]


def profile(function: Callable[[], Any], times: int) -> str:
    """Where the time goes: the functions with the most time of their own."""
    with cProfile.Profile() as seen:
        for _ in range(times):
            function()
    stats = pstats.Stats(seen).stats  # type: ignore[attr-defined]
    rows = sorted(stats.items(), key=lambda item: -item[1][2])
    total = sum(row[1][2] for row in rows)
    lines = ["| function | share | calls a step |", "| :-- | --: | --: |"]
    for (file, line, name), (_, calls, own, *_) in rows[:15]:
        place = f"{'/'.join(file.split('/')[-2:])}:{line} " if line else ""
        lines.append(f"| {place}{name} | {own / total:.1%} | {calls / times:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gpu-paths", action="store_true", help="with the fast paths of a GPU")
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    step, make = step_of(options.gpu_paths), batch_of()
    rows = [("one step", milliseconds(step, options.steps)), ("one batch", milliseconds(make, 100))]
    print("| what | median ms | lowest decile |\n| :-- | --: | --: |")
    for name, (median, low) in rows:
        print(f"| {name} | {median:.2f} | {low:.2f} |")
    print(f"\nWhere a step goes:\n\n{profile(step, options.steps)}")


if __name__ == "__main__":
    main()
