"""Pooling, heads, and heads from the user's own file."""

import pytest
import torch

from models.heads import HEADS, LinearHead, MLPHead, build_head, load_head_class, pool

OWN = """
import torch
from torch import nn

class MyHead(nn.Module):
    def __init__(self, hidden_size, num_labels, dropout, power, scale=1.0):
        super().__init__()
        self.out = nn.Linear(hidden_size, num_labels)
        self.power, self.scale = power, scale

    def forward(self, hidden, mask):
        return self.out(hidden[:, 0] ** self.power) * self.scale

class Other:
    pass
"""


@pytest.fixture
def own_file(tmp_path):
    path = tmp_path / "my_head.py"
    path.write_text(OWN, encoding="utf-8")
    return path


def test_pools_know_their_answers():
    hidden = torch.arange(12.0).reshape(1, 4, 3)
    mask = torch.tensor([[0, 1, 1, 0]])
    assert pool(hidden, mask, "cls").tolist() == [[3, 4, 5]]
    assert pool(hidden, mask, "last").tolist() == [[6, 7, 8]]
    assert pool(hidden, mask, "mean").tolist() == [[4.5, 5.5, 6.5]]
    with pytest.raises(ValueError, match="expected one of cls, mean, last"):
        pool(hidden, mask, "max")


@pytest.mark.parametrize("how", ["cls", "mean", "last"])
def test_pool_does_not_see_padding_on_either_side(how):
    real = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    junk = torch.full((2, 2, 4), 99.0)
    ones, zeros = torch.ones(2, 3), torch.zeros(2, 2)
    alone = pool(real, ones.long(), how)
    right = pool(torch.cat([real, junk], 1), torch.cat([ones, zeros], 1).long(), how)
    left = pool(torch.cat([junk, real], 1), torch.cat([zeros, ones], 1).long(), how)
    torch.testing.assert_close(right, alone)
    torch.testing.assert_close(left, alone)


def test_mean_pool_keeps_float64_and_sums_bf16_in_float32():
    hidden, mask = torch.full((1, 300, 2), 1.01), torch.ones(1, 300, dtype=torch.long)
    assert pool(hidden.double(), mask, "mean").dtype == torch.float64
    low = pool(hidden.bfloat16(), mask, "mean")
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, hidden.bfloat16()[:, 0].float())


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("how", ["cls", "mean", "last"])
def test_every_head_gives_logits_and_ignores_padding(kind, how):
    head = build_head(HEADS[kind], 8, 3, 0.1, how, {}).eval()
    hidden = torch.randn(2, 5, 8)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    logits = head(hidden, mask)
    assert logits.shape == (2, 3)
    hidden[0, 3:] = 7
    torch.testing.assert_close(head(hidden, mask), logits)


def test_mlp_takes_width_and_activation():
    head = build_head(MLPHead, 8, 2, 0.0, "cls", {"width": 5, "activation": "relu"})
    assert head.dense.weight.shape == (5, 8)
    with pytest.raises(ValueError, match="expected one of tanh, gelu, relu"):
        build_head(MLPHead, 8, 2, 0.0, None, {"activation": "swish"})


def test_unknown_argument_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'width'"):
        build_head(MLPHead, 8, 2, 0.0, None, {"widht": 5})
    with pytest.raises(ValueError, match="no argument 'hidden_size'"):
        build_head(LinearHead, 8, 2, 0.0, None, {"hidden_size": 5})
    with pytest.raises(ValueError, match=r"head\.pool is 'max'"):
        build_head(LinearHead, 8, 2, 0.0, "max", {})


def test_head_from_a_file_needs_permission_and_gets_its_arguments(own_file):
    kind = f"{own_file}:MyHead"
    with pytest.raises(ValueError, match="--allow-code"):
        load_head_class(kind)
    made = load_head_class(kind, allow_code=True)
    head = build_head(made, 8, 2, 0.0, None, {"power": 2})
    assert head(torch.randn(2, 3, 8), torch.ones(2, 3)).shape == (2, 2)
    with pytest.raises(ValueError, match="needs power"):
        build_head(made, 8, 2, 0.0, None, {})
    with pytest.raises(ValueError, match="no argument 'pool'"):
        build_head(made, 8, 2, 0.0, "mean", {"power": 2})


def test_wrong_head_kinds_are_clear_errors(own_file, tmp_path):
    with pytest.raises(ValueError, match="expected native, linear, mlp or"):
        load_head_class("liner")
    with pytest.raises(ValueError, match="there is no file"):
        load_head_class(f"{tmp_path}/none.py:MyHead", allow_code=True)
    with pytest.raises(ValueError, match="its classes are MyHead, Other"):
        load_head_class(f"{own_file}:Other", allow_code=True)


def test_head_in_a_model_from_a_file_is_recorded_by_hash(make, own_file):
    built, _, _ = make(head_kind=f"{own_file}:MyHead", head_args={"power": 2}, allow_code=True)
    assert any("sha256" in note and "my_head.py" in note for note in built.notes)
    assert type(built.model.head).__name__ == "MyHead"
