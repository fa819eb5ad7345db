"""What a process does in test_stock_parallel.py, the stock Trainer's and ours; each function gives
what JSON holds."""

import tempfile
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
)

from engine.decision import Decision
from engine.evaluate import evaluate
from engine.losses import Batch, build_loss
from engine.metrics import build_counter
from engine.windows import own_micro_batches
from engine.world import world
from tests.engine.conftest import build_rig, cut, fp32

SIZE, MICRO_BATCHES = 2, 6  # of a step, of all processes: room for 12 rows
LEARNED = (9, 1, 7, 2, 8, 1, 6, 3, 9, 2, 1, 5)  # tokens of each conversation that are learned


def classifier() -> nn.Module:
    """A random BERT in float64, without dropout."""
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=48, max_position_embeddings=16, num_labels=3,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertForSequenceClassification(config).double()


def decoder() -> nn.Module:
    """A random Llama in float64."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=48, max_position_embeddings=16,
    )  # fmt: skip
    return LlamaForCausalLM(config).double()


def texts(count: int) -> list[dict[str, Tensor]]:
    """Rows of a classifier; the first token of each is its number."""
    torch.manual_seed(5)
    ids = torch.randint(12, 40, (12, 8))[:count]
    ids[:, 0] = torch.arange(count)
    return [{"input_ids": row, "labels": torch.tensor(i % 3)} for i, row in enumerate(ids)]


def chats(count: int) -> list[dict[str, Tensor]]:
    """Rows of a language model, of which each learns another number of tokens."""
    rows = []
    for row, learned in zip(texts(count), LEARNED, strict=False):
        ids = torch.cat([row["input_ids"], row["input_ids"]])
        labels = torch.where(torch.arange(16) >= 16 - learned, ids, -100)
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def loss_sum(model: nn.Module, rows: list[dict[str, Tensor]]) -> tuple[Tensor, int]:
    """The sum of the losses of what is learned, and how many that are."""
    ids = torch.stack([row["input_ids"] for row in rows])
    labels = torch.stack([row["labels"] for row in rows])
    logits = model(input_ids=ids).logits
    if labels.dim() == 2:  # what follows each position
        logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    return F.cross_entropy(logits, labels, reduction="sum"), int((labels != -100).sum())


def gradient_of(model: nn.Module, rows: list[dict[str, Tensor]]) -> Tensor:
    """The gradient of the mean over all that is learned, in one piece."""
    total, count = loss_sum(model, rows)
    (total / count).backward()
    gradient = torch.cat([p.grad.flatten() for p in trained(model)])
    model.zero_grad(set_to_none=True)
    return gradient


def trained(model: nn.Module) -> list[Any]:
    return [p for p in model.parameters() if p.requires_grad]


def flat(model: nn.Module) -> Tensor:
    """All weights, a copy."""
    return torch.cat([p.detach().flatten() for p in trained(model)])


def beside(moved: Tensor, truth: Tensor) -> dict[str, float]:
    """How far a step went from the true gradient, and how many times as far along it."""
    return {
        "off": float((moved - truth).norm() / truth.norm()),
        "times": float((moved @ truth) / (truth @ truth)),
    }


def build_trainer(model: nn.Module, rows: list[Any], folder: str, **settings: Any) -> Trainer:
    """The stock Trainer with plain SGD at rate 1: one step moves the weights by the gradient."""
    several = MICRO_BATCHES // world().size  # of this process
    given: dict[str, Any] = {
        "output_dir": folder, "use_cpu": True, "report_to": [], "save_strategy": "no",
        "disable_tqdm": True, "num_train_epochs": 1, "per_device_train_batch_size": SIZE,
        "per_device_eval_batch_size": SIZE, "gradient_accumulation_steps": several,
        "max_grad_norm": 0.0, "train_sampling_strategy": "sequential", "logging_strategy": "no",
    }  # fmt: skip
    arguments = TrainingArguments(**given | settings)
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    constant = torch.optim.lr_scheduler.LambdaLR(sgd, lambda step: 1.0)
    return Trainer(
        model=model, args=arguments, train_dataset=rows, eval_dataset=rows,
        optimizers=(sgd, constant),
    )  # fmt: skip


def stock_step(model: nn.Module, rows: list[Any], **settings: Any) -> dict[str, Any]:
    """An epoch of one step, and the rows this process saw."""
    truth, before, seen = gradient_of(model, rows), flat(model), []
    hook = model.register_forward_pre_hook(
        lambda _, words, named: seen.extend(named["input_ids"][:, 0].tolist()), with_kwargs=True
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(model, rows, folder, **settings)
        trainer.train()
    hook.remove()
    assert trainer.state.global_step == 1
    return {"seen": seen, **beside(before - flat(model), truth)}


def stock_scores(model: nn.Module, rows: list[Any]) -> dict[str, Any]:
    """An evaluation and predictions of all rows."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(model, rows, folder)
        answers = trainer.predict(rows)
        loss = trainer.evaluate()["eval_loss"]
    return {"loss": loss, "answers": len(answers.predictions)}


