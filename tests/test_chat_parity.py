"""Training on conversations, held against the stock Trainer, against a row for each conversation,
and against one batch of all."""

from copy import deepcopy

import datasets
import pytest
import torch
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)

from data.chat.batches import collate_chats
from data.chat.encode import ChatEncoding, encode_chats
from data.chat.packing import pack_chats
from data.encode import Encoded
from data.loaders import Padding
from engine.losses import IGNORE
from engine.optim import Schedule, build_optimizer, parameter_groups
from job.chatting.loss import chat_loss, learned_states
from tests.engine.conftest import build_rig

STEPS, SIZE, ACCUMULATE = 20, 4, 2
VOCABULARY, END = 60, 2
PADDING = Padding(pad_id=END)  # so that EOS pads, as in most chat models
ROTARY = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip
KINDS = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "resid_pdrop": 0.0,
             "embd_pdrop": 0.0, "attn_pdrop": 0.0, "initializer_range": 0.3},
    "llama": ROTARY,
    "qwen2": ROTARY | {"tie_word_embeddings": True},
}  # fmt: skip


def make_model(kind, dtype=torch.float32):
    """A tiny random language model."""
    torch.manual_seed(3)
    config = AutoConfig.for_model(
        kind, vocab_size=VOCABULARY, bos_token_id=END, eos_token_id=END, **KINDS[kind]
    )
    return AutoModelForCausalLM.from_config(config).to(dtype)


def make_chats(count, longest=16):
    """Encoded conversations of unlike lengths, with unlike numbers of learned tokens."""
    draw = torch.Generator().manual_seed(1)
    rows = []
    for number in range(count):
        size = int(torch.randint(4, longest + 1, (), generator=draw))
        ids = torch.randint(3, VOCABULARY, (size,), generator=draw)
        labels = torch.full((size,), IGNORE)
        first = int(torch.randint(0, size - 1, (), generator=draw))
        labels[first : size - 1] = ids[first + 1 :]  # one token, or up to all but the first
        labels[-2] = ids[-1] = END
        rows.append(
            {"input_ids": ids.tolist(), "labels": labels.tolist(), "row": number, "length": size}
        )
    return rows


def pieces(rows, size):
    """Micro-batches of so many rows."""
    return [collate_chats(rows[i : i + size], PADDING) for i in range(0, len(rows), size)]


def stock_rows(rows):
    """The same rows as transformers takes them, which shifts labels itself."""
    return datasets.Dataset.from_list(
        [{"input_ids": r["input_ids"], "labels": [IGNORE, *r["labels"][:-1]]} for r in rows]
    )


def exact_loss(outputs, labels, num_items_in_batch):
    """The Trainer's own loss without its cast of the logits to fp32."""
    logits = outputs.logits[:, :-1].flatten(0, 1)
    return F.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum") / num_items_in_batch


def stock_training(model, rows, tokenizer, folder, optim, rate, loss=None):
    """The log of the stock Trainer over the rows in their own order."""
    arguments = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
        num_train_epochs=2, per_device_train_batch_size=SIZE, learning_rate=rate,
        gradient_accumulation_steps=ACCUMULATE, weight_decay=0.1, max_grad_norm=0.5,
        lr_scheduler_type="linear", warmup_steps=3, logging_steps=1, optim=optim,
        train_sampling_strategy="sequential",
    )  # fmt: skip
    trainer = Trainer(
        model=model, args=arguments, train_dataset=stock_rows(rows), compute_loss_func=loss,
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORE),
    )  # fmt: skip
    trainer.train()
    return [line for line in trainer.state.log_history if "grad_norm" in line]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize(
    ("dtype", "optim", "rate", "loss", "close"),
    [
        (torch.float32, "sgd", 0.1, None, 1e-5),
        (torch.float64, "adamw_torch", 3e-3, exact_loss, 1e-9),
    ],
)
def test_twenty_steps_match_the_stock_trainer(
    kind, dtype, optim, rate, loss, close, tiny_tokenizer, tmp_path
):
    rows = make_chats(SIZE * ACCUMULATE * STEPS // 2)
    first = make_model(kind, dtype)
    theirs, ours = deepcopy(first), deepcopy(first)
    logged = stock_training(theirs, rows, tiny_tokenizer, tmp_path, optim, rate, loss)

    batches = pieces(rows, SIZE)
    everything = collate_chats(rows, PADDING)
    rig = build_rig(
        ours, everything, SIZE, ACCUMULATE, max_grad_norm=0.5, compute_loss=chat_loss(ours)
    )
    groups = parameter_groups(ours, rate, None, set(), weight_decay=0.1)
    if optim == "sgd":
        rig.optimizer = torch.optim.SGD(groups, lr=rate)
    else:
        rig.optimizer = build_optimizer(groups, (0.9, 0.999), 1e-8)
    rig.schedule = Schedule("linear", STEPS, 3)
    rig.fit(batches=lambda epoch, start: iter(batches[start:]))

    assert len(rig.results) == len(logged) == STEPS
    for result, line in zip(rig.results, logged, strict=True):
        # the Trainer logs its losses in fp32
        assert result.loss == pytest.approx(line["loss"], abs=1e-5)
        assert result.grad_norm == pytest.approx(line["grad_norm"], rel=1e-4)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=close)
    before, after = (model.get_input_embeddings().weight for model in (first, ours))
    assert (after - before).abs().max() > 1000 * close  # and it did not stand still


