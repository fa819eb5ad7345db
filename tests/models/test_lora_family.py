"""The LoRA family beside what PEFT shows: merging, files, code of a user's own, rates, refusals."""

import json
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from engine.checkpoint import load_weights, saved_tensors
from engine.optim import parameter_groups
from models.export import export_model, load_exported
from models.fast.speed import SpeedArgs, speed_up
from models.methods.lora import VARIANTS, LoRA, LoRALinear, inject_lora
from models.methods.lora_files import check_patterns, pattern_of
from models.methods.method import added_modules, merge, unmerge
from models.snippet import loading_snippet

FAMILY = {
    "rslora": {"variant": "rslora"},
    "dora": {"variant": "dora"},
    "pissa": {"init": "pissa"},
    "pissa, dora": {"init": "pissa", "variant": "dora"},
    "pissa, rslora, patterns": {
        "init": "pissa", "variant": "rslora", "rank_pattern": {"query": 3},
        "alpha_pattern": {r"layer\.1\..*": 2.0},
    },
    "biases": {"bias": "all"},
}  # fmt: skip
OWN = """
import torch
from models.methods.lora import LoRALinear

class Gated(LoRALinear):
    def __init__(self, base, rank, alpha, dropout):
        super().__init__(base, rank, alpha, dropout)
        self.gate = torch.nn.Parameter(torch.ones(()))

    def forward(self, x):
        out = self.base(x)
        return out if self.merged else out + self.gate * (super().forward(x) - out)

    def merged_weight(self):
        return self.base.weight + self.gate * self.change()
"""


@pytest.fixture
def own(tmp_path):
    """`own(code)`: a user's file, and how lora.variant names its class."""

    def write(code=OWN, name="Gated"):
        path = tmp_path / "my_lora.py"
        path.write_text(code, encoding="utf-8")
        return f"{path}:{name}"

    return write


