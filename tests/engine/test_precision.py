"""Device and dtype are chosen with a reason; half precision trains and never breaks the weights."""

import math

import pytest
import torch

import engine.precision
from engine.loop import MAX_SKIPS, NonFiniteError
from engine.optim import Schedule
from engine.precision import choose_precision

WITHOUT_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")


def test_auto_names_a_dtype_with_its_reason():
    precision = choose_precision("cpu", "auto")
    assert precision.dtype in ("fp32", "bf16")
    assert "measured" in precision.dtype_reason
    assert precision.device_reason == "as configured"


@pytest.mark.parametrize(
    ("small", "large", "dtype"), [(0.02, 9.0, "fp32"), (1e-5, 9e-4, "fp32"), (1e-5, 2e-4, "bf16")]
)
def test_auto_takes_bf16_only_where_it_was_measured_faster(monkeypatch, small, large, dtype):
    def seconds(of, size):
        return 1e-3 if of == torch.float32 else {128: small, 512: large}[size]

    monkeypatch.setattr(engine.precision, "seconds_for_product", seconds)
    assert choose_precision("cpu", "auto").dtype == dtype


def test_a_resumed_run_keeps_what_auto_meant_before(monkeypatch):
    monkeypatch.setattr(engine.precision, "probe_dtype", lambda device: pytest.fail("probed"))
    precision = choose_precision("cpu", "auto", resolved_dtype="bf16")
    assert precision.dtype == "bf16"
    assert "started" in precision.dtype_reason


def test_a_configured_dtype_wins_over_the_resolved_one():
    assert choose_precision("cpu", "fp32", resolved_dtype="bf16").dtype == "fp32"


@WITHOUT_CUDA
def test_auto_device_says_why_it_is_the_cpu():
    assert choose_precision("auto", "fp32").device_reason == "no CUDA device found"


@pytest.mark.parametrize(
    ("device", "rank", "seen", "gpus", "own"),
    [("cuda", 1, "", 2, 1), ("auto", 1, "", 2, 1), ("cuda", 1, "5", 1, 0),
     ("cuda:1", 1, "", 2, None), ("cuda", 1, "", 1, None), ("auto", 1, "", 1, None)],
)  # fmt: skip
def test_each_process_has_a_gpu_of_its_own(monkeypatch, device, rank, seen, gpus, own):
    """The same with "cuda" as with "auto"; where each sees one alone, as under Slurm, that one."""
    current = []
    for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2,
                        "CUDA_VISIBLE_DEVICES": seen}.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    for name, given in {"is_available": lambda: True, "device_count": lambda: gpus,
                        "set_device": current.append, "get_device_name": str}.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, given)
    if own is None:
        with pytest.raises(ValueError, match=r"processes"):
            choose_precision(device, "fp32")
    else:
        assert choose_precision(device, "fp32").device == torch.device("cuda", own)
        assert current == [torch.device("cuda", own)]


@pytest.mark.parametrize("device", ["gpu", "tpu:0", "cuda:x", "meta", ""])
def test_unknown_device_names_the_ways_out(device):
    with pytest.raises(ValueError, match=r"precision\.device is .* expected auto, cpu, cuda"):
        choose_precision(device, "fp32")


@WITHOUT_CUDA
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:3"])
def test_cuda_where_there_is_none_names_the_ways_out(device):
    with pytest.raises(ValueError, match="sees 0 CUDA devices here: use auto or cpu"):
        choose_precision(device, "fp32")


def test_only_fp16_scales_the_loss(make_rig):
    scaling = {dtype: make_rig(dtype=dtype).scaler.is_enabled() for dtype in ("fp32", "bf16")}
    assert scaling == {"fp32": False, "bf16": False}
    assert make_rig(dtype="fp16").scaler.is_enabled()


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_steps_differ_from_fp32_only_slightly(make_rig, dtype):
    rigs = {name: make_rig(dtype=name, epochs=1) for name in ("fp32", dtype)}
    for rig in rigs.values():
        rig.fit()
    assert rigs[dtype].progress.step == 2
    for exact, rounded in zip(rigs["fp32"].results, rigs[dtype].results, strict=True):
        assert rounded.loss == pytest.approx(exact.loss, rel=0.02)
        assert rounded.grad_norm == pytest.approx(exact.grad_norm, rel=0.1)
    assert rigs[dtype].results[0].loss != rigs["fp32"].results[0].loss
    assert all(p.dtype == torch.float32 for p in rigs[dtype].model.parameters())


def overflow(rig, when):
    """Make the gradient of the classifier infinite whenever `when()` says so."""
    rig.model.classifier.weight.register_hook(lambda g: g * math.inf if when() else g)
    return rig


