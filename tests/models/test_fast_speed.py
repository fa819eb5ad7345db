"""All the fast paths together: the switches, and that training stays the same."""

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModel

from engine.losses import cross_entropy
from engine.randomness import preserve_randomness, seed_forward
from models.fast import products
from models.fast.cpu.compiler import find_compiler
from models.fast.cpu.dropout import FastDropout
from models.fast.cpu.gelu import FastGELU
from models.fast.linear import product_forward, project
from models.fast.products import prefers_onednn, takes_onednn
from models.fast.speed import Speed, SpeedArgs, speed_up
from models.heads import Classifier, LinearHead
from models.methods.lora import LoRA
from models.methods.method import added_modules

CPU, FP32, BF16 = torch.device("cpu"), torch.float32, torch.bfloat16
OFF = {
    "attention": False, "dropout": False, "unpad": False, "frozen": False, "lora": False,
    "linear": False, "qkv": False, "last_layer": False, "gelu": False, "norm": False,
}  # fmt: skip
ONLY_NATIVE = ("gelu", "norm")
ABOVE = {  # what runs on top of a path goes with it
    "attention": {"unpad", "qkv", "last_layer", "norm"}, "unpad": {"qkv", "last_layer", "norm"},
    "linear": {"qkv"},
    "dropout": {"norm"},
}  # fmt: skip
ALL = {
    "attention": "own", "batches": "streams", "dropout": "hashed", "kernels": "plain",
    "lora": "fused",
    "linear": "onednn" if prefers_onednn(BF16) else "torch",
    "qkv": "joint", "last_layer": "first token",
    "gelu": "native", "norm": "native",
}  # fmt: skip
# what a processor without fast bf16 products leaves out in bf16
ABSENT = set() if takes_onednn(BF16) else {"linear", "qkv"}
EXACT = {"atol": 1e-6, "rtol": 1e-6}


def rows(count=8, width=9):
    """A batch of ragged rows, padded on the right."""
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, width + 1, (count,), generator=draw)
    mask = (torch.arange(width) < lengths.unsqueeze(1)).long()
    ids = torch.randint(1, 50, (count, width), generator=draw) * mask
    labels = torch.randint(0, 2, (count,), generator=draw)
    return {"input_ids": ids, "attention_mask": mask}, labels


def part_of(inputs, labels, part):
    """Some of the rows, cut to the longest of them as the loader pads them."""
    width = int(inputs["attention_mask"][part].sum(1).max())
    return {name: tensor[part, :width] for name, tensor in inputs.items()}, labels[part]


@pytest.fixture
def lora_model(make, stir):
    """lora_model(rate=0.1, **switches): (model with adapters, dropout at that rate, Speed)."""

    def build(
        dtype=FP32, compiled=False, rate=0.1, pool="cls", targets=("query", "value"), **switches
    ):
        lora = LoRA(targets, rank=2)
        built, _, _ = make("bert", method=lora, head_kind="linear", head_pool=pool, dropout=rate)
        stir(built.model)
        args = SpeedArgs(**({"native": "off"} | switches))
        if args.native == "on" and find_compiler() is None:
            pytest.skip("no C++ compiler on PATH")
        return built.model.train(), speed_up(built.model, args, CPU, dtype, compiled)

    return build


def is_product(module):
    return getattr(vars(module).get("forward"), "__func__", None) is product_forward


def is_fast(model):
    """Which paths a model really has, by name of the switch."""
    dropouts = [m for m in model.modules() if isinstance(m, nn.Dropout)]
    inner = model.backbone
    how = getattr(inner.encoder, "how", None)
    found = {
        "attention": inner.config._attn_implementation.startswith("openloop_"),
        "dropout": all(type(m) is FastDropout for m in dropouts),
        "unpad": "forward" in vars(inner),
        "linear": any(is_product(m) for m in model.modules() if isinstance(m, nn.Linear)),
        "qkv": how is not None and how.project is project,
        "last_layer": how is not None and how.first_only,
        "frozen": any(p.dtype == BF16 for p in model.parameters()),
        "lora": all(is_product(adapter) for adapter in added_modules(model).values()),
        "gelu": any(isinstance(m, FastGELU) for m in model.modules()),
        "norm": how is not None and how.finish.keywords["norm"] is not None,
    }
    return {name for name, fast in found.items() if fast}


