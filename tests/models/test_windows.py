"""Texts in windows: their vectors become one, with the logits and gradients of a plain sum."""

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, FNetConfig, FNetModel

from models.apart import run_apart
from models.args import ModelArgs, check_model_args
from models.cut import Cut
from models.heads import Classifier, LinearHead, MLPHead
from models.windows import join_windows

COUNTS = [3, 1, 2]  # windows of three texts
PLACES = torch.tensor([[0, 1, 2], [3, -1, -1], [4, 5, -1]])


@pytest.fixture
def model():
    """model(head, pool, windows): a random two-layer BERT under a head, without dropout."""

    def make(head=LinearHead, pool="mean", windows="mean"):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=16, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        return Classifier(BertModel(config), head(16, 3, 0.0, pool=pool), windows)

    return make


@pytest.fixture
def inputs():
    """Six windows of up to eight tokens."""
    torch.manual_seed(1)
    lengths = torch.tensor([8, 8, 3, 5, 8, 4])
    mask = (torch.arange(8) < lengths[:, None]).long()
    ids = torch.randint(1, 50, (6, 8)) * mask
    return {"input_ids": ids, "attention_mask": mask}


def test_a_mean_or_largest_is_taken_over_the_windows_of_a_text_alone():
    pooled = torch.tensor(
        [[1.0, -4.0], [2.0, 0.0], [3.0, 1.0], [-5.0, -6.0], [1.0, 1.0], [0.0, 3.0]]
    )
    mean = [[2.0, -1.0], [-5.0, -6.0], [0.5, 2.0]]
    assert join_windows(pooled, PLACES, "mean").tolist() == mean
    assert join_windows(pooled, PLACES, "max").tolist() == [[3.0, 1.0], [-5.0, -6.0], [1.0, 3.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("how", ["mean", "max"])
def test_the_only_window_of_a_text_comes_back_to_the_bit(how, dtype):
    pooled = torch.randn(50, 7).to(dtype)
    joined = join_windows(pooled, torch.arange(50)[:, None], how)
    assert joined.dtype == dtype
    assert joined.equal(pooled)


@pytest.mark.parametrize("how", ["mean", "max"])
def test_windows_are_joined_without_a_question_to_the_device(how):
    pooled = torch.empty(6, 2, device="meta")  # which has no values to ask for
    assert join_windows(pooled, PLACES.to("meta"), how).shape == (3, 2)


@pytest.mark.parametrize("pool", ["mean", "cls", "last"])
@pytest.mark.parametrize("how", ["mean", "max"])
def test_logits_and_gradients_are_those_of_texts_one_by_one(model, inputs, pool, how):
    one, other = (model(MLPHead, pool, how) for _ in range(2))
    labels, loss = torch.tensor([0, 2, 1]), nn.CrossEntropyLoss(reduction="sum")
    logits = one(**inputs, windows=PLACES)
    loss(logits, labels).backward()
    plain, start = [], 0
    for count in COUNTS:
        vectors = []
        for row in range(start, start + count):
            n = int(inputs["attention_mask"][row].sum())
            hidden = other.backbone(inputs["input_ids"][row : row + 1, :n]).last_hidden_state[0]
            vectors.append({"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pool])
        stacked = torch.stack(vectors)
        joined = stacked.mean(0) if how == "mean" else stacked.amax(0)
        plain.append(other.head.out(torch.tanh(other.head.dense(joined))))
        start += count
    torch.testing.assert_close(logits, torch.stack(plain), atol=1e-6, rtol=1e-5)
    loss(torch.stack(plain), labels).backward()
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        if a.grad is not None:  # the backbone's own pooler is read by nobody
            torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_texts_of_one_window_have_the_logits_of_a_model_without_windows(model, inputs):
    plain = model(windows=None)(**inputs)
    assert model()(**inputs, windows=torch.arange(6)[:, None]).equal(plain)
    assert model(windows="max")(**inputs, windows=torch.arange(6)[:, None]).equal(plain)


@pytest.mark.parametrize("how", ["mean", "max"])
@pytest.mark.parametrize("layer", [None, 1])
def test_what_is_kept_of_a_text_in_windows_gives_the_same_logits(model, inputs, how, layer):
    whole = model(windows=how).eval()
    whole.requires_grad_(False)
    whole.head.requires_grad_(True)
    cut = Cut(whole, layer)
    inputs["windows"] = PLACES
    with torch.no_grad():
        expected = whole(**inputs)
        states = cut.keep(inputs)
        if layer is None:
            assert states.shape == (3, 16)  # one vector a text, not one a window
            ones = torch.ones(3, 1, dtype=torch.int64)
            begun = {"input_ids": ones, "attention_mask": ones, "kept": states.unsqueeze(1)}
        else:
            kept = states.new_zeros(6, 8, 16)
            kept[inputs["attention_mask"].bool()] = states
            begun = {**inputs, "kept": kept}
        torch.testing.assert_close(whole(**begun), expected, atol=1e-6, rtol=1e-5)


def test_vectors_that_are_joined_otherwise_are_kept_apart(model):
    digests = {
        Cut(model(windows=how).requires_grad_(False), None).digest() for how in ("mean", "max")
    }
    assert len(digests) == 2


def test_a_head_without_a_vector_of_its_windows_is_refused():
    with pytest.raises(ValueError, match=r'data.long = "chunks" .* Linear shows none'):
        Classifier(BertModel(BertConfig(num_hidden_layers=1)), nn.Linear(2, 2), "mean")


def test_an_architecture_whose_rows_run_apart_takes_no_windows():
    config = FNetConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, intermediate_size=32)
    for how in (None, "mean"):
        model = Classifier(FNetModel(config), LinearHead(16, 2, 0.0), how)
        if how is None:
            assert run_apart(model)
        else:
            with pytest.raises(ValueError, match=r'"chunks" runs .* its Fourier transform would'):
                run_apart(model)


def test_a_native_head_takes_no_windows():
    args = ModelArgs(source="x", num_labels=2, window_pool="mean")
    with pytest.raises(ValueError, match="a native head shows none"):
        check_model_args(args)
