"""What stands for a layer behaves as the layer; what is known of architectures holds."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from models.apart import forward_apart, needs_apart, run_apart
from models.architectures import longest_text
from models.fast.linear import fuse
from models.methods.lora import LoRA, LoRALinear, inject_lora
from models.methods.method import merge

XLM_PARTS = ("attentions", "layer_norm1", "ffns", "layer_norm2")


def adapter(base):
    """A layer with an adapter that does something."""
    layer = LoRALinear(base, rank=2, alpha=4.0, dropout=0.0)
    with torch.no_grad():
        layer.lora_A.normal_()
        layer.lora_B.normal_()
    return layer


@pytest.mark.parametrize("base", [nn.Linear(6, 4), nn.Linear(6, 4, bias=False), Conv1D(4, 6)])
def test_an_adapted_layer_has_the_attributes_of_a_linear_one(base):
    layer = adapter(base)
    assert (layer.in_features, layer.out_features) == (6, 4)
    assert layer.bias is base.bias
    assert (layer.weight.shape, layer.weight.dtype) == (base.weight.shape, base.weight.dtype)
    x = torch.randn(3, 6)
    weight = layer.weight.T if isinstance(base, Conv1D) else layer.weight
    torch.testing.assert_close(nn.functional.linear(x, weight, layer.bias), layer(x))


def test_what_multiplies_by_the_weight_itself_trains_the_adapter():
    layer = adapter(nn.Linear(6, 4))
    nn.functional.linear(torch.randn(3, 6), layer.weight, layer.bias).sum().backward()
    assert layer.lora_A.grad.any()
    assert layer.lora_B.grad.any()


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("shape", [(5, 6), (2, 5, 6)])
def test_output_of_a_fused_layer_can_be_changed_in_place(lora, shape):
    layer = adapter(nn.Linear(6, 4)) if lora else nn.Linear(6, 4)
    x = torch.randn(shape, requires_grad=True)
    outs = []
    for fused in (False, True):
        x.grad = None
        if fused:
            assert fuse([layer]) == [layer]
        out = layer(x)
        out /= 2
        out[..., 0] += 1
        out.square().sum().backward()
        outs.append((out.detach(), x.grad))
    torch.testing.assert_close(*outs)


def test_a_layer_that_does_more_than_multiply_gets_no_adapter():
    class Router(nn.Linear):
        def forward(self, x):
            return super().forward(x).topk(1)

    class Plain(nn.Linear):  # as Falcon writes it
        def forward(self, x):
            return x @ self.weight.T + self.bias

    model = nn.ModuleDict({"router": Router(6, 4), "dense": nn.Linear(6, 4), "own": Plain(6, 4)})
    assert inject_lora(model, LoRA(targets="all-linear", rank=2), seed=0) == ["dense", "own"]


def test_an_adapter_stands_in_every_place_of_a_shared_layer():
    shared = nn.Linear(6, 6)
    model = nn.ModuleList([shared, nn.ReLU(), shared])
    assert inject_lora(model, LoRA(targets="all-linear", rank=2), seed=0) == ["0"]
    assert model[0] is model[2]
    assert isinstance(model[2], LoRALinear)


def test_adapters_over_one_tied_weight_are_not_merged_into_it_twice():
    model = nn.ModuleList([adapter(nn.Linear(6, 6)), adapter(nn.Linear(6, 6))])
    model[1].base.weight = model[0].base.weight
    with pytest.raises(ValueError, match="shares its weight"):
        merge(model)


@pytest.mark.parametrize(
    ("class_name", "values", "longest"),
    [
        ("BertConfig", {}, 64),
        ("RobertaConfig", {"pad_token_id": 1}, 62),
        ("MPNetConfig", {"pad_token_id": 1}, 62),
        ("Data2VecTextConfig", {"pad_token_id": 1}, 62),
        ("BartConfig", {}, 64),  # its table has two rows more
        ("OpenAIGPTConfig", {"n_positions": 64}, 64),
        ("LlamaConfig", {}, 64),  # rotary: as its config says
        ("XLNetConfig", {}, None),
        ("T5Config", {"n_positions": 64}, None),
        ("BloomConfig", {}, None),
    ],
)
def test_longest_text_is_what_the_model_has_positions_for(class_name, values, longest):
    import transformers

    sizes = {
        "hidden_size": 16, "d_model": 16, "n_embd": 16, "num_hidden_layers": 1, "n_layer": 1,
        "num_layers": 1, "encoder_layers": 1, "decoder_layers": 1, "num_attention_heads": 2,
        "n_head": 2, "num_heads": 2, "intermediate_size": 16, "vocab_size": 40, "d_kv": 8,
    }  # fmt: skip
    kind = getattr(transformers, class_name)
    known = {**kind().to_dict(), **kind.attribute_map}
    config = kind(
        **{name: size for name, size in sizes.items() if name in known},
        **({"max_position_embeddings": 64} if "max_position_embeddings" in known else {}),
        **values,
    )
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config)
    assert longest_text(model) == longest


def test_rows_apart_are_answered_as_if_alone():
    import transformers

    config = transformers.FNetConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, intermediate_size=32, num_labels=3,
        max_position_embeddings=16, initializer_range=0.5,
    )  # fmt: skip
    model = transformers.FNetForSequenceClassification(config).eval()
    assert "Fourier" in needs_apart(model)
    ids, lengths = torch.randint(4, 40, (5, 8)), [3, 8, 5, 3, 1]
    mask = (torch.arange(8) < torch.tensor(lengths).unsqueeze(1)).long()
    alone = [model(ids[i : i + 1, :n]).logits for i, n in enumerate(lengths)]
    run_apart(model)
    torch.testing.assert_close(model(ids * mask, mask).logits, torch.cat(alone))
    assert model.forward.__func__ is forward_apart


def test_what_an_architecture_keeps_fixed_is_not_trained():
    import transformers

    from models.trainable import choose_trainable

    config = transformers.RoFormerConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, embedding_size=16,
    )  # fmt: skip
    model = transformers.RoFormerForSequenceClassification(config)
    sines = model.roformer.encoder.embed_positions.weight
    assert not sines.requires_grad
    choose_trainable(model, everything=True, whole=[])
    assert not sines.requires_grad
    assert model.classifier.dense.weight.requires_grad


@pytest.mark.parametrize(
    ("class_name", "values", "names"),
    [
        (
            "BartConfig",
            {"d_model": 16, "encoder_layers": 2, "decoder_layers": 3},
            ["model.decoder.layers.2"],
        ),
        (
            "XLMConfig",
            {"emb_dim": 16, "n_layers": 2, "n_heads": 2},
            [
                f"transformer.{part}.1"
                for part in ("attentions", "layer_norm1", "ffns", "layer_norm2")
            ],
        ),
    ],
)
def test_last_layers_are_found_where_they_lie_apart(class_name, values, names):
    import transformers

    from models.trainable import modules_of_last

    with torch.device("meta"):
        config = getattr(transformers, class_name)(vocab_size=40, **values)
        model = transformers.AutoModelForSequenceClassification.from_config(config)
    assert modules_of_last(model, 1)[: len(names)] == names
