"""What every row of METHODS promises, whatever it is."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from configs import schema
from models.export import export_model, load_exported
from models.methods import METHODS
from models.methods.adapter import Adapter, Bottleneck
from models.methods.method import (
    Added,
    added_modules,
    added_parameters,
    can_merge,
    merge,
    plain_state,
)
from models.names import is_below

ROWS = {
    name: (lambda method=method, values=values: method(**values))
    for method in METHODS.values()
    for name, values in method.small.items()
}
NAMES = ("bert", "distilbert", "roberta", "gpt2", "llama")


class Draws(TorchDispatchMode):
    """Notes whether anything is drawn from a generator of a method's own."""

    def __init__(self):
        super().__init__()
        self.drawn = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.drawn = self.drawn or (kwargs or {}).get("generator") is not None
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=ROWS)
def row(request):
    return request.param


@pytest.fixture(params=NAMES)
def built(request, row, make):
    return make(request.param, seed=3, method=ROWS[row](), allow_code=True)


def test_every_method_has_a_row_here_and_a_section_of_a_recipe():
    assert {type(method()) for method in ROWS.values()} == set(METHODS.values())
    assert set(schema.METHODS) == set(METHODS)


def test_the_model_answers_at_first_as_without_the_method_or_it_is_declared(
    row, built, make, encode, logits_of
):
    model, args, tokenizer = built[0].model, built[1], built[2]
    plain = make(seed=3, source=args.source, allow_code=True)[0].model
    assert plain_state(model).keys() == plain.state_dict().keys()
    assert all(torch.equal(plain.state_dict()[n], t) for n, t in plain_state(model).items())
    batch = encode(tokenizer)
    if not args.method.identity:
        assert not torch.allclose(logits_of(model, batch), logits_of(plain, batch))
    else:
        torch.testing.assert_close(logits_of(model, batch), logits_of(plain, batch))


def parameters_of(model, names):
    """Parameters that are among these names, or inside such a module."""
    return [n for n, _ in model.named_parameters() if is_below(n, names)]


def test_a_step_moves_what_is_declared_and_nothing_else(row, built, encode, logits_of):
    model, declared = built[0].model.train(), set()
    for names in added_parameters(model).values():
        declared |= set(names)
    declared |= built[0].head_names | set(parameters_of(model, ROWS[row]().also_trains(model)))
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        logits_of(model, encode(built[2]))[:, 0].square().sum().backward()
        optimizer.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved <= declared
    assert {n for n in declared if n not in built[0].head_names} <= moved  # a gradient reaches all


def test_a_reloaded_model_gives_the_same_bits(built, stir, encode, logits_of, tmp_path):
    built, args, tokenizer = built
    stir(built.model)
    expected = logits_of(built.model, encode(tokenizer))
    export_model(built, args, tokenizer, tmp_path)
    model, again, args_again = load_exported(tmp_path, allow_code=True)
    assert args_again == args
    assert torch.equal(logits_of(model, encode(again)), expected)


@pytest.mark.parametrize("own", [False, True])
def test_last_layers_and_heads_of_ours_travel_beside_a_method(
    row, own, make, stir, encode, logits_of, tmp_path
):
    more = {"head_kind": "linear", "head_pool": "mean"} if own else {}
    built, args, tokenizer = make(method=ROWS[row](), train="last:1", **more, allow_code=True)
    stir(built.model)
    expected = logits_of(built.model, encode(tokenizer))
    export_model(built, args, tokenizer, tmp_path)
    assert torch.equal(
        logits_of(load_exported(tmp_path, allow_code=True)[0], encode(tokenizer)), expected
    )


