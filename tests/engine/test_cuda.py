"""What only a CUDA device can show."""

import math
import warnings

import pytest
import torch

from engine.checkpoint import load_optimizer, optimizer_tensors, save_checkpoint
from engine.feed import feed
from engine.loop import NonFiniteError
from engine.losses import count_items, cross_entropy, loss_from_logits
from engine.precision import choose_precision

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture
def cuda_rig(make_rig):
    """A rig on the first CUDA device."""

    def build(dtype: str = "auto"):
        precision = choose_precision("cuda", dtype)
        rig = make_rig(make_rig.toy().to(precision.device))
        rig.precision, rig.scaler = precision, precision.scaler()
        rig.compute_loss = loss_from_logits(cross_entropy)
        return rig

    return build


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "auto"])
def test_a_window_asks_the_device_nothing_until_its_figures_are_read(cuda_rig, make_rig, dtype):
    """fp16 has to know before the update whether the gradient overflowed: it asks once."""
    rig = cuda_rig(dtype)
    window = make_rig.cut(rig.rows, 3)
    for batch in window:
        batch["inputs"] = {name: t.pin_memory() for name, t in batch["inputs"].items()}
        batch["labels"] = batch["labels"].pin_memory()
    rig.step(window)  # the first step makes the optimizer's state
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            launched = rig.launch(window)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    syncs = [w for w in caught if "synchroniz" in str(w.message)]
    asks = rig.precision.dtype == "fp16"
    assert len(syncs) == asks, [str(w.message) for w in syncs]
    assert (launched.arrival is None) == asks
    assert math.isfinite(launched.result(rig.progress).loss)
    assert sum(count_items(batch) for batch in window) == 11


def test_fused_optimizer_state_comes_back_on_the_device(cuda_rig, tmp_path):
    rig, other = cuda_rig("fp32"), cuda_rig("fp32")
    rig.fit()
    save_checkpoint(tmp_path, rig.model, rig.optimizer, rig.scaler, rig.progress, 2, {})
    folder = tmp_path / f"step-{rig.progress.step:08d}"
    load_optimizer(folder, other.model, other.optimizer)
    ours = optimizer_tensors(other.model, other.optimizer)
    for name, tensor in optimizer_tensors(rig.model, rig.optimizer).items():
        assert ours[name].device == tensor.device
        assert torch.equal(ours[name], tensor)


def test_batches_arrive_whole_and_in_order_whatever_the_device_is_doing(make_rig):
    device = torch.device("cuda", 0)
    rows = make_rig.rows(64)
    batches = make_rig.cut(rows, 4)
    busy = torch.randn(2048, 2048, device=device)
    for before, batch in zip(batches, feed(batches, device, count_items), strict=True):
        for _ in range(4):
            busy = busy @ busy / 100
        assert batch["items"] == count_items(before)
        assert torch.equal(batch["labels"].cpu(), before["labels"])
        for name, tensor in before["inputs"].items():
            assert batch["inputs"][name].device == device
            assert torch.equal(batch["inputs"][name].cpu(), tensor)


def test_a_broken_step_is_held_back_on_the_device(cuda_rig, make_rig):
    rig = cuda_rig("fp32")
    good, bad = make_rig.cut(rig.rows, 3)[:2]
    rig.step([good])
    weights = [p.detach().clone() for p in rig.model.parameters()]
    bad["inputs"] = {k: torch.full_like(t, math.nan) if t.is_floating_point() else t
                     for k, t in bad["inputs"].items()}  # fmt: skip
    first, second = rig.launch([bad]), rig.launch([good])
    with pytest.raises(NonFiniteError):
        first.result(rig.progress)
    second.result(rig.progress)
    assert all(torch.equal(a, b) for a, b in zip(weights, rig.model.parameters(), strict=True))