def loss_and_gradients(model, inputs, labels, seed=None):
    """Sum over the rows, as the engine takes it, and the gradients of what trains."""
    model.zero_grad()
    if seed is not None:
        seed_forward(seed, 0, 0)
    loss = cross_entropy(model(**inputs), labels)
    loss.backward()
    named = model.named_parameters()
    return loss.detach(), {n: p.grad.clone() for n, p in named if p.grad is not None}


def same_bits(a, b):
    return torch.equal(a[0], b[0]) and all(torch.equal(a[1][n], b[1][n]) for n in a[1])


def test_all_switches_are_on_by_default(lora_model):
    model, speed = lora_model(dtype=BF16, native="on")
    assert is_fast(model) == set(OFF) - ABSENT
    kernels = speed.resolved["kernels"]
    assert kernels.startswith("kernels-")
    expected = ALL | {"frozen": "torch.bfloat16", "kernels": kernels}
    assert speed.resolved == {key: expected[key] for key in expected.keys() - ABSENT}
    assert speed.notes == []
    assert speed.details[0].startswith("kernels: native, ")


def test_all_switches_off_touch_nothing(lora_model):
    model, speed = lora_model(dtype=BF16, **OFF)
    assert is_fast(model) == set()
    assert speed == Speed(notes=["attention: stock, as configured, so batches keep their padding"])


@pytest.mark.parametrize("switch", OFF)
def test_each_switch_turns_its_own_path_off(lora_model, switch):
    model, speed = lora_model(dtype=BF16, native="on", **{switch: False})
    off = {switch} | ABOVE.get(switch, set())
    assert is_fast(model) == set(OFF) - off - ABSENT
    keys = {"unpad": "batches"}
    gone = {keys.get(name, name) for name in off}
    assert speed.resolved.keys() == (ALL.keys() | {"frozen"}) - gone - ABSENT


@pytest.mark.parametrize("switch", OFF)
def test_each_switch_turns_its_own_path_on(lora_model, switch):
    native = "on" if switch in ONLY_NATIVE else "off"
    model, speed = lora_model(dtype=BF16, native=native, **OFF | {switch: True})
    needy = any(switch in above for above in ABOVE.values()) or switch in ABSENT
    assert is_fast(model) == (set() if needy else {switch})
    assert (speed.resolved == {}) == needy


def test_adapters_on_all_layers_share_the_gradient_of_their_input(lora_model, monkeypatch):
    model, speed = lora_model(targets="all-linear", rate=0.0)
    assert "linear" not in speed.resolved  # no layer is left without an adapter
    assert speed.resolved["qkv"] == "joint"
    plain, _ = lora_model(targets="all-linear", rate=0.0, **OFF)
    batch, joined = rows(), []
    whole = products.input_gradient
    monkeypatch.setattr(
        products, "input_gradient", lambda *given: joined.append(len(given[0])) or whole(*given)
    )
    found, expected = (loss_and_gradients(m, *batch) for m in (model, plain))
    assert max(joined) > 1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_adapters_that_are_no_products_are_not_joined(lora_model):
    _, speed = lora_model(targets="all-linear", lora=False)
    assert not speed.resolved.keys() & {"lora", "linear", "qkv"}


def test_frozen_weights_stay_fp32_where_the_products_are(lora_model):
    model, speed = lora_model(dtype=FP32)
    assert all(p.dtype == FP32 for p in model.parameters())
    assert "frozen" not in speed.resolved


def test_a_compiled_model_keeps_stock_attention_and_dropout(lora_model):
    model, speed = lora_model(compiled=True)
    assert not is_fast(model) & {"attention", "dropout", "unpad"}
    assert not speed.resolved.keys() & {"attention", "dropout", "batches", "kernels"}
    assert any("torch.compile sees the stock ones" in note for note in speed.notes)


def test_plain_kernels_leave_gelu_and_norm_as_they_are(lora_model):
    model, speed = lora_model(native="off")
    assert is_fast(model) == set(OFF) - {*ONLY_NATIVE, "frozen"}
    assert not speed.resolved.keys() & set(ONLY_NATIVE)


