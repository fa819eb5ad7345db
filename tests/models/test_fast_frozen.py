"""Frozen linear weights in the compute dtype: the same bits, and only where nothing trains."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForMaskedLM

from models.fast.frozen import exact_weights, freeze_in, frozen_weights, restore_exact
from models.methods.lora import LoRA
from models.methods.method import added_modules, merge, plain_name

BF16 = torch.bfloat16
INPUTS = {
    "input_ids": torch.arange(1, 15).view(2, 7),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0]]),
}


@pytest.fixture
def adapted(make, stir):
    """adapted(name): a model with trained adapters on a frozen backbone, the same on each call."""

    def build(name="bert", **values):
        built, _, _ = make(name, method=LoRA("all-linear", rank=2), **values)
        stir(built.model)
        return built.model

    return build


def run(model, logits_of):
    """Logits under bf16 autocast, and the gradients of what trains."""
    model.zero_grad()
    with torch.autocast("cpu", dtype=BF16):
        logits = logits_of(model, INPUTS)
    logits.float().square().sum().backward()
    return logits.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "gpt2"])
@pytest.mark.parametrize("head", ["native", "linear"])
def test_forward_and_gradients_have_the_bits_of_autocast_over_fp32(adapted, logits_of, name, head):
    kept, cast = adapted(name, head_kind=head), adapted(name, head_kind=head)
    assert freeze_in(cast, BF16)
    (logits, gradients), (found, found_gradients) = (run(m, logits_of) for m in (kept, cast))
    assert torch.equal(found, logits)
    assert gradients.keys() == found_gradients.keys()
    assert all(torch.equal(found_gradients[n], gradients[n]) for n in gradients)


def test_only_frozen_linear_layers_are_cast(adapted):
    model = adapted(head_kind="linear")
    holders = freeze_in(model, BF16)
    low = {n for n, p in model.named_parameters() if p.dtype == BF16}
    linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    assert low == {
        f"{n}.{part}" for n in linear if not n.startswith("head") for part in ("weight", "bias")
    }
    assert holders == [model.get_submodule(n) for n in linear if not n.startswith("head")]
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    assert any("LayerNorm" in n for n, p in model.named_parameters() if p.dtype == torch.float32)


def test_a_model_that_trains_whole_is_not_cast(make):
    built, _, _ = make("bert")
    assert frozen_weights(built.model) == {}
    assert freeze_in(built.model, BF16) == []
    assert all(p.dtype == torch.float32 for p in built.model.parameters())


def test_a_bias_that_trains_stays_beside_a_frozen_weight():
    model = nn.Sequential(nn.Linear(3, 4))
    model[0].weight.requires_grad_(False)
    freeze_in(model, BF16)
    assert (model[0].weight.dtype, model[0].bias.dtype) == (BF16, torch.float32)


def test_a_weight_shared_with_an_embedding_is_not_cast(tiny):
    model = AutoModelForMaskedLM.from_config(tiny("bert", 50)).requires_grad_(False)
    decoder, table = model.cls.predictions.decoder, model.bert.embeddings.word_embeddings
    assert decoder.weight is table.weight
    freeze_in(model, BF16)
    assert decoder.weight is table.weight
    assert table.weight.dtype == torch.float32
    assert model.cls.predictions.transform.dense.weight.dtype == BF16


def test_what_trains_starts_where_it_did(adapted):
    before = {n: p.clone() for n, p in adapted().named_parameters() if p.requires_grad}
    model = adapted()
    freeze_in(model, BF16)
    after = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert all(torch.equal(after[n], before[n]) for n in before)
    assert len(after) == len(before)


def test_parameters_stay_the_same_objects_with_the_same_names(adapted):
    model = adapted()
    before = dict(model.named_parameters())
    freeze_in(model, BF16)
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    assert all(after[n] is before[n] for n in before)


def by_plain_name(model, state):
    adapters = added_modules(model)
    return {plain_name(name, adapters) or name: tensor for name, tensor in state.items()}


def test_restoring_puts_the_exact_bits_back(adapted):
    model = adapted()
    source = {n: t.clone() for n, t in model.state_dict().items()}
    freeze_in(model, BF16)
    assert any(not torch.equal(p.float(), source[n]) for n, p in model.named_parameters())
    restore_exact(model, by_plain_name(model, source))
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == source[name].dtype
        assert torch.equal(tensor, source[name])


def test_exact_weights_outlive_the_cast_and_are_those_that_restoring_wants(adapted):
    model = adapted()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    exact = exact_weights(model)
    freeze_in(model, BF16)
    assert exact
    restore_exact(model, exact)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_restoring_leaves_what_trained_as_it_is(adapted):
    model = adapted()
    source = {n: t.clone() for n, t in model.state_dict().items()}
    freeze_in(model, BF16)
    trained = [p for p in model.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter in trained:
            parameter += 1
    restore_exact(model, by_plain_name(model, source))
    for name, parameter in model.named_parameters():
        change = 1 if parameter.requires_grad else 0
        assert torch.equal(parameter, source[name] + change)


def test_merging_after_restoring_does_not_write_into_the_source(adapted):
    model = adapted()
    source = {n: t.clone() for n, t in model.state_dict().items()}
    before = {n: t.clone() for n, t in source.items()}
    freeze_in(model, BF16)
    restore_exact(model, by_plain_name(model, source))
    merge(model)
    assert all(torch.equal(source[n], before[n]) for n in source)


def test_merging_into_a_rounded_weight_is_refused(adapted):
    model = adapted()
    freeze_in(model, BF16)
    with pytest.raises(ValueError, match="restore_exact"):
        merge(model)
