"""Side by side with the stock Trainer of transformers: our loop must train the same model."""

from copy import deepcopy

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from engine.optim import Schedule, build_optimizer, parameter_groups, warmup_steps

STEPS, SIZE = 20, 4


@pytest.fixture(scope="module")
def stock_model():
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=48, max_position_embeddings=16, num_labels=3,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def build_trainer(model, rows, folder):
    """The Trainer over the rows in their own order, its log kept."""
    rows_list = [
        {**{k: v[i] for k, v in rows["inputs"].items()}, "labels": rows["labels"][i]}
        for i in range(len(rows["labels"]))
    ]
    arguments = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
        num_train_epochs=2, per_device_train_batch_size=SIZE, gradient_accumulation_steps=1,
        learning_rate=3e-3, weight_decay=0.1, max_grad_norm=0.5, lr_scheduler_type="linear",
        warmup_steps=3, logging_steps=1, logging_nan_inf_filter=False, optim="adamw_torch",
        train_sampling_strategy="sequential",
    )  # fmt: skip
    return Trainer(model=model, args=arguments, train_dataset=rows_list)


def test_twenty_steps_match_the_stock_trainer(make_rig, stock_model, tmp_path):
    rows = make_rig.rows(SIZE * STEPS // 2, num_labels=3, vocabulary=40)
    theirs, ours = deepcopy(stock_model), deepcopy(stock_model)
    trainer = build_trainer(theirs, rows, tmp_path)
    trainer.train()
    logged = [line for line in trainer.state.log_history if "grad_norm" in line]

    rig = make_rig(ours, rows, micro_batch_size=SIZE, accumulate=1, epochs=2, max_grad_norm=0.5)
    rig.optimizer = build_optimizer(
        parameter_groups(ours, 3e-3, None, set(), weight_decay=0.1), (0.9, 0.999), 1e-8
    )
    rig.schedule = Schedule("linear", STEPS, warmup_steps(3, STEPS))
    rig.fit(batches=lambda epoch, start: make_rig.cut(rows, SIZE)[start:])

    assert len(rig.results) == len(logged) == STEPS
    for result, rate, line in zip(rig.results, rig.rates, logged, strict=True):
        assert result.loss == pytest.approx(line["loss"], abs=1e-5)
        assert result.grad_norm == pytest.approx(line["grad_norm"], abs=1e-4)
        assert rate == pytest.approx(line["learning_rate"], abs=1e-12)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=1e-5)
    moved = (ours.classifier.weight - stock_model.classifier.weight).abs().max()
    assert moved > 1e-2  # the comparison above is not one of standing still


def test_decayed_parameters_are_the_stock_trainers(stock_model, tmp_path):
    names = {p: name for name, p in stock_model.named_parameters()}
    groups = parameter_groups(stock_model, 1e-3, None, set(), weight_decay=0.1)
    decayed = {names[p] for g in groups if g["weight_decay"] for p in g["params"]}
    trainer = Trainer.__new__(Trainer)  # the method reads nothing of the trainer
    assert decayed == set(trainer.get_decay_parameter_names(stock_model))
