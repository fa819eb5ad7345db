"""One step over k micro-batches is one step over the concatenated batch."""

import math

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from engine.losses import IGNORE, build_loss, cross_entropy, loss_from_logits
from engine.optim import set_learning_rate
from engine.targets import Target

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def tiny_bert():
    config = BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=48, max_position_embeddings=16, num_labels=3,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def tiny_distilbert():
    config = DistilBertConfig(
        vocab_size=40, dim=32, n_layers=2, n_heads=2, hidden_dim=48,
        max_position_embeddings=16, num_labels=3,
    )  # fmt: skip
    return DistilBertForSequenceClassification(config)


def tiny_gpt2():
    config = GPT2Config(
        vocab_size=40, n_embd=32, n_layer=2, n_head=2, n_positions=16,
        num_labels=3, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return GPT2ForSequenceClassification(config)


def one_step(make_rig, model, micro_batches, compute_loss=None, max_grad_norm=0.5):
    """Loss, gradient norm, gradients as seen by the optimizer, weights after one SGD step."""
    model = model.double().eval()  # eval mode: no dropout
    rig = make_rig(model, sgd=True, lr=0.1, max_grad_norm=max_grad_norm, compute_loss=compute_loss)
    gradients = {}
    rig.optimizer.register_step_pre_hook(
        lambda *_: gradients.update({n: p.grad.clone() for n, p in model.named_parameters()})
    )
    result = rig.step(micro_batches)
    return result, gradients, rig.weights()


def check_same_step(one, many):
    (result_one, gradients_one, weights_one), (result_many, gradients_many, weights_many) = (
        one,
        many,
    )
    assert result_many.loss == pytest.approx(result_one.loss, abs=1e-10)
    assert result_many.grad_norm == pytest.approx(result_one.grad_norm, abs=1e-10)
    assert (result_many.count, result_many.tokens) == (result_one.count, result_one.tokens)
    torch.testing.assert_close(gradients_many, gradients_one, **EXACT)
    torch.testing.assert_close(weights_many, weights_one, **EXACT)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("build", [tiny_bert, tiny_distilbert, tiny_gpt2])
def test_k_micro_batches_are_one_batch(make_rig, build, size):
    rows = make_rig.rows(7, num_labels=3, vocabulary=40)  # 4 + 3, 2 + 2 + 2 + 1: a ragged tail
    torch.manual_seed(0)
    model = build()
    start = {n: t.clone() for n, t in model.state_dict().items()}
    one = one_step(make_rig, model, [rows])
    model.load_state_dict(start)
    check_same_step(one, one_step(make_rig, model, make_rig.cut(rows, size)))
    assert one[0].loss == pytest.approx(math.log(3), abs=0.2)  # not k times as much
    assert one[0].count == 7


@pytest.mark.parametrize("build", [tiny_bert, tiny_distilbert, tiny_gpt2])
def test_the_loss_is_the_stock_models_own(make_rig, build):
    rows = make_rig.rows(7, num_labels=3, vocabulary=40)
    torch.manual_seed(0)
    model = build().double().eval()
    with torch.no_grad():
        stock = model(**rows["inputs"], labels=rows["labels"]).loss.item()
    result, _, _ = one_step(make_rig, model, make_rig.cut(rows, 2))
    assert result.loss == pytest.approx(stock, abs=1e-10)


class Tagger(nn.Module):
    """Logits (B, T, C) for every token."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.out = nn.Linear(8, 4)

    def forward(self, input_ids, attention_mask):
        return self.out(self.embedding(input_ids))


def test_ragged_token_counts_weigh_every_token_the_same(make_rig):
    rows = make_rig.rows(7)
    ids = rows["inputs"]["input_ids"]
    rows["labels"] = torch.where(rows["inputs"]["attention_mask"] == 1, ids % 4, IGNORE)
    rows["labels"][2, 1:] = IGNORE  # micro-batches with unlike numbers of learned tokens
    torch.manual_seed(0)
    model = Tagger()
    start = {n: t.clone() for n, t in model.state_dict().items()}
    one = one_step(make_rig, model, [rows])
    assert one[0].count == int((rows["labels"] != IGNORE).sum()) < rows["tokens"]
    model.load_state_dict(start)
    many = one_step(make_rig, model, make_rig.cut(rows, 2))
    check_same_step(one, many)
    logits = model.load_state_dict(start) and model(**rows["inputs"])
    mean = nn.functional.cross_entropy(logits.flatten(0, 1), rows["labels"].flatten())
    assert many[0].loss == pytest.approx(mean.item(), abs=1e-10)


def test_class_weights_and_label_smoothing_accumulate_exactly(make_rig):
    rows = make_rig.rows(7, num_labels=3, vocabulary=40)
    torch.manual_seed(0)
    model = tiny_distilbert()
    start = {n: t.clone() for n, t in model.state_dict().items()}
    loss = loss_from_logits(build_loss("single", [0.5, 1.0, 2.5], label_smoothing=0.1)[0])
    one = one_step(make_rig, model, [rows], loss)
    model.load_state_dict(start)
    check_same_step(one, one_step(make_rig, model, make_rig.cut(rows, 3), loss))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("multi", {}),
        ("multi", {"class_weights": [0.5, 1.0, 9.0]}),
        ("regression", {}),
        ("regression", {"target": Target(0.4, 0.003)}),
    ],
)
def test_losses_of_floating_labels_accumulate_exactly(make_rig, kind, options):
    rows = make_rig.rows(7)
    shape = (7, 3) if kind == "multi" else (7,)
    rows["labels"] = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(1)).float()
    torch.manual_seed(0)
    model = Tagger()
    model.out = nn.Linear(8, 3 if kind == "multi" else 1)
    model = nn.Sequential(model)
    start = {n: t.clone() for n, t in model.state_dict().items()}
    loss_fn, _ = build_loss(kind, **options)

    def compute_loss(module, batch):  # the mean over tokens as the logits of a row
        return loss_fn(module[0](**batch["inputs"]).mean(1), batch["labels"])

    one = one_step(make_rig, model, [rows], compute_loss)
    model.load_state_dict(start)
    check_same_step(one, one_step(make_rig, model, make_rig.cut(rows, 2), compute_loss))


def test_clipping_acts_on_the_window_not_on_its_micro_batches(make_rig):
    rows = make_rig.rows(7)
    model = make_rig.toy()
    result, gradients, _ = one_step(make_rig, model, make_rig.cut(rows, 2), max_grad_norm=0.01)
    clipped = math.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
    assert result.grad_norm > 0.01  # logged before clipping
    assert clipped == pytest.approx(0.01, rel=1e-3)


def test_no_clipping_leaves_the_gradient_alone(make_rig):
    result, gradients, _ = one_step(
        make_rig, make_rig.toy(), [make_rig.rows(5)], max_grad_norm=None
    )
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
    assert result.grad_norm == pytest.approx(norm, abs=1e-12)


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 4), (2, 2), (3, 2), (4, 1), (9, 1)])
def test_an_epoch_takes_ceil_batches_over_k_steps_and_every_row_once(make_rig, accumulate, steps):
    rig = make_rig(accumulate=accumulate, epochs=3)  # 11 rows in 4 micro-batches
    rig.fit()
    assert rig.plan.total_steps == rig.progress.step == len(rig.results) == 3 * steps
    for epoch in range(3):
        rows = [row for batch in rig.seen[4 * epoch : 4 * epoch + 4] for row in batch]
        assert sorted(rows) == list(range(11))
    assert sum(result.count for result in rig.results) == 33


def test_the_last_window_is_normalised_by_its_own_count(make_rig):
    rig = make_rig(make_rig.toy(dropout=0.0), accumulate=3, epochs=1)  # windows of 9 and 2 rows
    rig.model.batch_norm = nn.Identity()
    windows: dict[int, list] = {}

    def compute_loss(model, batch):
        logits = model(**batch["inputs"])
        windows.setdefault(rig.progress.step, []).append((logits.detach(), batch["labels"]))
        return cross_entropy(logits, batch["labels"])

    rig.compute_loss = compute_loss
    rig.fit()
    assert [result.count for result in rig.results] == [9, 2]
    for result, window in zip(rig.results, windows.values(), strict=True):
        logits, labels = (torch.cat(parts) for parts in zip(*window, strict=True))
        mean = nn.functional.cross_entropy(logits, labels).item()
        assert result.loss == pytest.approx(mean, rel=1e-5)


def test_max_steps_cuts_a_run_short(make_rig):
    rig = make_rig(epochs=5, max_steps=3)
    rig.fit()
    assert rig.progress.step == rig.plan.total_steps == 3


def test_the_rate_is_set_before_each_step(make_rig):
    rig = make_rig(epochs=2)
    rig.schedule = type(rig.schedule)("linear", rig.plan.total_steps, 1)
    rig.fit()
    assert rig.rates == pytest.approx([0.01 * rig.schedule.factor(step) for step in range(4)])
    assert set_learning_rate(rig.optimizer, rig.schedule, 4) == 0.0