def adapted(change, sizes=(6, 10), conv=False):
    """A model of one trained adapter."""
    torch.manual_seed(0)
    model = nn.Sequential(Conv1D(*sizes[::-1]) if conv else nn.Linear(*sizes))
    inject_lora(model, LoRA("all-linear", rank=3, **change), 0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".base." not in name:
                parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("case", ["rslora", "dora", "pissa", "pissa, dora"])
def test_every_variant_merges_and_unmerges_to_the_bit(case, conv):
    model, x = adapted(FAMILY[case], conv=conv), torch.randn(5, 6)
    before, base = model(x), model[0].base.weight.clone()
    assert 0 < merge(model) < 1e-6
    torch.testing.assert_close(model(x), before, atol=1e-5, rtol=1e-5)
    assert torch.equal(model(x), model[0].base(x))
    unmerge(model)
    assert torch.equal(model[0].base.weight, base)
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_pissa_begins_as_its_base_with_the_largest_singular_values(variant, conv):
    torch.manual_seed(0)
    base = Conv1D(10, 6) if conv else nn.Linear(6, 10)
    model, x = nn.Sequential(base), torch.randn(5, 6)
    expected = model(x)
    inject_lora(model, LoRA("all-linear", rank=2, variant=variant, init="pissa"), 0)
    torch.testing.assert_close(model(x), expected, atol=1e-6, rtol=1e-5)
    layer, weight = model[0], base.weight.T if conv else base.weight
    S = torch.linalg.svdvals(weight.double())
    found = torch.linalg.svdvals((layer.scaling * layer.lora_B @ layer.lora_A).double())
    torch.testing.assert_close(found[:2], S[:2], atol=1e-5, rtol=1e-5)
    rest = torch.linalg.svdvals((weight - layer.scaling * layer.lora_B @ layer.lora_A).double())
    torch.testing.assert_close(rest[:-2], S[2:], atol=1e-5, rtol=1e-5)


def test_dora_equals_its_equation_and_sends_no_gradient_through_the_lengths():
    model, x = adapted(FAMILY["dora"]), torch.randn(5, 6)
    layer = model[0]
    W, b, m, A, B, s = (
        t.detach().double().requires_grad_()
        for t in (layer.base.weight, layer.base.bias, layer.magnitude, layer.lora_A, layer.lora_B,
                  torch.tensor(layer.scaling))
    )  # fmt: skip
    V = W + s * B @ A
    expected = F.linear(x.double(), V) * (m / V.norm(dim=1).detach()) + b
    torch.testing.assert_close(model(x).double(), expected, atol=1e-5, rtol=1e-5)
    model(x).square().sum().backward()
    expected.square().sum().backward()
    for name, reference in (("magnitude", m), ("lora_A", A), ("lora_B", B)):
        found = getattr(layer, name).grad.double()
        torch.testing.assert_close(found, reference.grad, atol=1e-4, rtol=1e-5)


def test_dora_over_a_row_of_zeros_stays_finite():
    base = nn.Linear(4, 3)
    nn.init.zeros_(base.weight[0].data)
    model = nn.Sequential(base)
    inject_lora(model, LoRA("all-linear", rank=2, variant="dora"), 0)
    x = torch.randn(5, 4)
    assert torch.equal(model(x), base(x))
    model(x).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("head", ["native", "linear"])
@pytest.mark.parametrize("case", FAMILY)
def test_a_saved_one_gives_the_same_logits_to_the_bit_without_a_new_start(
    make, stir, encode, logits_of, tmp_path, monkeypatch, case, head
):
    lora = LoRA(("query", "value"), rank=2, **FAMILY[case])
    built, args, tokenizer = make("bert", method=lora, head_kind=head)
    stir(built.model)
    batch = encode(tokenizer)
    export_model(built, args, tokenizer, tmp_path / "model")
    monkeypatch.setattr(torch.linalg, "svd", None)  # another machine's would differ in bits
    model, _, read = load_exported(tmp_path / "model")
    assert read.method == lora
    assert torch.equal(logits_of(model, batch), logits_of(built.model, batch))
    assert "PeftModel" in loading_snippet(tmp_path / "model", args)


def test_a_resumed_pissa_has_the_start_of_its_checkpoint(make, stir, encode, tmp_path, monkeypatch):
    from safetensors.torch import save_file

    from models.methods import lora

    method = LoRA(("query",), rank=2, init="pissa")
    built, _, tokenizer = make("bert", method=method, head_kind="linear")
    stir(built.model)
    tensors = {n: t.detach().contiguous() for n, t in saved_tensors(built.model).items()}
    save_file(tensors, tmp_path / "trainable.safetensors")
    found = lora.principal_pair
    monkeypatch.setattr(lora, "principal_pair", lambda layer: [3 * t for t in found(layer)])
    again, _, _ = make("bert", method=method, head_kind="linear")
    batch = encode(tokenizer)
    assert not torch.equal(again.model(**batch), built.model(**batch))
    load_weights(tmp_path, again.model)
    assert torch.equal(again.model(**batch), built.model(**batch))


def test_a_class_of_ones_own_needs_permission_and_travels_with_the_model(
    make, stir, encode, tmp_path, own
):
    variant = own()
    lora = LoRA(("query",), rank=2, variant=variant)
    with pytest.raises(ValueError, match=r"runs the code in .*my_lora.py; allow it"):
        make("bert", method=lora, head_kind="linear")
    built, args, tokenizer = make("bert", method=lora, head_kind="linear", allow_code=True)
    stir(built.model)
    assert any("code of" in note and "my_lora.py" in note for note in built.notes)
    own("raise SystemError('not this one')")  # what ran is what is saved
    export_model(built, args, tokenizer, tmp_path / "model")
    record = json.loads((tmp_path / "model" / "openloop.json").read_text(encoding="utf-8"))
    assert record["method_code"]["class"] == "Gated"
    assert (tmp_path / "model" / "method_code.py").read_text(encoding="utf-8") == OWN
    with pytest.raises(ValueError, match="allow it with --allow-code"):
        load_exported(tmp_path / "model")
    model, _, _ = load_exported(tmp_path / "model", allow_code=True)
    batch = encode(tokenizer)
    assert torch.equal(model(**batch), built.model(**batch))
    assert 0 < merge(model) < 1e-6
    snippet = loading_snippet(tmp_path / "model", args)
    assert "PeftModel" not in snippet
    assert "allow_code=True" in snippet


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("class Gated: pass", "has no LoRALinear class 'Gated'"),
        ("import torch\nraise KeyError('x')", "my_lora.py:2: KeyError"),
        (OWN.replace("self.gate = ", "1 / 0 #"), "my_lora.py:8: ZeroDivisionError"),
    ],
)
def test_what_is_wrong_with_a_class_of_ones_own_is_said_with_its_place(make, own, code, message):
    lora = LoRA(("query",), rank=2, variant=own(code))
    with pytest.raises(ValueError, match=message):
        make("bert", method=lora, allow_code=True)


