"""Attention for CUDA: the same numbers as transformers' own, and no question to the host."""

import pytest
import torch
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


def run(model, questions):
    """(hidden states of the real tokens, questions asked)"""
    ids = torch.arange(18).view(2, 9) + 3
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    questions.asked.clear()
    with torch.no_grad(), questions:
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return hidden[mask.bool()], list(questions.asked)


@pytest.mark.parametrize("kind", MODELS)
def test_the_forward_asks_the_host_nothing_and_gives_the_same(kind, questions):
    torch.manual_seed(0)
    model = MODELS[kind]().eval()
    expected, asked = run(model, questions)
    assert asked, "transformers no longer asks: this path has no use any more"
    assert use_lean_sdpa(model)
    hidden, asked = run(model, questions)
    assert asked == []
    torch.testing.assert_close(hidden, expected, rtol=1e-5, atol=1e-6)


def test_a_model_on_another_attention_is_left_alone():
    model = MODELS["bert"]()
    model.set_attn_implementation("eager")
    assert not use_lean_sdpa(model)
    assert model.config._attn_implementation == "eager"
