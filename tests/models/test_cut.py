"""A cut model gives what the whole one gives: logits, gradients, losses step by step."""

import copy

import pytest
import torch
from torch import nn

from data.kept import pad_states
from engine.losses import cross_entropy, logits_of
from engine.randomness import seed_forward
from models.cut import Cut, find_cut, modules_before
from models.fast.speed import SpeedArgs, speed_up
from models.heads import backbone_name, transformers_model
from models.layers import layer_lists
from models.methods.lora import LoRA

CPU, FP32 = torch.device("cpu"), torch.float32
CLOSE = {"atol": 1e-6, "rtol": 1e-5}
READS_ALL = """
from torch import nn


class Head(nn.Module):
    def __init__(self, hidden_size, num_labels, dropout):
        super().__init__()
        self.dropout, self.out = nn.Dropout(dropout), nn.Linear(hidden_size, num_labels)

    def forward(self, hidden, mask):
        scores = self.out(self.dropout(hidden)) * mask.unsqueeze(-1)
        return scores.exp().sum(1).log()
"""


def rows(count=6, width=16, pad=0):
    """A batch of ragged rows, padded on the right; lengths that are no multiple of anything."""
    draw = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, width + 1, (count,), generator=draw)
    mask = (torch.arange(width) < lengths.unsqueeze(1)).long()
    ids = torch.randint(1, 50, (count, width), generator=draw)
    ids = torch.where(mask.bool(), ids, pad)
    return {"input_ids": ids, "attention_mask": mask}, torch.arange(count) % 2


def begun(cut, inputs):
    """Inputs of a pass that begins at the cut."""
    cut.model.eval()
    with torch.no_grad():
        states = cut.keep(inputs)
    if cut.vectors:
        ones = torch.ones(len(states), 1, dtype=torch.int64)
        kept = {"input_ids": torch.zeros_like(ones), "attention_mask": ones}
        return {**kept, "kept": states.unsqueeze(1)}
    return {**inputs, "kept": pad_states(states, inputs["attention_mask"])}


def train(model, inputs, labels, steps=4):
    """Losses of some steps; dropout draws from (0, 0, step)."""
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for step in range(steps):
        seed_forward(0, 0, step)
        loss = cross_entropy(logits_of(model(**inputs)), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def still(module):
    """No dropout in what lies below a cut."""
    for part in module.modules():
        if hasattr(part, "p"):
            part.p = 0.0
        for name in ("attention_dropout", "dropout_prob"):
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)


def still_below(backbone, layer):
    if layer is None:
        still(backbone)
        return
    (name,), _ = layer_lists(backbone)
    layers = backbone.get_submodule(name)
    for module in [*modules_before(backbone, layers), *layers[:layer]]:
        still(module)


@pytest.fixture
def head_file(tmp_path):
    (tmp_path / "head.py").write_text(READS_ALL, encoding="utf-8")
    return f"{tmp_path / 'head.py'}:Head"


def build(make, kind, head, what, head_file, fast):
    heads = {
        "linear": {"head_kind": "linear", "head_pool": "mean"},
        "last": {"head_kind": "linear", "head_pool": "last"},
        "mlp": {"head_kind": "mlp", "head_pool": "cls"},
        "own": {"head_kind": head_file, "allow_code": True},
        "native": {"head_kind": "native"},
    }
    built, _, _ = make(kind, train=what, dropout=0.1, **heads[head])
    model = built.model
    if fast:
        speed_up(model, SpeedArgs(native="off"), CPU, FP32)
    return model


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("head", ["linear", "last", "mlp", "own", "native"])
@pytest.mark.parametrize("kind", ["bert", "distilbert", "gpt2", "llama"])
@pytest.mark.parametrize("what", ["head", "last:1"])
def test_losses_step_by_step_are_those_of_the_whole_model(make, kind, head, what, head_file, fast):
    model = build(make, kind, head, what, head_file, fast)
    inputs, labels = rows(pad=transformers_model(model).config.pad_token_id)
    layer, reason = find_cut(model)
    assert reason is None
    still_below(model.get_submodule(backbone_name(model)), layer)
    whole = copy.deepcopy(model)
    cut = Cut(model, layer)
    kept = begun(cut, inputs)
    assert cut.differs(inputs, kept) is None
    expected = train(whole, inputs, labels)
    got = train(model, kept, labels)
    torch.testing.assert_close(torch.tensor(got), torch.tensor(expected), **CLOSE)
    model.eval(), whole.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            logits_of(model(**inputs)), logits_of(whole(**inputs)), atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("what", ["head", "last:1"])