def test_layers_that_nothing_asks_to_write_out_stay(lora_model):
    model, _ = lora_model(native="on", norm=False, qkv=False, last_layer=False)
    assert "forward" not in vars(model.backbone.encoder)


@pytest.mark.parametrize("native", ["on", "off"])
def test_names_of_parameters_stay(lora_model, native):
    fast, plain = lora_model(native=native)[0], lora_model(**OFF)[0]
    assert list(fast.state_dict()) == list(plain.state_dict())
    assert [n for n, _ in fast.named_parameters()] == [n for n, _ in plain.named_parameters()]


@pytest.mark.parametrize("name", ["DebertaV2", "MPNet"])
def test_an_architecture_of_its_own_attention_keeps_it_and_says_so(name):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "vocab_size": 50, "max_position_embeddings": 64}
    config = getattr(transformers, f"{name}Config")(**sizes)
    torch.manual_seed(0)
    model = Classifier(AutoModel.from_config(config), LinearHead(16, 2, 0.1)).eval()
    inputs, _ = rows()
    before, kept = model(**inputs), model.backbone.config._attn_implementation
    speed = speed_up(model, SpeedArgs(native="off"), CPU, FP32, compiled=False)
    assert any("attention: stock" in note for note in speed.notes)
    assert not speed.resolved.keys() & {"attention", "batches"}
    assert model.backbone.config._attn_implementation == kept
    torch.testing.assert_close(model(**inputs), before, **EXACT)
    model.train()(**inputs).sum().backward()  # its dropouts, hashed, in whatever shapes
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("native", ["auto", "off"])
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_training_step_without_dropout_equals_the_plain_one(lora_model, native, pool):
    fast, _ = lora_model(rate=0.0, native=native, pool=pool)
    plain, _ = lora_model(rate=0.0, pool=pool, **OFF)
    found, expected = (loss_and_gradients(m, *rows()) for m in (fast, plain))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_micro_batches_add_up_to_the_one_batch(lora_model, size):
    model, _ = lora_model(rate=0.0)
    inputs, labels = rows()
    expected = loss_and_gradients(model, inputs, labels)
    parts = [
        loss_and_gradients(model, *part_of(inputs, labels, slice(i, i + size)))
        for i in range(0, 8, size)
    ]
    loss = sum(part[0] for part in parts)
    gradients = {n: sum(part[1][n] for part in parts) for n in expected[1]}
    torch.testing.assert_close((loss, gradients), expected, **EXACT)


@pytest.mark.parametrize("native", ["auto", "off"])
def test_same_seed_gives_the_same_bits_again(lora_model, native):
    model, _ = lora_model(native=native)
    first, second, other = (loss_and_gradients(model, *rows(), seed=s) for s in (0, 0, 1))
    assert same_bits(first, second)
    assert not same_bits(first, other)


def test_plain_and_native_kernels_train_alike(lora_model):
    native, speed = lora_model(native="on")
    assert speed.resolved["kernels"].startswith("kernels-")
    plain, _ = lora_model(native="off")
    found, expected = (loss_and_gradients(m, *rows(), seed=0) for m in (native, plain))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_an_evaluation_between_two_steps_changes_no_bit(lora_model):
    model, _ = lora_model()
    inputs, labels = rows()
    undisturbed = loss_and_gradients(model, inputs, labels, seed=0)
    seed_forward(0, 0, 0)
    with preserve_randomness(), torch.inference_mode():
        model.eval()
        model(**part_of(inputs, labels, slice(2, 5))[0])
    model.train()
    assert same_bits(undisturbed, loss_and_gradients(model, inputs, labels))


def test_evaluation_draws_nothing_from_the_generator(lora_model):
    model, _ = lora_model()
    before = torch.get_rng_state()
    model.eval()(**rows()[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_training_in_bf16_gives_finite_gradients_near_those_of_fp32(lora_model):
    low, _ = lora_model(dtype=BF16, rate=0.0)
    exact, _ = lora_model(rate=0.0)
    with torch.autocast("cpu", dtype=BF16):
        _, found = loss_and_gradients(low, *rows())
    _, expected = loss_and_gradients(exact, *rows())
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert gradient.dtype == FP32
        assert (gradient - expected[name]).norm() < 0.05 * expected[name].norm()
