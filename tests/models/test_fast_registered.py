"""The own attention inside transformers' models: equal to the eager one, padding unseen."""

import pytest
import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from models.fast.cpu.attention import register

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
NAMES = ["albert", "bert", "distilbert", "electra", "roberta"]
MASKS = {
    "right": [[1, 1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0]],
    "left": [[1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 1, 1, 1]],
    "both": [[0, 1, 1, 1, 1, 1, 0], [0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1]],
    "none": [[1, 1, 1, 1, 1, 1, 1]] * 3,
    "holes": [[1, 0, 1, 1, 0, 1, 1], [1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0]],
}


def batch(side):
    mask = torch.tensor(MASKS[side])
    ids = torch.randint(1, 50, mask.shape, generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids * mask, "attention_mask": mask}


def hidden_and_gradients(model, inputs):
    """Hidden states of the real tokens, and the parameters' gradients of a sum over them."""
    model.zero_grad()
    hidden = model(**inputs).last_hidden_state[inputs["attention_mask"].bool()]  # (N, D)
    weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2))
    (hidden * weights).mean().backward()
    named = model.named_parameters()
    return hidden.detach(), {n: p.grad.clone() for n, p in named if p.grad is not None}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", MASKS)
def test_real_tokens_and_gradients_equal_the_eager_ones(encoder, kernels, name, side):
    model, inputs = encoder(name), batch(side)
    expected, expected_gradients = hidden_and_gradients(model, inputs)
    model.set_attn_implementation(register(kernels))
    found, gradients = hidden_and_gradients(model, inputs)
    torch.testing.assert_close(found, expected, **CLOSE)
    torch.testing.assert_close(gradients, expected_gradients, **CLOSE)
    assert len(gradients) > 20


@pytest.mark.parametrize("name", NAMES)
def test_padding_is_not_attended(encoder, kernels, name):
    model, inputs = encoder(name), batch("right")
    model.set_attn_implementation(register(kernels))
    before, _ = hidden_and_gradients(model, inputs)
    junk = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, 0)
    if name != "roberta":  # it counts its positions by the pad token
        junk = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, 7)
    after, _ = hidden_and_gradients(model, inputs | {"input_ids": junk})
    assert torch.equal(before, after)
    alone = model(inputs["input_ids"][1:2, :1]).last_hidden_state[0, 0]
    torch.testing.assert_close(before[7], alone, **CLOSE)


def test_the_mask_function_has_the_same_name(kernels):
    name = register(kernels)
    assert name == f"openloop_{kernels.name}"
    assert name in ALL_ATTENTION_FUNCTIONS.valid_keys()
    assert name in ALL_MASK_ATTENTION_FUNCTIONS.valid_keys()


def test_registered_attention_is_the_one_that_runs(encoder, kernels, monkeypatch):
    calls = []
    model = encoder("bert")
    model.set_attn_implementation(register(kernels))
    forward = kernels.attend
    monkeypatch.setattr(kernels, "attend", lambda *a: calls.append(1) or forward(*a))
    model(**batch("right"))
    assert len(calls) == 2  # layers


def test_registering_changes_no_other_model(encoder, kernels):
    inputs = batch("right")
    model = encoder("bert")
    before = model(**inputs).last_hidden_state
    register(kernels)
    other = encoder("bert")
    other.set_attn_implementation(register(kernels))
    assert model.config._attn_implementation == "eager"
    assert torch.equal(model(**inputs).last_hidden_state, before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in other.modules())


def test_dropout_of_the_probabilities_runs_in_training_only(encoder, kernels):
    model, inputs = encoder("bert"), batch("right")
    model.set_attn_implementation(register(kernels))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout) and module.p:
            module.p = (
                0.5 if module in [x.attention.self.dropout for x in model.encoder.layer] else 0
            )

    def hidden(seed):
        torch.manual_seed(seed)
        return model(**inputs).last_hidden_state[inputs["attention_mask"].bool()]

    assert torch.equal(hidden(0), hidden(1))
    model.train()
    assert torch.equal(hidden(0), hidden(0))
    assert not torch.allclose(hidden(0), hidden(1), atol=1e-3)


def test_a_wider_batch_gives_the_same_bits_with_dropout(encoder, kernels):
    """What a text is given does not depend on how far its batch was padded."""
    inputs = batch("right")
    wider = {name: torch.nn.functional.pad(t, (0, 5)) for name, t in inputs.items()}
    model = encoder("bert")
    model.set_attn_implementation(register(kernels))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in model.encoder.layer:
        layer.attention.self.dropout.p = 0.3
    model.train()
    found = []
    for given in (inputs, wider):
        torch.manual_seed(0)
        found.append(model(**given).last_hidden_state[given["attention_mask"].bool()])
    torch.testing.assert_close(*found, **CLOSE)
