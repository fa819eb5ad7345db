"""Where the fast paths must stand aside, stay honest, or stay apart."""

import copy

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from models.build import source_state
from models.fast.cpu.kernels import Texts
from models.fast.frozen import freeze_in, restore_exact
from models.fast.speed import SpeedArgs, speed_up
from models.methods.lora import LoRA

CPU, FP32, BF16 = torch.device("cpu"), torch.float32, torch.bfloat16
SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 32}  # fmt: skip
IDS = {
    "input_ids": torch.arange(2, 14).view(2, 6),
    "attention_mask": torch.tensor([[1] * 6, [1] * 3 + [0] * 3]),
}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [FP32, BF16])
def test_scores_that_are_no_numbers_do_not_become_probabilities(kernels, bad, dtype):
    torch.manual_seed(0)
    q, k, v, grad = torch.randn(4, 40, 2, 8).to(dtype)
    q[3, 0, 5] = bad
    texts = Texts([(0, 40)], [(0, 40)])
    out, lse = kernels.attend(q, k, v, texts, 1.0, None)
    assert out[3, 0].isnan().all()
    assert torch.cat([out[:3], out[4:]]).isfinite().all()
    assert out[:, 1].isfinite().all()
    dq, dk, dv = kernels.attend_backward(q, k, v, grad, lse, texts, 1.0, None, (True, True, True))
    assert dq[3, 0].isnan().all()
    assert dk[:, 0].isnan().all()
    assert dv[:, 0].isnan().all()
    assert all(t[:, 1].isfinite().all() for t in (dq, dk, dv))


def classifier(**changes):
    torch.manual_seed(0)
    config = BertConfig(**SIZES | changes)
    return AutoModelForSequenceClassification.from_config(config).eval()


def test_a_model_that_streams_would_change_keeps_stock_attention():
    model = classifier(is_decoder=True)
    expected = model(**IDS).logits
    args = SpeedArgs(native="off", linear=False)  # whose sums round otherwise
    speed = speed_up(model, args, CPU, FP32)
    assert any("decoder" in note for note in speed.notes)
    assert "attention" not in speed.resolved
    assert torch.equal(model(**IDS).logits, expected)


def test_nothing_is_compiled_for_a_model_that_would_not_use_it(monkeypatch):
    monkeypatch.setattr("models.fast.speed.load_native", lambda: pytest.fail("built for nothing"))
    args = SpeedArgs(dropout=False, gelu=False)
    speed = speed_up(classifier(is_decoder=True), args, CPU, FP32)
    assert "kernels" not in speed.resolved


@pytest.mark.parametrize("native", ["auto", "off"])
def test_a_deep_copy_computes_with_its_own_weights(native):
    model = classifier()
    speed_up(model, SpeedArgs(native=native), CPU, FP32)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.bert.encoder.layer[0].attention.self.query.weight.zero_()
        twin.bert.embeddings.word_embeddings.weight.zero_()
    assert not torch.equal(twin(**IDS).logits, model(**IDS).logits)
    twin(**IDS).logits.sum().backward()
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("kind", ["native", "linear"])
def test_the_source_holds_the_exact_weights_that_were_rounded(make, kind):
    built, args, tokenizer = make("bert", method=LoRA(("query",), rank=2), head_kind=kind)
    before = {n: t.clone() for n, t in built.model.state_dict().items()}
    freeze_in(built.model, BF16)
    restore_exact(built.model, source_state(args, tokenizer, built.base))
    after = built.model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_source_that_changed_while_training_is_refused(make):
    built, args, tokenizer = make("bert")
    with pytest.raises(ValueError, match="have changed since this run started"):
        source_state(args, tokenizer, built.base | {"sha256": "other"})
