"""What a process does in test_sharded.py; each function gives what JSON holds."""

import itertools
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from engine.checkpoint import optimizer_tensors, saved_tensors
from engine.decision import Decision
from engine.evaluate import evaluate
from engine.gradients import own_part
from engine.loop import NonFiniteError
from engine.losses import build_loss
from engine.metrics import build_counter
from engine.sharded import gathered, put_whole, shard_model, through_whole, whole_tensors
from engine.ways import Processes, Sizes, Way, held
from engine.windows import own_micro_batches
from engine.world import world
from tests.engine.conftest import VOCABULARY, build_rig, cut, fp32, make_rows

CASES = list(itertools.product((1, 3, 7), (10, 11), (0.0, 0.3)))  # accumulate, rows, dropout
WAYS = ("full", "grad_op")


class Block(nn.Module):
    """Two products around a bend, a frozen one beside a low-rank one, and the way past them."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)
        self.base = nn.Linear(width, 2 * width).requires_grad_(False)
        self.down = nn.Linear(width, 3, bias=False)
        self.up = nn.Linear(3, 2 * width, bias=False)
        self.out = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        inner = self.base(h.to(self.base.weight.dtype)).to(h.dtype) + self.up(self.down(h))
        return x + self.out(self.dropout(torch.tanh(inner)))


class Deep(nn.Module):
    """Embedding, blocks, mean over the real tokens, head."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 7)  # no width that shards divide
        self.blocks = nn.ModuleList(Block(7, dropout) for _ in range(3))
        self.norm = nn.LayerNorm(7)
        self.head = nn.Linear(7, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embedding(input_ids)  # (B, T, 7)
        for block in self.blocks:
            x = block(x)
        mask = attention_mask.unsqueeze(-1)
        return self.head((self.norm(x) * mask).sum(1) / mask.sum(1))  # (B, 2)


def make_rig(accumulate: int, count: int, dropout: float, how: str | None, **more: Any) -> Any:
    """A rig whose model is in shards as `how` says, or plain."""
    torch.manual_seed(3)
    model = Deep(dropout).double()
    if how is not None:
        blocks = [[block] for block in model.blocks]
        shard_model(model, blocks, torch.device("cpu"), how, compiled=more.pop("compiled", False))
    rig = build_rig(
        model, make_rows(count), micro_batch_size=2, accumulate=accumulate, epochs=1000,
        **{"max_steps": 20, **more},
    )  # fmt: skip
    if how is not None:
        rig.compute_loss = through_whole(rig.compute_loss)
    return rig


def share(rig: Any) -> Any:
    """What fit() takes as batches: this process's own."""

    def batches(epoch: int, start: int) -> Any:
        whole = list(rig.batches(epoch, 0))
        return (whole[number] for number in own_micro_batches(rig.plan, start))

    return batches


def train(accumulate: int, count: int, dropout: float, how: str | None = None) -> dict[str, Any]:
    """Twenty steps in float64 from the same weights; the last micro-batch of an epoch is ragged."""
    rig = make_rig(accumulate, count, dropout, how)
    rig.fit(batches=share(rig))
    tensors = saved_tensors(rig.model) | optimizer_tensors(rig.model, rig.optimizer)
    return {
        "tensors": {name: tensor.tolist() for name, tensor in whole_tensors(tensors)},
        "losses": [result.loss for result in rig.results],
        "norms": [result.grad_norm for result in rig.results],
        "counts": [[result.count, result.tokens] for result in rig.results],
    }


def train_all(how: str | None = None) -> list[dict[str, Any]]:
    """Each of CASES."""
    return [train(*case, how=how) for case in CASES]


def figures(how: str | None = None) -> list[Any]:
    """An evaluation of 23 rows in batches of 4, of which processes have different numbers, and what
    a writer sees of it; and one of less batches than processes."""
    model = make_rig(1, 4, 0.0, how).model
    results = []
    for count in (23, 3):
        seen: list[Any] = []

        def note(batch: Any, logits: Tensor, seen: list[Any] = seen) -> None:
            seen.extend(zip(batch["rows"].tolist(), logits.tolist(), strict=True))

        counter = build_counter(Decision("single"), 2, torch.device("cpu"))
        batches = cut(make_rows(count), 4)[world().share]
        with gathered() if how else nullcontext():
            metrics = evaluate(
                model, batches, build_loss("single")[0], counter, fp32(), note, shared=True
            )
        results.append([metrics, seen])
    return results


def bad_loss(how: str) -> dict[str, Any]:
    """A loss that is no number, of one process alone."""
    rig = make_rig(3, 10, 0.0, how)
    plain = rig.compute_loss

    def compute_loss(model: nn.Module, batch: Any) -> Tensor:
        return plain(model, batch) * (float("nan") if rig.progress.step == 2 else 1.0)

    if world().rank == 1:
        rig.compute_loss = compute_loss
    before = []
    try:
        rig.fit(
            batches=share(rig),
            on_step=lambda *_: before.append(dict(rig.model.state_dict())),
        )
    except NonFiniteError as error:
        message, rows = str(error), error.rows
    kept = whole_tensors(before[-1])
    now = dict(whole_tensors(dict(rig.model.state_dict())))
    return {
        "message": message, "rows": sorted(rows), "steps": rig.progress.step,
        "kept": all(torch.equal(value, now[name]) for name, value in kept),
    }  # fmt: skip


def overflow(how: str) -> dict[str, Any]:
    """fp16, where the gradients of one process alone overflow once."""
    rig = make_rig(3, 10, 0.0, how)
    rig.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    plain, calls = rig.compute_loss, []

    def compute_loss(model: nn.Module, batch: Any) -> Tensor:
        calls.append(1)
        return plain(model, batch) * (1e308 if len(calls) == 1 else 1.0)

    if world().rank == 1:
        rig.compute_loss = compute_loss
    rig.fit(batches=share(rig))
    return {
        "skipped": [result.skipped for result in rig.results],
        "scale": rig.scaler.get_scale(),
        "norms": [result.grad_norm for result in rig.results if not result.skipped],
    }


def settles(how: str) -> bool:
    """After a loss without gradients, as of an estimate, the parameters are the shards again."""
    rig = make_rig(1, 4, 0.0, how)
    with torch.no_grad():
        rig.compute_loss(rig.model, next(rig.batches(0, 0)))
    return all(isinstance(p, DTensor) for p in rig.model.parameters())


def own_bytes(how: str) -> list[int]:
    """What this process has of the weights, and what the arithmetic says, which rounds no shard."""
    model = make_rig(1, 4, 0.0, how).model
    own = sum(own_part(p).nbytes for p in model.parameters())
    every = sum(p.nbytes for p in model.parameters())
    processes = Processes(world().size, world().local_size)
    sizes = Sizes(0, every, 0, 0, 0, 0)
    return [own, held(sizes, Way("fsdp", how), processes, 1).weights]


def restored(how: str) -> bool:
    """What rank 0 brings is, in parts, what all have."""
    rig = make_rig(3, 10, 0.0, how)
    rig.fit(batches=share(rig))
    tensors = saved_tensors(rig.model) | optimizer_tensors(rig.model, rig.optimizer)
    first = {name: value.clone() for name, value in whole_tensors(tensors)}
    for name, tensor in tensors.items():
        put_whole(tensor, torch.zeros_like(first[name]))
    assert not any(value.any() for _, value in whole_tensors(tensors))
    for name, tensor in tensors.items():
        rank0 = world().rank == 0
        put_whole(tensor, first[name] if rank0 else torch.full_like(first[name], torch.nan))
    return all(torch.equal(value, first[name]) for name, value in whole_tensors(tensors))


def half_frozen(how: str | None = None) -> list[float]:
    """The losses with frozen weights in bf16 beside trainable ones in fp32."""
    torch.manual_seed(3)
    model = Deep()
    for block in model.blocks:
        block.base.bfloat16()  # type: ignore[union-attr]
    if how is not None:
        shard_model(model, [[block] for block in model.blocks], torch.device("cpu"), how)
    rig = build_rig(model, make_rows(10), micro_batch_size=2, accumulate=3, epochs=4)
    if how is not None:
        assert model.blocks[0].base.weight.dtype == torch.bfloat16
        rig.compute_loss = through_whole(rig.compute_loss)
    rig.fit(batches=share(rig))
    return [result.loss for result in rig.results]


def compiled(how: str) -> list[float]:
    """The losses where each block is compiled."""
    rig = make_rig(3, 10, 0.0, how, compiled=True, max_steps=4)
    rig.fit(batches=share(rig))
    return [result.loss for result in rig.results]


def everything(how: str | None = None) -> dict[str, Any]:
    """All of it but what is compiled."""
    results = {
        "train": train_all(how), "figures": figures(how), "half": half_frozen(how),
    }  # fmt: skip
    if how is not None:
        results |= {
            "own": own_bytes(how), "settles": settles(how), "bad": bad_loss(how),
            "overflow": overflow(how), "restored": restored(how), "steps": world().lockstep,
        }  # fmt: skip
    return results
