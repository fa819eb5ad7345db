"""The formula of arithmetic.py counts what torch itself counts."""

import pytest
import torch
from arithmetic import backward_flops, forward_flops, shape_of, step_flops
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForSequenceClassification

from models.lora import LoRAArgs, inject_lora

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
    inject_lora(model, LoRAArgs(("query", "value"), RANK), 0, exclude=["classifier"])
    for name, parameter in model.named_parameters():
        learns = "lora_" in name or name.startswith("classifier")
        parameter.requires_grad_(learns and trains == "lora")
    return model, shape_of(bert, RANK, trains)


def counted(run):
    """What torch counts while `run` runs."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("trains", ["nothing", "lora", "all"])
def test_a_step_is_counted_as_torch_counts_it(trains):
    model, shape = make_model(trains)
    ids = torch.ones(ROWS, TOKENS, dtype=torch.int64)
    outputs = []
    forward = counted(lambda: outputs.append(model(input_ids=ids).logits.sum()))
    assert forward_flops(shape, [TOKENS] * ROWS) == forward
    backward = 0 if trains == "nothing" else counted(outputs[0].backward)
    assert backward_flops(shape, [TOKENS] * ROWS) == backward


def test_rows_of_unlike_length_count_each_for_itself():
    _, shape = make_model("lora")
    alone = [step_flops(shape, [n]) for n in (3, 7, 10)]
    assert step_flops(shape, [3, 7, 10]) == sum(alone)
