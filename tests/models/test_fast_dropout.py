"""The replacement for nn.Dropout: what it replaces, its rate, and the mask of the backward pass."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModel

from models.fast.cpu.attention import register
from models.fast.cpu.dropout import FastDropout, NamedRows, replace_dropout
from models.fast.cpu.kernels import PlainKernels


@pytest.fixture
def bert(tiny, kernels):
    """A BERT with dropout 0.1 everywhere, all of it hashed."""
    torch.manual_seed(0)
    model = AutoModel.from_config(tiny("bert", 50))
    replace_dropout(model, kernels)
    model.set_attn_implementation(register(kernels))
    return model.train()


def gradients_of(model, inputs, seed=0):
    model.zero_grad()
    torch.manual_seed(seed)
    output = model(**inputs)
    output.last_hidden_state.square().mean().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_every_dropout_is_replaced_and_keeps_its_rate_and_mode(tiny):
    model = AutoModel.from_config(tiny("bert", 50))
    model.encoder.layer[1].train(False)
    model.encoder.layer[0].output.dropout.p = 0.3
    before = {n: m for n, m in model.named_modules() if isinstance(m, nn.Dropout)}
    assert len(replace_dropout(model, PlainKernels())) == len(before) > 5
    after = {n: m for n, m in model.named_modules() if isinstance(m, nn.Dropout)}
    assert list(after) == list(before)
    assert all(type(m) is FastDropout for m in after.values())
    assert all(m.p == before[n].p and m.training == before[n].training for n, m in after.items())
    assert replace_dropout(model, PlainKernels()) == []


def test_a_dropout_of_another_kind_stays():
    model = nn.Sequential(nn.Dropout(0.1), nn.Dropout1d(0.1), nn.AlphaDropout(0.1))
    kept = list(model)[1:]
    assert len(replace_dropout(model, PlainKernels())) == 1
    assert list(model)[1:] == kept


def test_a_dropout_that_two_places_share_is_replaced_in_both():
    shared = nn.Dropout(0.5)
    model = nn.Sequential(shared, nn.Linear(2, 2), shared)
    replace_dropout(model, PlainKernels())
    assert all(type(model[i]) is FastDropout for i in (0, 2))


def test_names_of_parameters_stay(tiny):
    model = AutoModel.from_config(tiny("bert", 50))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    replace_dropout(model, PlainKernels())
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_evaluation_and_rate_zero_are_the_identity(kernels):
    x = torch.randn(3, 4)
    assert FastDropout(0.5, kernels).eval()(x) is x
    assert FastDropout(0.0, kernels)(x) is x


def test_rate_one_leaves_nothing(kernels):
    assert not FastDropout(1.0, kernels)(torch.randn(3, 4)).any()


@pytest.mark.parametrize("shape", [(1,), (40,), (5, 40), (2, 5, 40), (2, 3, 5, 40), (0, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_shape_and_dtype_is_kept(kernels, shape, dtype):
    x = torch.ones(shape, dtype=dtype)
    out = FastDropout(0.5, kernels)(x)
    assert (out.shape, out.dtype) == (x.shape, dtype)
    assert set(out.flatten().tolist()) <= {0.0, 2.0}


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("shape", [(64, 80, 50), (256_000,), (16, 4, 100, 40)])
def test_training_drops_at_the_rate_and_keeps_the_mean(kernels, p, shape):
    torch.manual_seed(0)
    out = FastDropout(p, kernels)(torch.ones(shape))
    n, sigma = out.numel(), (p * (1 - p) / out.numel()) ** 0.5
    assert abs((out == 0).sum().item() / n - p) < 4.5 * sigma
    assert abs(out.mean().item() - 1) < 4.5 * sigma / (1 - p)


def test_backward_mask_is_the_forward_mask(kernels):
    x = torch.randn(4, 5, 37, requires_grad=True)
    out = FastDropout(0.3, kernels)(x)
    grad = torch.randn(x.shape)
    out.backward(grad)
    mask = (out != 0).float()
    assert 0.6 < mask.mean().item() < 0.8
    scale = 65536 / (65536 - round(0.3 * 65536))
    torch.testing.assert_close(x.grad, grad * mask * scale, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(out.detach(), x.detach() * mask * scale, atol=1e-6, rtol=1e-6)


def test_backward_keeps_no_mask(kernels):
    x = torch.randn(4, 5, 37, requires_grad=True)
    assert FastDropout(0.3, kernels)(x).grad_fn.saved_tensors == ()


def test_each_forward_draws_another_mask(kernels):
    drop, x = FastDropout(0.5, kernels), torch.ones(4, 40)
    assert not torch.equal(drop(x), drop(x))


def test_same_seed_gives_the_same_mask_with_either_kernels(kernels):
    found = []
    for k in (kernels, PlainKernels()):
        torch.manual_seed(3)
        found.append(FastDropout(0.3, k)(torch.ones(3, 4, 50)))
    assert torch.equal(*found)


def test_ids_of_a_stream_give_the_mask_of_the_padded_batch(kernels):
    drop, x = FastDropout(0.3, kernels), torch.ones(3, 4, 50)
    torch.manual_seed(0)
    padded = drop(x)
    real = torch.tensor([0, 1, 2, 4, 8, 9])  # places in the padded batch
    ids = ((real // 4) * (1 << 20) + real % 4).unsqueeze(0)
    torch.manual_seed(0)
    with NamedRows(ids):
        assert torch.equal(drop(torch.ones(1, 6, 50))[0], padded.flatten(0, 1)[real])


def test_ids_of_another_shape_are_not_used(kernels):
    """A head's dropout sees (B, D) while the stream's ids are (1, N)."""
    drop, found = FastDropout(0.3, kernels), []
    for ids in (None, torch.arange(9).unsqueeze(0)):
        torch.manual_seed(0)
        with NamedRows(ids):
            found.append(drop(torch.ones(3, 50)))
    assert torch.equal(*found)


def test_checkpointed_function_redraws_the_same_mask(kernels):
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(8, 8), FastDropout(0.4, kernels), nn.Linear(8, 8))
    inputs, found = torch.randn(3, 5, 8), []
    for run in (block, lambda x: checkpoint(block, x, use_reentrant=False)):
        block.zero_grad()
        torch.manual_seed(1)
        run(inputs).square().sum().backward()
        found.append([p.grad.clone() for p in block.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_checkpointed_model_has_the_same_gradients(bert):
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    inputs = {"input_ids": torch.arange(10).view(2, 5), "attention_mask": mask}
    plain = gradients_of(bert, inputs)
    assert not torch.equal(
        plain["embeddings.LayerNorm.weight"],
        gradients_of(bert, inputs, seed=1)["embeddings.LayerNorm.weight"],
    )
    bert.activation_checkpointing_enable({"use_reentrant": False})
    again = gradients_of(bert, inputs)
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)