def as_batch(rows: list[dict[str, Tensor]]) -> Batch:
    """All rows as ours; a language model's labels are shifted, as data/ does it."""
    ids = torch.stack([row["input_ids"] for row in rows])
    labels = torch.stack([row["labels"] for row in rows])
    if labels.dim() == 2:
        labels = F.pad(labels[:, 1:], (0, 1), value=-100)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {"inputs": inputs, "labels": labels, "rows": torch.arange(len(ids)), "tokens": 0}


def our_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The sum over what is learned."""
    logits, labels = model(**batch["inputs"]).logits, batch["labels"]
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="sum")


def our_step(model: nn.Module, rows: list[Any]) -> dict[str, Any]:
    """The same step by engine/loop.py."""
    truth, before = gradient_of(model, rows), flat(model)
    rig = build_rig(
        model, as_batch(rows), micro_batch_size=SIZE, accumulate=MICRO_BATCHES, epochs=1,
        max_grad_norm=None, lr=1.0, sgd=True, compute_loss=our_loss,
    )  # fmt: skip
    for group in rig.optimizer.param_groups:
        group["weight_decay"] = 0.0
    every, seen = cut(rig.rows, SIZE), []

    def batches(epoch: int, start: int) -> Any:
        for number in own_micro_batches(rig.plan, start):
            seen.extend(every[number]["rows"].tolist())
            yield every[number]

    rig.fit(batches=batches)
    return {"seen": seen, **beside(before - flat(model), truth)}


def our_scores(model: nn.Module, rows: list[Any]) -> dict[str, Any]:
    """The same evaluation by engine/evaluate.py."""
    batches = cut(as_batch(rows), SIZE)[world().share]
    counter = build_counter(Decision("single"), 3, torch.device("cpu"))
    seen: list[int] = []
    metrics = evaluate(
        model.eval(), batches, build_loss("single")[0], counter, fp32(),
        lambda batch, logits: seen.extend(batch["rows"].tolist()), shared=True,
    )  # fmt: skip
    return {"loss": metrics["loss"], "answers": len(seen)}


def everything() -> dict[str, Any]:
    """All of it, in one start of a process."""
    loss, count = loss_sum(classifier().eval(), texts(11))
    return {
        "loss": float(loss / count),
        "stock": {
            "classes": stock_step(classifier(), texts(12)),
            "classes, a tail": stock_step(classifier(), texts(11)),
            "chats": stock_step(decoder(), chats(12)),
            "chats, a tail": stock_step(decoder(), chats(11)),
            "chats, each its mean": stock_step(
                decoder(), chats(12), average_tokens_across_devices=False
            ),
            "scores": stock_scores(classifier(), texts(11)),
        },
        "ours": {
            "classes": our_step(classifier(), texts(12)),
            "classes, a tail": our_step(classifier(), texts(11)),
            "chats": our_step(decoder(), chats(12)),
            "chats, a tail": our_step(decoder(), chats(11)),
            "scores": our_scores(classifier(), texts(11)),
        },
    }
