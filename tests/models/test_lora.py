"""LoRA: the layer, what it is injected into, merging."""

import math

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification
from transformers.pytorch_utils import Conv1D

from models.methods.lora import VARIANTS, LoRA, LoRALinear, inject_lora
from models.methods.method import added_modules, merge, plain_state, unmerge
from models.names import layer_number


def backbone(tiny, name="bert"):
    torch.manual_seed(0)
    return AutoModel.from_config(tiny(name, 50)).eval()


def layers(model):
    return {name.rpartition(".")[2] for name in added_modules(model)}


@pytest.mark.parametrize("kind", VARIANTS)
@pytest.mark.parametrize("base", [nn.Linear(6, 10), Conv1D(10, 6)])
def test_fresh_adapter_is_its_base_and_merged_weight_is_its_forward(kind, base):
    adapter = VARIANTS[kind](base, rank=3, alpha=6, dropout=0.0)
    nn.init.normal_(adapter.lora_A)
    x = torch.randn(4, 6)
    assert torch.equal(adapter(x), base(x))
    nn.init.normal_(adapter.lora_B)
    assert adapter.lora_A.shape == (3, 6)
    assert adapter.lora_B.shape == (10, 3)
    assert adapter.scaling == (6 / 3**0.5 if kind == "rslora" else 2)
    before = adapter(x)
    assert not torch.allclose(before, base(x))
    with torch.no_grad():
        base.weight.copy_(adapter.merged_weight())
    torch.testing.assert_close(base(x), before)


def test_dropout_zero_is_an_identity():
    assert isinstance(LoRALinear(nn.Linear(2, 2), 1, 1, 0.0).dropout, nn.Identity)
    assert LoRALinear(nn.Linear(2, 2), 1, 1, 0.3).dropout.p == 0.3


def test_a_is_kaiming_uniform_by_its_inputs_and_b_is_zero(tiny):
    model = backbone(tiny)
    inject_lora(model, LoRA(("dense",), rank=64), seed=0)
    for adapter in added_modules(model).values():
        bound = 1 / math.sqrt(adapter.lora_A.shape[1])
        largest = adapter.lora_A.abs().max().item()
        assert 0.95 * bound < largest <= bound
        assert not adapter.lora_B.any()


def test_a_depends_on_seed_and_name_alone(tiny):
    def drawn(targets, seed=0):
        model = backbone(tiny)
        torch.rand(seed + 3)  # what torch's generator did before does not matter
        inject_lora(model, LoRA(targets, rank=2), seed)
        return {name: adapter.lora_A for name, adapter in added_modules(model).items()}

    few, many, other = drawn(("value",)), drawn(("query", "value")), drawn(("value",), seed=1)
    for name, values in few.items():
        assert torch.equal(values, many[name])
        assert not torch.equal(values, other[name])
    assert len({values.sum().item() for values in many.values()}) == len(many) == 4


def test_target_is_a_suffix_on_a_dot_boundary():
    model = nn.Module()
    model.query, model.my_query = nn.Linear(2, 2), nn.Linear(2, 2)
    assert inject_lora(model, LoRA(("query",)), 0) == ["query"]
    assert isinstance(model.my_query, nn.Linear)


def test_dotted_target_tells_like_named_layers_apart(tiny):
    model = backbone(tiny, "gpt2")
    assert inject_lora(model, LoRA(("mlp.c_proj",)), 0) == ["h.0.mlp.c_proj", "h.1.mlp.c_proj"]


def test_target_that_fits_nothing_lists_what_there_is(tiny):
    with pytest.raises(ValueError, match=r"'q_lin' fits no layer.*query \(x2\), key \(x2\)"):
        inject_lora(backbone(tiny), LoRA(("query", "q_lin")), 0)
    with pytest.raises(ValueError, match=r"lora.layers is \[1, 2\]; the layers are 0 to 1"):
        inject_lora(backbone(tiny), LoRA(("query",), layers=(1, 2)), 0)
    with pytest.raises(ValueError, match=r"fits no layer.*the layers are 0 to 1"):
        inject_lora(backbone(tiny), LoRA(("query",), layers=(5, 6)), 0)
    with pytest.raises(ValueError, match="fits no layer"):  # an embedding is no linear layer
        inject_lora(backbone(tiny), LoRA(("word_embeddings",)), 0)


