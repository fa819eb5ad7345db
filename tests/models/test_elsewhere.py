"""What goes into the last layer, and what a front matter holds."""

import pytest
import torch

from models.elsewhere.fold import folded
from models.methods.lora import LoRA


def wholes(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize("head", ["native", "linear", "mlp"])
def test_a_scale_and_a_shift_in_the_last_layer_are_exact_and_taken_back(
    make, stir, targets, encode, logits_of, name, head
):
    values = {} if head == "native" else {"head_kind": head, "head_pool": "mean"}
    method = LoRA(targets[name], rank=2, alpha=4.0)
    built, _, tokenizer = make(name, seed=3, method=method, **values)
    stir(built.model)
    batch, before = encode(tokenizer), wholes(built.model)
    with torch.no_grad():
        plain = logits_of(built.model, batch)
        with folded(built.model, 1 / 1.7, 0.25) as can:
            assert can
            scaled = logits_of(built.model, batch)
    torch.testing.assert_close(scaled, plain / 1.7 + 0.25, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(before[n], t) for n, t in built.model.state_dict().items())


def test_a_last_layer_without_a_bias_takes_a_scale_and_no_shift(make, encode, logits_of):
    built, _, tokenizer = make("gpt2")
    batch, before = encode(tokenizer), wholes(built.model)
    with torch.no_grad():
        plain = logits_of(built.model, batch)
        with folded(built.model, 0.5, 0.0) as can:
            assert can
            torch.testing.assert_close(logits_of(built.model, batch), plain / 2)
        with folded(built.model, 2.0, 1.0) as can:
            assert not can
            assert torch.equal(logits_of(built.model, batch), plain)
    assert all(torch.equal(before[n], t) for n, t in built.model.state_dict().items())


def test_what_the_last_layer_is_not_the_end_of_is_left_alone(make, encode, logits_of):
    built, _, tokenizer = make("bert")
    plain_forward, batch = built.model.forward, encode(tokenizer)

    def squashed(**inputs):
        output = plain_forward(**inputs)
        output.logits = output.logits.tanh()
        return output

    built.model.forward = squashed
    with torch.no_grad():
        before = logits_of(built.model, batch)
        with folded(built.model, 3.0, 0.5) as can:
            assert not can
            assert torch.equal(logits_of(built.model, batch), before)


def test_an_error_in_the_block_takes_it_back_too(make):
    built, _, _ = make("bert")
    before = wholes(built.model)
    with pytest.raises(RuntimeError, match="full"), folded(built.model, 2.0, 0.0):
        raise RuntimeError("full")
    assert all(torch.equal(before[n], t) for n, t in built.model.state_dict().items())
