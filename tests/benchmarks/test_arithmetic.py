"""The formula of arithmetic.py counts what torch itself counts."""

import pytest
import torch
from arithmetic import backward_flops, forward_flops, shape_of
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForSequenceClassification

from models.methods.lora import LoRA, inject_lora

ROWS, TOKENS, RANK = 3, 10, 2


def make_model(trains):
    """A tiny BERT whose LoRA, or all, or nothing trains; with attention as separate products."""
    bert = BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=16, attn_implementation="eager",
    )  # fmt: skip
    model = BertForSequenceClassification(bert)
    if trains == "all":
        return model, shape_of(bert, 0, trains)
    inject_lora(model, LoRA(("query", "value"), RANK), 0, exclude=["classifier"])
    for name, parameter in model.named_parameters():
        learns = "lora_" in name or name.startswith("classifier")
        parameter.requires_grad_(learns and trains == "lora")
    return model, shape_of(bert, RANK, trains)


def counted(run):
    """What torch counts while `run` runs."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def needed_logits(model, ids):
    """The logits by BERT's own modules, of the last layer only what the head reads."""
    bert = model.bert
    hidden = bert.embeddings(input_ids=ids)  # (B, T, D)
    for layer in bert.encoder.layer[:-1]:
        hidden = layer(hidden)
    last = bert.encoder.layer[-1]
    own, first = last.attention.self, hidden[:, :1]
    q, k, v = (
        function(x).unflatten(-1, (own.num_attention_heads, -1)).transpose(1, 2)  # (B, H, ., D)
        for function, x in ((own.query, first), (own.key, hidden), (own.value, hidden))
    )
    p = torch.softmax(q @ k.mT / own.attention_head_size**0.5, -1)
    attended = last.attention.output((p @ v).transpose(1, 2).flatten(2), first)
    return model.classifier(bert.pooler(last.feed_forward_chunk(attended)))


def test_the_needed_arithmetic_gives_the_whole_models_logits():
    model, _ = make_model("all")
    ids = torch.arange(2 * TOKENS).view(2, TOKENS)
    torch.testing.assert_close(needed_logits(model.eval(), ids), model(input_ids=ids).logits)


@pytest.mark.parametrize("trains", ["nothing", "lora", "all"])
def test_a_step_is_counted_as_torch_counts_it(trains):
    model, shape = make_model(trains)
    ids = torch.ones(ROWS, TOKENS, dtype=torch.int64)
    outputs = []
    forward = counted(lambda: outputs.append(needed_logits(model, ids).sum()))
    assert forward_flops(shape, [TOKENS] * ROWS) == forward
    backward = 0 if trains == "nothing" else counted(outputs[0].backward)
    assert backward_flops(shape, [TOKENS] * ROWS) == backward


def test_rows_of_unlike_length_count_each_for_itself():
    _, shape = make_model("lora")
    alone = [shape.step_flops([n]) for n in (3, 7, 10)]
    assert shape.step_flops([3, 7, 10]) == sum(alone)