def as_packs(rows, capacity):
    """The same conversations in packs."""
    encoded = Encoded(datasets.Dataset.from_list(rows), "", False, len(rows), 0, 0, 0)
    return pack_chats(encoded, capacity, 0, None).encoded.dataset.to_list()


def at_learned(model, batch):
    """{conversation: its logits at what is learned, in order}, the loss, every gradient."""
    hidden, targets, head = learned_states(model, batch)
    logits = head.logits(hidden)  # (n, V)
    positions = batch["inputs"].get("position_ids")
    starts = (
        torch.zeros_like(batch["labels"])
        if positions is None
        else ((positions == 0) & (batch["inputs"]["attention_mask"] == 1)).long()
    )
    if positions is None:
        starts[:, 0] = 1
    owner = (starts.flatten().cumsum(0) - 1)[batch["labels"].flatten() != IGNORE]  # (n,)
    by_chat = {
        number: logits[owner == place].detach()
        for place, number in enumerate(batch["rows"].tolist())
    }
    loss = chat_loss(model)(model, batch) / len(targets)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return by_chat, loss.detach(), gradients


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_packs_give_the_logits_losses_and_gradients_of_rows_alone(kind, dtype, close):
    rows, model = make_chats(9), make_model(kind, dtype)
    packs = as_packs(rows, 32)
    assert len(packs) < len(rows)
    alone = at_learned(model, collate_chats(rows, PADDING))
    packed = at_learned(model, collate_chats(packs, PADDING))
    assert sorted(alone[0]) == sorted(packed[0]) == list(range(9))
    for number, logits in alone[0].items():
        assert (packed[0][number] - logits).abs().max() <= close * logits.abs().max()
    assert packed[1].item() == pytest.approx(alone[1].item(), rel=close)
    for name, gradient in alone[2].items():
        assert (packed[2][name] - gradient).abs().max() <= close * max(
            1.0, gradient.abs().max().item()
        ), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", ["rows", "pairs", "packs", "one row learns nothing"])
def test_ragged_micro_batches_are_one_batch(kind, cut):
    """In float64: loss, norm of the gradient and the weights after a step."""
    rows = make_chats(8)
    counts = {sum(label != IGNORE for label in row["labels"]) for row in rows}
    assert len(counts) > 3
    if cut == "one row learns nothing":
        rows[3]["labels"] = [IGNORE] * rows[3]["length"]
    parts = {"pairs": pieces(rows, 2), "packs": pieces(as_packs(rows, 24), 1)}
    outcomes = []
    for micro_batches in (parts.get(cut, pieces(rows, 1)), [collate_chats(rows, PADDING)]):
        model = make_model(kind, torch.float64)
        rig = build_rig(
            model, collate_chats(rows, PADDING), sgd=True, lr=0.1, max_grad_norm=0.5,
            compute_loss=chat_loss(model),
        )  # fmt: skip
        result = rig.step(micro_batches)
        outcomes.append((result.loss, result.grad_norm, rig.weights()))
    (loss, norm, weights), (whole_loss, whole_norm, whole_weights) = outcomes
    assert loss == pytest.approx(whole_loss, rel=1e-10)
    assert norm == pytest.approx(whole_norm, rel=1e-10)
    torch.testing.assert_close(weights, whole_weights, rtol=1e-10, atol=1e-12)


def test_the_end_of_a_reply_is_learned_where_it_pads_and_transformers_collator_hides_it(
    tiny_tokenizer,
):
    """transformers' collator takes every token that equals the padding for padding: a model so
    trained never stops. Here padding is known by lengths."""
    tokenizer = deepcopy(tiny_tokenizer)
    tokenizer.eos_token = tokenizer.pad_token = "[SEP]"
    end = tokenizer.eos_token_id
    chats = [["good film", "great story"], ["bad", "the people was a boring story", "a", "film"]]
    split = datasets.Dataset.from_dict(
        {
            "messages": [
                [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(chat)]
                for chat in chats
            ],
            "row": [0, 1],
            "address": ["chats:1", "chats:2"],
        }
    )
    encoded, _ = encode_chats(split, tokenizer, ChatEncoding(64), None, "")
    rows = encoded.dataset.to_list()
    replies = [1, 2]
    assert [row["input_ids"].count(end) for row in rows] == replies

    hides = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    theirs = hides([{"input_ids": row["input_ids"]} for row in rows])
    assert not (theirs["labels"] == end).any()  # shown

    ours = collate_chats(rows, Padding(pad_id=end))
    real = ours["inputs"]["attention_mask"].bool()
    assert (~real).any()
    assert (ours["inputs"]["input_ids"][~real] == end).all()
    assert (ours["labels"] == end).sum(1).tolist() == replies  # absent
    assert (ours["labels"][~real] == IGNORE).all()
    ends = ours["inputs"]["input_ids"].roll(-1, 1) == end  # where the next token is one
    last = real.sum(1) - 1
    ends[torch.arange(2), last] = False
    assert torch.equal(ours["labels"] == end, ends & real)