def test_layer_range_is_inclusive(tiny):
    names = inject_lora(backbone(tiny), LoRA(("query",), layers=(1, 1)), 0)
    assert names == ["encoder.layer.1.attention.self.query"]
    assert len(inject_lora(backbone(tiny), LoRA(("query",), layers=(0, 1)), 0)) == 2
    assert [layer_number(n) for n in ("h.12.mlp", "pooler.dense", "3")] == [12, None, 3]


@pytest.mark.parametrize("name", ["bert", "distilbert", "gpt2", "roberta"])
def test_all_linear_is_the_backbone_and_never_the_head(make, name):
    built, _, _ = make(name, method=LoRA("all-linear", rank=2))
    prefix = built.model.base_model_prefix
    adapted = added_modules(built.model)
    assert all(n.startswith(prefix + ".") for n in adapted)
    left = [n for n, m in built.model.named_modules() if isinstance(m, nn.Linear | Conv1D)]
    assert {n.removesuffix(".base") for n in left if n.startswith(prefix)} == set(adapted)
    assert not any(n.endswith(".base") for n in left if not n.startswith(prefix))


def test_named_target_never_reaches_into_the_head(make):
    built, _, _ = make("roberta", method=LoRA(("dense",)))  # its head has a `dense` too
    assert isinstance(built.model.classifier.dense, nn.Linear)


@pytest.mark.parametrize(
    "change", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"targets": ()}, {"targets": "all"}]
)
def test_arguments_out_of_range_are_refused(tiny, change):
    values = {"targets": ("query",), **change}
    with pytest.raises(ValueError, match=next(iter(change))):
        inject_lora(backbone(tiny), LoRA(**values), 0)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_merge_keeps_the_outputs_and_unmerge_restores_to_the_bit(tiny, targets, stir, name):
    model = backbone(tiny, name)
    inject_lora(model, LoRA(targets[name], rank=2), 0)
    stir(model)
    ids = torch.arange(8).reshape(2, 4)
    bases = {n: a.base.weight.clone() for n, a in added_modules(model).items()}
    apart = model(ids).last_hidden_state
    drift = merge(model)
    assert 0 < drift < 1e-6
    assert merge(model) == 0  # merging twice does nothing
    torch.testing.assert_close(model(ids).last_hidden_state, apart, atol=1e-5, rtol=1e-5)
    plain = AutoModel.from_config(model.config).eval()
    plain.load_state_dict(plain_state(model))
    torch.testing.assert_close(plain(ids).last_hidden_state, apart, atol=1e-5, rtol=1e-5)
    unmerge(model)
    assert all(torch.equal(a.base.weight, bases[n]) for n, a in added_modules(model).items())


class Doubled(LoRALinear):
    """A variant whose merged_weight forgets what its forward does."""

    def forward(self, x):
        return super().forward(x) * 2


def test_a_merge_that_does_not_do_what_forward_does_is_refused_and_changes_nothing(monkeypatch):
    monkeypatch.setitem(VARIANTS, "doubled", Doubled)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    inject_lora(model, LoRA("all-linear", rank=2, variant="doubled"), 0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"merged_weight of Doubled is off from its forward by 5"):
        merge(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_eval_and_train_change_no_bit(tiny, stir):
    model = backbone(tiny)
    inject_lora(model, LoRA("all-linear", rank=2), 0)
    stir(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train().eval().train()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_distilbert_trains_601346_of_66964226(targets):
    from transformers import DistilBertConfig

    from models.trainable import choose_trainable, count_parameters

    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(DistilBertConfig(num_labels=2))
    model.to_empty(device="cpu")
    heads = ["pre_classifier", "classifier"]
    inject_lora(model, LoRA(("q_lin",), rank=1, alpha=32), 0, exclude=heads)
    choose_trainable(model, everything=False, whole=[])
    assert count_parameters(model) == (601_346, 66_964_226)
