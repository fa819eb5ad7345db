"""What a process does in test_world.py; each function gives what JSON holds."""

import hashlib
import itertools
import time
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from engine.decision import Decision
from engine.evaluate import evaluate
from engine.evaluate_tokens import evaluate_tokens
from engine.gradients import sum_gradients
from engine.losses import build_loss
from engine.metrics import build_counter
from engine.stop import Stopped
from engine.store import open_store
from engine.windows import own_micro_batches
from engine.world import gather, in_order, join, leave, world
from tests.engine.conftest import Toy, build_rig, cut, fp32, make_rows

CASES = list(itertools.product((1, 3, 7), (10, 11), (0.0, 0.3)))  # accumulate, rows, dropout


class Plain(Toy):
    """Without the norm over a batch, whose averages each process would have of its own rows."""

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        mask = attention_mask.unsqueeze(-1)  # (B, T, 1)
        pooled = (self.embedding(input_ids) * mask).sum(1) / mask.sum(1)  # (B, 8)
        return self.classifier(self.norm(torch.tanh(self.hidden(self.dropout(pooled)))))


def train(accumulate: int, count: int, dropout: float) -> dict[str, Any]:
    """Twenty steps in float64 from the same weights; the last micro-batch of an epoch is ragged."""
    torch.manual_seed(3)
    model = Plain(dropout).double()
    del model.batch_norm
    model.embedding.weight.requires_grad_(dropout > 0)  # frozen and trainable ones
    rig = build_rig(
        model, make_rows(count), micro_batch_size=2, accumulate=accumulate, epochs=1000,
        max_steps=20,
    )  # fmt: skip
    every = rig.batches

    def batches(epoch: int, start: int) -> Any:
        whole = list(every(epoch, 0))
        return (whole[number] for number in own_micro_batches(rig.plan, start))

    rig.fit(batches=batches)
    return {
        "weights": {name: tensor.tolist() for name, tensor in rig.weights().items()},
        "losses": [result.loss for result in rig.results],
        "norms": [result.grad_norm for result in rig.results],
        "counts": [[result.count, result.tokens] for result in rig.results],
    }


def train_all() -> list[dict[str, Any]]:
    """Each of CASES; the weights of all ranks are the same bits."""
    results = [train(*case) for case in CASES]
    digest = hashlib.sha256(repr(results).encode()).hexdigest()
    assert len(set(gather(digest))) == 1
    return results


def figures() -> list[Any]:
    """An evaluation of 23 rows in batches of 4, and what a writer sees of it."""
    torch.manual_seed(3)
    model, seen = Plain().eval(), []
    batches = cut(make_rows(23), 4)[world().share]
    counter = build_counter(Decision("single"), 2, torch.device("cpu"))

    def note(batch: Any, logits: Any) -> None:
        seen.extend(zip(batch["rows"].tolist(), logits.tolist(), strict=True))

    loss_fn = build_loss("single")[0]
    metrics = evaluate(model, batches, loss_fn, counter, fp32(), note, shared=True)
    return [metrics, seen]


def sum_some() -> dict[str, Any]:
    """Gradients after sum_gradients, of one parameter that all ranks have one of, rank 0 alone, and
    nobody."""
    every, first, none = (torch.nn.Parameter(torch.zeros(3)) for _ in range(3))
    every.grad = torch.ones(3)
    if world().rank == 0:
        first.grad = torch.ones(3)
    loss = sum_gradients([every, first, none], [torch.tensor(0.5)], torch.device("cpu"))
    gradients = {"all": every.grad, "first": first.grad, "none": none.grad}
    means = {name: None if grad is None else grad.mean().item() for name, grad in gradients.items()}
    return {**means, "loss": loss.item()}


def stopped_pass() -> dict[str, Any]:
    """A pass of several rounds in which rank 1 is stopped in the second."""

    def own() -> Iterator[int]:
        yield world().rank
        if world().rank == 1:
            raise Stopped(15)
        yield world().rank

    seen = []
    try:
        for item in in_order(own()):
            seen.append(item)
    except Stopped as stopped:
        return {"seen": seen, "signal": stopped.signal}
    return {"seen": seen, "signal": None}


def token_figures() -> dict[str, Any]:
    """An evaluation of a language model, in batches of unequal length."""
    torch.manual_seed(3)
    model, head = nn.Embedding(20, 8), nn.Linear(8, 20)
    batches = []
    for number in range(5):
        ids = torch.randint(0, 20, (2, 4 + number))
        batches.append({
            "inputs": {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
            "labels": ids.roll(-1, 1), "rows": torch.tensor([2 * number, 2 * number + 1]),
        })  # fmt: skip
    layer = SimpleNamespace(weight=head.weight, bias=head.bias, softcap=None, scale=1.0)
    return evaluate_tokens(
        model, batches[world().share], lambda model, inputs: model(inputs["input_ids"]),
        lambda model: layer, fp32(), shared=True,
    )  # fmt: skip


def everything() -> dict[str, Any]:
    """All of it, in one start of a process; what needs several gives nothing in one."""
    alone = world().alone
    return {
        "train": train_all(),
        "figures": figures(),
        "tokens": token_figures(),
        "sums": None if alone else sum_some(),
        "stopped": None if alone else stopped_pass(),
    }


def joined_again() -> list[int]:
    """Who is there when those that were through with one run come together for the next, rank 0
    later than the others."""
    rank = world().rank
    kept = open_store(rank, "kept")  # as torchrun keeps it
    leave()
    if rank == 0:
        time.sleep(2)
    join(timedelta(seconds=20), "cpu")
    kept.set(str(rank), "")
    return gather(world().rank)