class Bottleneck(LoRALinear):
    """A variant that says nothing of PEFT: of A and B alone, and no product."""

    def forward(self, x):
        return self.base(x) + F.linear(F.linear(x, self.lora_A).relu(), self.lora_B)


def test_what_peft_has_no_form_of_does_not_open_there_and_does_here(
    make, stir, encode, tmp_path, monkeypatch
):
    peft = pytest.importorskip("peft")
    monkeypatch.setitem(VARIANTS, "bottleneck", Bottleneck)
    lora = LoRA(("query",), rank=2, variant="bottleneck")
    built, args, tokenizer = make("bert", method=lora, head_kind="linear")
    stir(built.model)
    export_model(built, args, tokenizer, tmp_path / "model")
    with pytest.raises((ValueError, KeyError, TypeError)):
        peft.PeftModel.from_pretrained(built.model.backbone, tmp_path / "model")
    model, _, _ = load_exported(tmp_path / "model")
    batch = encode(tokenizer)
    assert torch.equal(model(**batch), built.model(**batch))
    assert not args.method.peft
    assert "PeftModel" not in loading_snippet(tmp_path / "model", args)
    monkeypatch.setitem(VARIANTS, "bottleneck", type("Other", (Bottleneck,), {}))
    with pytest.raises(ValueError, match="uses the variant 'Bottleneck'"):
        load_exported(tmp_path / "model")


def test_all_that_a_variant_keeps_is_in_its_file(make, stir, tmp_path, own):
    code = OWN.replace("torch.ones(()))", "torch.ones(()))\n        self.register_buffer('k', "
                       "torch.full((2,), 7.0))")  # fmt: skip
    lora = LoRA(("query",), rank=2, variant=own(code))
    built, args, tokenizer = make("bert", method=lora, allow_code=True)
    export_model(built, args, tokenizer, tmp_path / "model")
    ends = {name.partition(".query.")[2] for name in load_file(
        tmp_path / "model" / "adapter_model.safetensors")}  # fmt: skip
    assert {"lora_A.weight", "lora_B.weight", "gate", "k"} <= ends