def test_the_model_stays_whole(make, what):
    built, _, _ = make("bert", train=what, head_kind="linear", head_pool="mean")
    before = dict(built.model.state_dict())
    inputs, _ = rows()
    with torch.no_grad():
        expected = built.model(**inputs)
        cut = Cut(built.model, find_cut(built.model)[0])
        assert list(built.model.state_dict()) == list(before)
        assert torch.equal(built.model(**inputs), expected)
        begun(cut, inputs)
        assert torch.equal(built.model(**inputs), expected)
        cut.remove()
        assert torch.equal(built.model(**inputs), expected)
    assert not any("forward" in vars(module) for module in built.model.modules())


@pytest.mark.parametrize(
    ("method", "what", "layer", "reason"),
    [
        (None, "all", None, "before the first layer"),
        (None, "last:2", None, "in the first layer"),
        (None, "last:1", 1, None),
        (None, "head", None, None),
        (LoRA(("query",), rank=2), None, None, "in the first layer"),
        (LoRA(("query",), rank=2, layers=(1, 1)), None, 1, None),
        (LoRA(("query",), rank=2, layers=(0, 0)), "last:1", None, "in the first layer"),
    ],
)
def test_the_cut_lies_where_what_trains_begins(make, method, what, layer, reason):
    built, _, _ = make("bert", method=method, train=what, head_kind="linear", head_pool="mean")
    found = find_cut(built.model)
    assert found[0] == layer
    assert reason in found[1] if reason else found[1] is None


def test_what_learns_and_is_read_below_is_found_out(make):
    """A norm that stands after the layers by its place, and is called before them."""
    built, _, _ = make("bert", train="last:1", head_kind="linear", head_pool="mean")
    model, inputs = built.model, rows()[0]
    after = nn.LayerNorm(16)
    model.backbone.encoder.after = after
    model.backbone.embeddings.register_forward_hook(lambda module, args, out: after(out))
    layer, reason = find_cut(model)
    assert (layer, reason) == (1, None)
    cut = Cut(model, layer)
    with torch.no_grad():
        assert "reads a parameter that learns" in cut.differs(inputs, begun(cut, inputs))


@pytest.mark.parametrize("dtype", [FP32, torch.bfloat16])
@pytest.mark.parametrize("what", ["head", "last:1"])
def test_wrong_states_are_found_out_even_by_a_head_that_begins_at_zero(make, what, dtype):
    built, _, _ = make("bert", train=what, head_kind="linear", head_pool="mean")
    nn.init.zeros_(built.model.head.out.weight)
    cut, inputs = Cut(built.model, find_cut(built.model)[0]), rows()[0]
    kept = begun(cut, inputs)
    right = kept["kept"].to(dtype)
    with torch.no_grad():
        assert cut.differs(inputs, {**kept, "kept": right}) is None
        wrong = {"another row's": right.roll(1, 0), "mirrored": right.flip(2)}
        for name, states in wrong.items():
            assert "apart" in (cut.differs(inputs, {**kept, "kept": states}) or ""), name


def test_rows_that_are_all_alike_prove_nothing(make):
    built, _, _ = make("bert", train="head", head_kind="linear", head_pool="mean")
    cut, inputs = Cut(built.model, None), {name: t[:1] for name, t in rows()[0].items()}
    inputs = {name: t.expand(4, -1) for name, t in inputs.items()}
    with torch.no_grad():
        assert "all alike" in cut.differs(inputs, begun(cut, inputs))


def test_the_digest_knows_weights_and_the_place_of_the_cut(make):
    digests = set()
    for what, weight in (("head", 0.0), ("last:1", 0.0), ("last:1", 1.0)):
        built, _, _ = make("bert", train=what, head_kind="linear", head_pool="mean")
        with torch.no_grad():
            built.model.backbone.encoder.layer[0].output.dense.bias += weight
        digests.add(Cut(built.model, find_cut(built.model)[0]).digest())
        with torch.no_grad():  # what learns is no part of it
            built.model.backbone.encoder.layer[1].output.dense.bias += what == "last:1"
        digests.add(Cut(built.model, find_cut(built.model)[0]).digest())
    assert len(digests) == 3


def test_recomputed_activations_begin_at_the_cut_too(make):
    inputs, labels = rows()
    losses = []
    for again in (False, True):
        built, _, _ = make(
            "bert", train="last:1", head_kind="linear", head_pool="mean",
            activation_checkpointing=again,
        )  # fmt: skip
        cut = Cut(built.model, 1)
        losses.append(train(built.model, begun(cut, inputs), labels))
    assert losses[0] == losses[1]