def test_an_overflow_moves_neither_weights_nor_step_nor_rate(make_rig):
    rig = overflow(make_rig(dtype="fp16"), lambda: True)
    rig.schedule = Schedule("linear", 4, 0)
    rig.model.batch_norm.eval()
    before = {name: p.detach().clone() for name, p in rig.model.named_parameters()}
    scale, rate = rig.scaler.get_scale(), rig.optimizer.param_groups[0]["lr"]
    result = rig.step(make_rig.cut(rig.rows, 3))
    assert result.skipped
    assert not math.isfinite(result.grad_norm)
    assert all(torch.equal(p, before[name]) for name, p in rig.model.named_parameters())
    assert not rig.optimizer.state
    assert rig.progress.step == 0
    assert (rig.progress.skipped, rig.progress.skipped_in_a_row) == (1, 1)
    assert rig.optimizer.param_groups[0]["lr"] == rate
    assert rig.scaler.get_scale() == scale / 2
    assert all(p.grad is None for p in rig.model.parameters())


def test_a_run_goes_on_after_an_overflow(make_rig):
    rig = make_rig(dtype="fp16")
    rig.schedule = Schedule("linear", 4, 0)
    overflow(rig, lambda: rig.progress.step == 1 and rig.progress.skipped < 2)
    rig.fit()
    assert [result.skipped for result in rig.results] == [False, True, True, False]
    assert (rig.progress.step, rig.progress.skipped, rig.progress.skipped_in_a_row) == (2, 2, 0)
    assert rig.rates == pytest.approx([0.01, 0.0075, 0.0075, 0.0075])
    assert rig.evaluated == [1, 2]  # the first epoch's end comes after a skipped step


def test_overflows_without_end_stop_the_run(make_rig):
    rig = overflow(make_rig(dtype="fp16", epochs=MAX_SKIPS), lambda: True)
    before = rig.model.classifier.weight.detach().clone()
    with pytest.raises(NonFiniteError, match=f"{MAX_SKIPS} fp16 steps in a row"):
        rig.fit()
    assert rig.progress.skipped == MAX_SKIPS
    assert torch.equal(rig.model.classifier.weight, before)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_non_finite_gradient_stops_before_the_update(make_rig, dtype):
    rig = overflow(make_rig(dtype=dtype), lambda: rig.progress.step == 1)
    micro_batches = make_rig.cut(rig.rows, 4)[:2]
    rig.step(micro_batches)
    before = {name: p.detach().clone() for name, p in rig.model.named_parameters()}
    moments = rig.optimizer.state[rig.model.classifier.weight]["exp_avg"].clone()
    with pytest.raises(NonFiniteError, match=r"step 2 .*gradient norm (inf|nan)") as error:
        rig.step(micro_batches)
    assert "Rows of this step: [0, 1, 2, 3, 4, 5, 6, 7]" in str(error.value)
    assert all(torch.equal(p, before[name]) for name, p in rig.model.named_parameters())
    assert torch.equal(rig.optimizer.state[rig.model.classifier.weight]["exp_avg"], moments)
    assert rig.progress.step == 1
    assert all(p.grad is None for p in rig.model.parameters())


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_loss_names_step_and_rows_and_leaves_the_weights(make_rig, dtype, bad):
    rig = make_rig(dtype=dtype)
    plain = rig.compute_loss
    rig.compute_loss = lambda model, batch: (
        plain(model, batch) * (bad if 9 in batch["rows"] else 1.0)
    )
    before = {name: p.detach().clone() for name, p in rig.model.named_parameters()}
    with pytest.raises(NonFiniteError, match=f"the loss is {bad}") as error:
        rig.step(make_rig.cut(rig.rows, 6)[1:])
    assert "step 1 (epoch 1, micro-batch 1)" in str(error.value)
    assert "[6, 7, 8, 9, 10]" in str(error.value)
    assert all(torch.equal(p, before[name]) for name, p in rig.model.named_parameters())


def test_a_non_finite_loss_is_a_users_error():
    assert issubclass(NonFiniteError, ValueError)


def on(device, dtype):
    return engine.precision.Precision(torch.device(device), "", dtype, "")


def test_tf32_is_a_stated_choice_of_a_gpu_in_fp32(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", chosen.append)
    note = engine.precision.multiply_in_tf32
    assert "24 bits" in note(on("cuda", "fp32"), False)
    assert "rounded to TF32" in note(on("cuda", "fp32"), True)
    assert note(on("cuda", "bf16"), False) is None
    assert chosen == ["highest", "high", "highest"]
    assert note(on("cpu", "fp32"), False) is None
    assert "only GPUs" in note(on("cpu", "fp32"), True)
    assert len(chosen) == 3  # nothing is set for a CPU


def test_mps_is_accepted_and_said_to_be_untested(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    precision = choose_precision("mps", "auto")
    assert (precision.device.type, precision.dtype) == ("mps", "fp32")
    assert "untested" in precision.device_reason
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match="use auto or cpu"):
        choose_precision("mps", "auto")