def test_lora_plus_groups_are_pefts(make):
    peft = pytest.importorskip("peft")
    from peft.optimizers import create_loraplus_optimizer

    lora = LoRA(("query",), rank=2, plus_ratio=16.0)
    built, args, _ = make("bert", method=lora)
    rates = args.method.rates(built.model)
    groups = parameter_groups(built.model, 1e-3, 1e-3, built.head_names, 0.0, rates)
    names = {p: n for n, p in built.model.named_parameters()}
    ours = {names[p]: g["base_lr"] for g in groups for p in g["params"]}
    plain, _, _ = make("bert")
    config = peft.LoraConfig(r=2, target_modules=["query"])
    theirs = peft.get_peft_model(plain.model, config)
    optimizer = create_loraplus_optimizer(
        theirs, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16.0
    )
    names = {p: n for n, p in theirs.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[parameter].removeprefix("base_model.model.")
            assert ours[name.replace(".default.weight", "")] == group["lr"]
    assert {n for n, rate in ours.items() if rate > 1e-3} == set(rates)
    assert "backbone, decay, lr x 16" in {g["name"] for g in groups}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variant": "qlora"}, "lora.variant is 'qlora'"),
        ({"init": "olora"}, "lora.init is 'olora'"),
        ({"bias": "some"}, "lora.bias is 'some'"),
        ({"plus_ratio": 0.0}, "lora.plus_ratio"),
        ({"rank_pattern": {"query": 0}}, "lora.rank_pattern.query is 0"),
        ({"rank_pattern": {"query": True}}, "lora.rank_pattern.query is True"),
        ({"alpha_pattern": {"query": -1.0}}, "lora.alpha_pattern.query"),
        ({"rank_pattern": {"quer(": 2}}, r"lora.rank_pattern: 'quer\(' is no pattern"),
        ({"alpha_pattern": {"(a|a)*": 2.0}}, "no repetition of a group"),
        ({"rank_pattern": {".*" * 10 + "Z": 2}}, "at most 3 groups and repetitions"),
        ({"rank_pattern": {".?" * 60 + "Z": 2}}, "at most 3 groups and repetitions"),
        ({"alpha_pattern": {"(.|.)" * 30 + "Z": 2.0}}, "at most 3 groups and repetitions"),
        ({"alpha_pattern": {"(?:a|a)?": 2.0}}, "counts for none"),
        ({"rank_pattern": {"x{1,9}" * 9: 2}}, "at most 3 groups and repetitions"),
        ({"rank_pattern": {r"\(*[+*?({]+\)\+nowhere": 2}}, "counts for none"),
        ({"rank_pattern": {"key": 4}}, "'key' counts for none of the 2 adapted layers"),
        ({"rank_pattern": {"query": 4, r".*\.query": 2}}, "counts for none"),
        ({"init": "pissa", "rank": 17}, "has only 16 singular values"),
        ({"init": "pissa", "variant": "mine.py:Mine"}, "take the start off again"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_with_the_reason(make, change, message):
    with pytest.raises(ValueError, match=message):
        make("bert", method=LoRA(("query",), **{"rank": 2, **change}), allow_code=True)


def test_a_bias_that_is_not_there_is_refused(make, targets):
    with pytest.raises(ValueError, match=r"lora.bias = \"lora_only\", but there is no such bias"):
        make("llama", method=LoRA(targets["llama"], rank=2, bias="lora_only"))


def test_only_the_biases_that_were_asked_for_move(make):
    def trained(bias, **more):
        built, _, _ = make("bert", method=LoRA(("query",), rank=2, bias=bias), **more)
        named = built.model.named_parameters()
        own = {n for o in added_modules(built.model) for n in (f"{o}.lora_A", f"{o}.lora_B")}
        trains = {n for n, p in named if p.requires_grad} - own - {"classifier.weight"}
        return {n.replace(".base.", ".") for n in trains}

    few, every = trained("lora_only"), trained("all")
    assert few - trained("none") == {
        f"bert.encoder.layer.{i}.attention.self.query.bias" for i in (0, 1)
    }
    assert all(n.endswith(".bias") for n in every - trained("none"))
    assert len(every - trained("none")) == 18  # eight a layer, the embeddings' norm, the pooler
    assert trained("all", train="last:1") > every


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("case", FAMILY)
def test_the_fast_paths_train_each_as_plain_code_does(make, stir, encode, case, dropout):
    """With dropout the plain layer runs, so both sides draw alike."""
    results = []
    for fast in (False, True):
        lora = LoRA(("query", "value", "dense"), rank=2, dropout=dropout, **FAMILY[case])
        built, _, tokenizer = make("bert", method=lora, head_kind="linear", dropout=0.0)
        stir(built.model)
        speed_up(
            built.model, SpeedArgs(plain=not fast, dropout=False, native="off"),
            torch.device("cpu"), torch.float32,
        )  # fmt: skip
        torch.manual_seed(0)
        batch = encode(tokenizer)
        model = built.model.train(dropout > 0)
        logits = model(**batch)
        (logits * torch.tensor([1.0, -0.5])).square().sum().backward()
        named = built.model.named_parameters()
        results.append({n: p.grad for n, p in named if p.grad is not None} | {"": logits})
    if dropout:
        results = [{n: t.shape for n, t in result.items()} for result in results]
        assert results[0] == results[1]
    else:
        torch.testing.assert_close(results[1], results[0], atol=2e-5, rtol=1e-4)


def test_a_further_run_starts_from_what_the_first_one_learned(make, stir, encode, tmp_path):
    lora = LoRA(("query",), rank=2, variant="dora", init="pissa", bias="all")
    built, args, tokenizer = make("bert", method=lora)
    stir(built.model)
    folder = tmp_path / "first" / "model"
    folder.mkdir(parents=True)
    export_model(built, args, tokenizer, folder)
    batch = encode(tokenizer)
    source = f"run:{tmp_path / 'first'}"
    again, more, _ = make(source=source, method=replace(lora, variant="rslora"))
    torch.testing.assert_close(
        again.model(**batch).logits, built.model(**batch).logits, atol=1e-5, rtol=1e-5
    )
    stir(again.model)
    export_model(again, more, tokenizer, tmp_path / "second")
    model, _, _ = load_exported(tmp_path / "second")
    assert torch.equal(model(**batch).logits, again.model(**batch).logits)


def test_a_pattern_that_is_taken_is_matched_in_no_time():
    """The most choices that are let through, against the name of a layer that they do not fit."""
    name = "model.encoder.block.11.layer.1.DenseReluDense.wi_0"
    for pattern in (".*" * 3 + "Z", ".?.*.{0,99}Z", "(.|..|...|....)(.*)Z"):
        check_patterns("lora.rank_pattern", {pattern: 1})
        start = time.process_time()
        assert pattern_of({pattern: 1}, name) is None
        assert time.process_time() - start < 0.5
