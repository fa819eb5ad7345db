"""Attention for CUDA: the same numbers as transformers' own, and no question to the host."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    RobertaConfig,
    RobertaModel,
)

from models.fast.cuda.lean_sdpa import use_lean_sdpa

QUESTIONS = ("aten._local_scalar_dense", "aten.nonzero", "aten.is_nonzero")
SIZES = {"vocab_size": 50, "pad_token_id": 1, "hidden_size": 32, "num_hidden_layers": 2,
         "num_attention_heads": 2, "intermediate_size": 64}  # fmt: skip
MODELS = {
    "bert": lambda: BertModel(BertConfig(**SIZES)),
    "roberta": lambda: RobertaModel(RobertaConfig(**SIZES)),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(vocab_size=50, pad_token_id=1, dim=32, n_layers=2, n_heads=2)
    ),
    "gpt2": lambda: GPT2Model(
        GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, bos_token_id=2, eos_token_id=2)
    ),
    "llama": lambda: LlamaModel(LlamaConfig(**SIZES)),
}


class Questions(TorchDispatchMode):
    """Notes the operations for which a host must wait for its device."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if str(func).startswith(QUESTIONS):
            self.asked.append(str(func))
        return func(*args, **(kwargs or {}))


def run(model):
    """(hidden states of the real tokens, questions asked)"""
    ids = torch.arange(18).view(2, 9) + 3
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    with torch.no_grad(), Questions() as questions:
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return hidden[mask.bool()], questions.asked


@pytest.mark.parametrize("kind", MODELS)
def test_the_forward_asks_the_host_nothing_and_gives_the_same(kind):
    torch.manual_seed(0)
    model = MODELS[kind]().eval()
    expected, asked = run(model)
    assert asked, "transformers no longer asks: this path has no use any more"
    assert use_lean_sdpa(model)
    hidden, asked = run(model)
    assert asked == []
    torch.testing.assert_close(hidden, expected, rtol=1e-5, atol=1e-6)


def test_a_model_on_another_attention_is_left_alone():
    model = MODELS["bert"]()
    model.set_attn_implementation("eager")
    assert not use_lean_sdpa(model)
    assert model.config._attn_implementation == "eager"
