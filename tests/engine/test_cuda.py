"""What only a CUDA device can show."""

import warnings

import pytest
import torch

from engine.checkpoint import load_optimizer, optimizer_tensors, save_checkpoint
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
def test_a_window_syncs_with_the_host_once(cuda_rig, make_rig, dtype):
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
            rig.step(window)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    syncs = [w for w in caught if "synchroniz" in str(w.message)]
    assert len(syncs) == 1, [str(w.message) for w in syncs]
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