def test_a_text_is_answered_alike_alone_and_beside_longer_ones(built, stir, encode, logits_of):
    model, tokenizer = built[0].model, built[2]
    stir(model)
    batch = encode(tokenizer)
    alone = [
        logits_of(model, {name: t[i : i + 1, :n] for name, t in batch.items()})
        for i, n in enumerate(batch["attention_mask"].sum(1).tolist())
    ]
    torch.testing.assert_close(logits_of(model, batch), torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_what_is_drawn_depends_on_the_seed_and_the_name_alone(row, make):
    torch.manual_seed(1)
    with Draws() as draws:
        one = make(seed=3, method=ROWS[row](), allow_code=True)[0].model
    torch.manual_seed(2)
    two = make(seed=3, method=ROWS[row](), allow_code=True)[0].model
    other = make(seed=4, method=ROWS[row](), allow_code=True)[0].model
    for names in added_parameters(one).values():
        for name in names:
            assert torch.equal(one.get_parameter(name), two.get_parameter(name))
    names = [n for names in added_parameters(one).values() for n in names]
    moved = any(not torch.equal(one.get_parameter(n), other.get_parameter(n)) for n in names)
    assert moved == draws.drawn


def test_a_method_merges_to_the_same_answers_or_is_refused_and_nothing_changes(
    row, make, stir, encode, logits_of
):
    built, _, tokenizer = make(method=ROWS[row](), allow_code=True)
    model = built.model
    stir(model)
    before, batch = copy.deepcopy(model.state_dict()), encode(tokenizer)
    expected = logits_of(model, batch)
    if can_merge(model):
        merge(model)
        torch.testing.assert_close(logits_of(model, batch), expected, rtol=1e-4, atol=1e-5)
        return
    with pytest.raises(ValueError, match="cannot be merged"):
        merge(model)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_a_run_is_gone_on_from_as_it_answers_or_that_is_refused_with_the_reason(
    row, make, stir, encode, logits_of, tmp_path
):
    built, args, tokenizer = make(method=ROWS[row](), allow_code=True)
    stir(built.model)
    batch = encode(tokenizer)
    expected = logits_of(built.model, batch)
    export_model(built, args, tokenizer, tmp_path)
    if can_merge(built.model):
        again = make(source=str(tmp_path), allow_code=True)[0].model
        torch.testing.assert_close(logits_of(again, batch), expected, rtol=1e-4, atol=1e-5)
        return
    with pytest.raises(ValueError, match=r"goes on from one weight.*start from the model"):
        make(source=str(tmp_path), allow_code=True)


# ---- the adapter ------------------------------------------------------------------------------


def test_a_bottleneck_is_the_equation_of_the_paper():
    """y = W x + b; y + U relu(D y + d) + u, worked out by hand in float64."""
    base = nn.Linear(2, 2).double()
    layer = Bottleneck(base, 1, "relu").double()
    with torch.no_grad():
        base.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0]]))
        base.bias.copy_(torch.tensor([0.5, 0.0]))
        layer.down.weight.copy_(torch.tensor([[2.0, 1.0]]))
        layer.down.bias.copy_(torch.tensor([-1.0]))
        layer.up.weight.copy_(torch.tensor([[0.25], [-3.0]]))
        layer.up.bias.copy_(torch.tensor([0.0, 1.0]))
    x = torch.tensor([[1.0, 1.0], [-2.0, 0.0]], dtype=torch.float64)
    # x1: y = (3.5, -1), inner = relu(7 - 1 - 1) = 5; x2: y = (-1.5, 0), inner = relu(-4) = 0
    expected = torch.tensor([[3.5 + 1.25, -1 - 15 + 1], [-1.5, 1.0]], dtype=torch.float64)
    assert torch.equal(layer(x), expected)


