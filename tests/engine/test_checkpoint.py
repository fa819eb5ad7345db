"""What a checkpoint holds, and what it refuses."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from engine.checkpoint import (
    best_folder,
    drift,
    environment,
    load_optimizer,
    load_weights,
    optimizer_tensors,
    read_state,
    save_checkpoint,
    saved_tensors,
)
from engine.plan import Progress
from engine.storage import DamagedError, newest_valid, steps_on_disk


@pytest.fixture
def rig(make_rig):
    """A rig after training, its embedding frozen."""
    rig = make_rig(make_rig.toy(num_labels=3), make_rig.rows(11, num_labels=3))
    rig.model.embedding.requires_grad_(False)
    for group in rig.optimizer.param_groups:
        group["params"] = [p for p in group["params"] if p.requires_grad]
    rig.fit()
    return rig


def save(rig, root, keep=5, **progress):
    """The checkpoint's folder."""
    rig.progress = Progress(**{**vars(rig.progress), **progress})
    save_checkpoint(
        root, rig.model, rig.optimizer, rig.scaler, rig.progress, keep, {"note": "kept"}
    )
    return root / f"step-{rig.progress.step:08d}"


def test_a_checkpoint_is_safetensors_and_json_only(rig, tmp_path):
    folder = save(rig, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json", "optimizer.safetensors", "state.json", "trainable.safetensors",
    ]  # fmt: skip


def test_frozen_weights_are_left_out_and_buffers_are_kept(rig, tmp_path):
    names = load_file(save(rig, tmp_path) / "trainable.safetensors").keys()
    assert "embedding.weight" not in names
    assert {"classifier.weight", "batch_norm.running_mean"} <= names
    assert not any("embedding" in n for n in optimizer_tensors(rig.model, rig.optimizer))


def test_a_tied_parameter_is_saved_once_under_its_first_name():
    model = nn.ModuleDict({"first": nn.Linear(2, 2, bias=False), "second": nn.Linear(2, 2)})
    model["second"].weight = model["first"].weight
    assert saved_tensors(model).keys() == {"first.weight", "second.bias"}


def test_counters_and_record_come_back(rig, tmp_path):
    folder = save(rig, tmp_path, best_step=2, best_value=0.1 + 0.2, without_improvement=3)
    state = read_state(folder)
    assert Progress(**state["progress"]) == rig.progress
    assert state["progress"]["best_value"] == 0.1 + 0.2
    assert state["record"] == {"note": "kept"}


def test_optimizer_state_goes_by_name_and_survives_another_order(rig, make_rig, tmp_path):
    folder = save(rig, tmp_path)
    rig.optimizer.param_groups.reverse()
    for group in rig.optimizer.param_groups:
        group["params"].reverse()
    before = {k: t.clone() for k, t in optimizer_tensors(rig.model, rig.optimizer).items()}
    load_optimizer(folder, rig.model, rig.optimizer)
    after = optimizer_tensors(rig.model, rig.optimizer)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def rewrite(path, change):
    """Change the tensors of a file in place."""
    tensors = load_file(path)
    tensors = {name: t.clone() for name, t in tensors.items()}
    change(tensors)
    save_file(tensors, path)


def test_missing_optimizer_state_is_an_error(rig, tmp_path):
    folder = save(rig, tmp_path)

    def drop(tensors):
        for key in ("exp_avg", "exp_avg_sq", "step"):
            del tensors[f"{key}/hidden.bias"]

    rewrite(folder / "optimizer.safetensors", drop)
    with pytest.raises(ValueError, match=r"no optimizer state for \['hidden.bias'\]"):
        load_optimizer(folder, rig.model, rig.optimizer)
    rewrite(folder / "optimizer.safetensors", dict.clear)
    with pytest.raises(ValueError, match="no optimizer state"):
        load_optimizer(folder, rig.model, rig.optimizer)


def test_a_parameter_that_never_had_a_gradient_needs_no_optimizer_state(make_rig, tmp_path):
    rigs = []
    for _ in range(2):
        model = make_rig.toy()
        model.unused = nn.Linear(3, 3)  # as a pooler that the head does not look at
        rigs.append(make_rig(model))
    rigs[0].fit()
    load_optimizer(save(rigs[0], tmp_path), rigs[1].model, rigs[1].optimizer)
    assert rigs[1].model.unused.weight not in rigs[1].optimizer.state
    assert rigs[1].model.hidden.weight in rigs[1].optimizer.state


def test_a_checkpoint_before_the_first_step_has_no_optimizer_state(make_rig, tmp_path):
    rig = make_rig()
    load_optimizer(save(rig, tmp_path), rig.model, rig.optimizer)
    assert not rig.optimizer.state


