"""The vector that a head answers from is seen, to the bit, and said where there is none."""

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, CanineConfig, CanineModel

from models.heads import Classifier, LinearHead, MLPHead, pool
from models.pooled import PooledVectors

SHAPE = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


class NoVector(nn.Module):
    def forward(self, hidden, mask):
        return hidden[:, 0]


class PassesBy(LinearHead):
    def forward(self, hidden, mask):
        return self.out(hidden[:, 0])


def make_model(head, window_pool=None):
    torch.manual_seed(0)
    backbone = BertModel(BertConfig(vocab_size=30, hidden_size=8, **SHAPE))
    return Classifier(backbone, head, window_pool).eval()


@pytest.fixture
def inputs():
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]])
    return {"input_ids": torch.arange(15).reshape(3, 5), "attention_mask": mask}


@pytest.mark.parametrize("how", ["mean", "cls", "last"])
@pytest.mark.parametrize("head_class", [LinearHead, MLPHead])
def test_the_vectors_are_those_that_the_head_pools_and_its_answer_stays(head_class, how, inputs):
    model = make_model(head_class(8, 2, 0.0, pool=how))
    before = model(**inputs)
    watched = PooledVectors(model)
    assert torch.equal(model(**inputs), before)
    hidden = model.backbone(**inputs).last_hidden_state
    assert torch.equal(watched.read(), pool(hidden, inputs["attention_mask"], how))
    assert watched.pooled is None  # nothing is held between steps


def test_a_text_in_windows_has_its_one_vector(inputs):
    model = make_model(LinearHead(8, 2, 0.0), "mean")
    watched = PooledVectors(model)
    model(**inputs, windows=torch.tensor([[0, 2], [1, -1]]))
    hidden = model.backbone(**inputs).last_hidden_state
    each = pool(hidden, inputs["attention_mask"], "mean")  # (3, 8)
    expected = torch.stack([(each[0] + each[2]) / 2, each[1]])
    torch.testing.assert_close(watched.read(), expected)


def test_watching_changes_no_name_of_a_parameter():
    model = make_model(LinearHead(8, 2, 0.0))
    names = list(model.state_dict())
    PooledVectors(model)
    assert list(model.state_dict()) == names


def test_a_head_without_a_vector_is_refused_with_what_it_needs():
    with pytest.raises(ValueError, match=r"NoVector shows none.*pool_tokens.*answer"):
        PooledVectors(make_model(NoVector()))


def test_a_head_that_passes_its_own_answer_by_is_told_so(inputs):
    model = make_model(PassesBy(8, 2, 0.0))
    watched = PooledVectors(model)
    model(**inputs)
    with pytest.raises(ValueError, match="PassesBy does not call its own answer"):
        watched.read()


def test_vectors_that_nothing_can_move_are_refused(inputs):
    model = make_model(LinearHead(8, 2, 0.0))
    model.backbone.requires_grad_(False)
    watched = PooledVectors(model)
    model(**inputs)
    with pytest.raises(ValueError, match="nothing before the head learns"):
        watched.read()


def test_a_model_whose_rows_run_apart_is_refused():
    backbone = CanineModel(CanineConfig(hidden_size=8, num_hash_buckets=16, **SHAPE))
    with pytest.raises(ValueError, match="runs its rows in parts"):
        PooledVectors(Classifier(backbone, LinearHead(8, 2, 0.0)))