ENDINGS = {
    "bert": ("attention.output.dense", "output.dense"),
    "distilbert": ("attention.out_lin", "ffn.lin2"),
    "roberta": ("attention.output.dense", "output.dense"),
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
    "llama": ("self_attn.o_proj", "mlp.down_proj"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_adapters_stand_where_attention_and_feed_forward_end(name, make):
    for placement, endings in (("both", ENDINGS[name]), ("feed_forward", ENDINGS[name][1:])):
        model = make(name, method=Adapter(size=2, placement=placement))[0].model
        found = list(added_modules(model))
        assert len(found) == 2 * len(endings)
        assert {e for e in endings for f in found if f.endswith(e)} == set(endings)


def test_layers_that_are_one_share_an_adapter(encoder):
    import transformers

    model = encoder("albert", transformers.AutoModelForSequenceClassification)
    Adapter(size=2).inject(model, 0)
    layer = "albert.encoder.albert_layer_groups.0.albert_layers.0."
    assert list(added_modules(model)) == [f"{layer}attention.dense", f"{layer}ffn_output"]


def test_an_encoder_and_its_decoder_both_get_adapters():
    import transformers

    config = transformers.BartConfig(
        vocab_size=40, d_model=16, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, encoder_attention_heads=2, decoder_attention_heads=2,
        max_position_embeddings=32,
    )  # fmt: skip
    model = transformers.BartForSequenceClassification(config).eval()
    Adapter(size=2).inject(model, 0)
    assert [name.removeprefix("model.") for name in added_modules(model)] == [
        "encoder.layers.0.self_attn.out_proj", "encoder.layers.0.fc2",
        "decoder.layers.0.encoder_attn.out_proj", "decoder.layers.0.fc2",
        "decoder.layers.1.encoder_attn.out_proj", "decoder.layers.1.fc2",
    ]  # fmt: skip


def test_a_layer_of_experts_is_refused():
    import transformers

    config = transformers.MixtralConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, num_local_experts=2, pad_token_id=0,
    )  # fmt: skip
    model = transformers.MixtralForSequenceClassification(config).eval()
    with pytest.raises(ValueError, match=r"layer 0 chooses among experts.*take \[lora\]"):
        Adapter(size=2).inject(model, 0)


def test_norms_of_the_layers_learn_where_that_is_asked(make):
    norms = {"bert": 4, "distilbert": 4, "gpt2": 4, "llama": 4}
    for name, count in norms.items():
        model = make(name, method=Adapter(size=2, norms=True))[0].model
        own = {n for names in added_parameters(model).values() for n in names}
        learn = {n for n, p in model.named_parameters() if p.requires_grad} - own
        inside = [n for n in learn if "norm" in n.lower() or ".ln_" in n]
        assert len({n.rpartition(".")[0] for n in inside}) == count, name
        assert not any("embeddings" in n or "ln_f" in n for n in inside)


def test_a_layer_without_a_linear_end_of_attention_is_refused_and_told_what_goes():
    import transformers

    config = transformers.FNetConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, intermediate_size=32,
        max_position_embeddings=16,
    )  # fmt: skip
    model = transformers.FNetForSequenceClassification(config).eval()
    with pytest.raises(ValueError, match=r"ends the attention of layer 0.*feed_forward"):
        Adapter(size=2).inject(model, 0)
    Adapter(size=2, placement="feed_forward").inject(model, 0)
    assert len(added_modules(model)) == 2


@pytest.mark.parametrize(
    ("values", "said"),
    [({"size": 0}, "size"), ({"placement": "head"}, "placement"), ({"activation": "x"}, "activ")],
)
def test_arguments_out_of_range_are_refused(values, said):
    with pytest.raises(ValueError, match=f"adapter.{said}"):
        Adapter(**values).check()


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta"])
def test_adapters_run_on_the_fast_paths(name, norms, make, stir, encode, speed_up_alike):
    built, _, tokenizer = make(name, method=Adapter(size=3, norms=norms), dropout=0.0)
    stir(built.model)
    assert speed_up_alike(built.model, dict(encode(tokenizer))).streams


def test_what_is_asked_of_the_layer_below_is_answered():
    """T5 asks its last linear layer for the dtype of its weight."""

    class Doubled(Added):
        def __init__(self, base):
            super().__init__()
            self.base = base

    layer = Doubled(nn.Linear(2, 3))
    assert layer.weight is layer.base.weight
    assert layer.out_features == 3
    with pytest.raises(AttributeError, match="no_such"):
        _ = layer.no_such
    with pytest.raises(AttributeError, match="weight"):
        _ = Added().weight