def test_optimizer_state_of_another_shape_or_name_is_an_error(rig, tmp_path):
    folder = save(rig, tmp_path)
    rig.model.classifier = nn.Linear(8, 5)
    with pytest.raises(ValueError, match=r"optimizer state .*classifier.* fits no trainable"):
        load_optimizer(folder, rig.model, rig.optimizer)
    rig.model.classifier = nn.Identity()
    with pytest.raises(ValueError, match="fits no trainable"):
        load_optimizer(folder, rig.model, rig.optimizer)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("hidden.bias"), r"1 tensors missing \['hidden.bias'\]"),
        (lambda t: t.update(extra=torch.zeros(1)), r"1 unknown \['extra'\]"),
        (lambda t: t.update({"hidden.bias": torch.zeros(9)}), "1 of another shape"),
    ],
)
def test_weights_that_do_not_fit_are_an_error_and_change_nothing(rig, tmp_path, change, said):
    folder = save(rig, tmp_path)
    rewrite(folder / "trainable.safetensors", change)
    before = rig.weights()
    with pytest.raises(ValueError, match=said):
        load_weights(folder, rig.model)
    torch.testing.assert_close(rig.weights(), before, rtol=0, atol=0)


def test_loaded_state_does_not_hang_on_to_its_file(rig, tmp_path):
    folder = save(rig, tmp_path)
    load_weights(folder, rig.model)
    load_optimizer(folder, rig.model, rig.optimizer)
    before = {k: t.clone() for k, t in optimizer_tensors(rig.model, rig.optimizer).items()}
    path = folder / "optimizer.safetensors"
    path.write_bytes(b"\xff" * path.stat().st_size)  # overwritten in place
    after = optimizer_tensors(rig.model, rig.optimizer)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_another_format_is_refused(rig, tmp_path):
    folder = save(rig, tmp_path)
    state = json.loads((folder / "state.json").read_text(encoding="utf-8")) | {"format": 99}
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(ValueError, match="has format 99; this version reads 1"):
        read_state(folder)


def test_a_valid_step_is_never_overwritten(rig, tmp_path):
    folder = save(rig, tmp_path)
    before = {path.name: (path.read_bytes(), path.stat().st_ino) for path in folder.iterdir()}
    with torch.no_grad():
        rig.model.classifier.weight.add_(1.0)
    save(rig, tmp_path)
    assert {p.name: (p.read_bytes(), p.stat().st_ino) for p in folder.iterdir()} == before


def truncate(folder):
    path = folder / "trainable.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def flip(folder):
    path = folder / "optimizer.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def delete_manifest(folder):
    (folder / "manifest.json").unlink()


def delete_file(folder):
    (folder / "state.json").unlink()


DAMAGES = {
    truncate: "trainable.safetensors has",
    flip: "bytes of optimizer.safetensors have changed",
    delete_manifest: "no readable manifest",
    delete_file: "state.json is missing",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_and_the_newest_valid_used(rig, tmp_path, damage):
    good = save(rig, tmp_path, step=7)
    bad = save(rig, tmp_path, step=9)
    damage(bad)
    folder, said = newest_valid(tmp_path)
    assert folder == good
    assert len(said) == 1
    assert DAMAGES[damage] in said[0]
    assert "set aside as step-00000009.damaged-1" in said[0]
    assert (tmp_path / "step-00000009.damaged-1").is_dir()
    assert steps_on_disk(tmp_path) == [7]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_step_is_set_aside_and_saved_again(rig, tmp_path, damage):
    folder = save(rig, tmp_path)
    damage(folder)
    save(rig, tmp_path)
    load_weights(best_folder(tmp_path, rig.progress.step), rig.model)
    assert folder.with_name(folder.name + ".damaged-1").is_dir()


def test_a_damaged_best_checkpoint_is_not_used(rig, tmp_path):
    truncate(save(rig, tmp_path))
    with pytest.raises(DamagedError, match="expected"):
        best_folder(tmp_path, rig.progress.step)


def test_saving_keeps_the_newest_and_the_best(rig, tmp_path):
    for step in (10, 20, 30, 40):
        save(rig, tmp_path, keep=2, step=step, best_step=10)
    assert steps_on_disk(tmp_path) == [10, 30, 40]


def test_drift_has_a_line_for_each_difference(make_rig):
    now = environment(make_rig.precision(), {})
    assert {"torch", "transformers", "numpy", "python", "threads", "dtype", "device"} <= now.keys()
    assert json.loads(json.dumps(now)) == now
    assert drift(now, dict(now)) == []
    then = {**now, "torch": "1.0", "old": 1}
    assert drift(then, now) == [
        "old: 1 then, None now",
        f"torch: '1.0' then, {torch.__version__!r} now",
    ]
