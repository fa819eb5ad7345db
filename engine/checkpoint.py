"""What is in a checkpoint: data, and nothing that runs code when it is read.

    step-00000120/
      trainable.safetensors   trainable parameters and persistent buffers, by qualified name
      optimizer.safetensors   "exp_avg/<name>", "exp_avg_sq/<name>", "step/<name>"
      state.json              counters, scaler, base weights (source and hash), environment, config
      manifest.json           sizes and sha256, written last (files/publish.py)

Frozen weights are not copied: they are named by source and hash, and checked on resume. Of a model
in shards the same files are put together; above a size there is parts/ in their place (parts.py).
"""

import json
import os
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.gradients import is_split, whole
from engine.plan import Progress
from engine.precision import Precision
from engine.storage import rotate, step_folder
from engine.world import from_first, world
from files.publish import publish, set_aside, verify
from files.read import read_json
from files.verify import DamagedError

FORMAT = 1
PARTS = "parts"  # the folder within a checkpoint's
WHOLE, NOTHING = "", "nothing"  # what the others are told of one, beside the path of its parts


def saved_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What training can change, by qualified name: trainable parameters, persistent buffers."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    state = model.state_dict()
    return {name: t for name, t in state.items() if name in trainable or name not in parameters}


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Optimizer state as "key/parameter name" -> tensor. Names outlive a change of order."""
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
    return {
        f"{key}/{names[p]}": torch.as_tensor(value)
        for p, state in optimizer.state.items()
        for key, value in state.items()
    }


def without_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> set[str]:
    """Trainable parameters the optimizer keeps nothing for: it never saw a gradient of them."""
    named = model.named_parameters()
    return {name for name, p in named if p.requires_grad and not optimizer.state.get(p)}


def on_host(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Own, contiguous CPU copies, as safetensors wants them; what is split is put together, for
    which all processes have to ask."""
    return {name: whole(t.detach()).cpu().contiguous().clone() for name, t in tensors.items()}


def all_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What a checkpoint holds, as its parts name it."""
    own = {f"trainable/{name}": t for name, t in saved_tensors(model).items()}
    kept = optimizer_tensors(model, optimizer)
    return own | {f"optimizer/{name}": t for name, t in kept.items()}


def environment(precision: Precision, speed: dict[str, str]) -> dict[str, Any]:
    """Everything outside the config that "the same bits" depends on; `speed` names the fast paths
    that run."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "tokenizers": version("tokenizers"),
        "datasets": version("datasets"),
        "numpy": version("numpy"),
        "safetensors": version("safetensors"),
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "processes": world().size,
        "device": str(precision.device),
        "gpu": torch.cuda.get_device_name(precision.device)
        if precision.device.type == "cuda"
        else None,
        "dtype": precision.dtype,
        **{f"speed.{name}": value for name, value in speed.items()},
    }


def drift(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A line for each thing that differs from what the checkpoint was made with."""
    keys = sorted(saved.keys() | now.keys())
    return [
        f"{key}: {saved.get(key)!r} then, {now.get(key)!r} now"
        for key in keys
        if saved.get(key) != now.get(key)
    ]


def save_checkpoint(
    root: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    progress: Progress,
    keep: int,
    record: dict[str, Any],
    gathered: int | None = None,
) -> None:
    """Publish the checkpoint of `progress.step` under `root`, then remove old ones.

    A valid checkpoint of the same step is left as it is (a run is deterministic, so it holds the
    same bits). `record` is the caller's JSON: config, environment, base, log position. Of a model
    that is split it is rank 0 that calls this, and all others help_save; one of more than
    `gathered` bytes is written in parts.
    """
    folder, split = step_folder(root, progress.step), is_split(model)
    if os.path.lexists(folder):
        try:
            verify(folder)
            return tell(split, NOTHING)
        except DamagedError:
            set_aside(folder, "damaged")
    state = {
        "format": FORMAT,
        "progress": asdict(progress),
        "scaler": scaler.state_dict(),
        "without_state": sorted(without_state(model, optimizer)),
        "record": record,
    }
    root.mkdir(exist_ok=True)  # and not what holds it: of a run that was deleted nothing comes back
    tensors = all_tensors(model, optimizer)
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    with publish(folder) as temporary:
        if split and gathered is not None and size > gathered:
            tell(split, str(temporary.resolve() / PARTS))
            write_own_parts(temporary.resolve() / PARTS, tensors)
        else:
            tell(split, WHOLE)
            own, kept = saved_tensors(model), optimizer_tensors(model, optimizer)
            save_file(on_host(own), temporary / "trainable.safetensors")
            save_file(on_host(kept), temporary / "optimizer.safetensors")
        (temporary / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
    rotate(root, keep, progress.best_step)


def tell(split: bool, what: str) -> None:
    """Say to the other processes, where they have parts of it, how a checkpoint is written."""
    if split:
        from_first(what)


def help_save(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """What all but rank 0 have to do with a checkpoint of a model that is split."""
    if not is_split(model):
        return
    what, tensors = from_first(NOTHING), all_tensors(model, optimizer)
    if what == WHOLE:
        for tensor in tensors.values():
            whole(tensor.detach())
    elif what != NOTHING:
        write_own_parts(Path(what), tensors)


def write_own_parts(folder: Path, tensors: dict[str, Tensor]) -> None:
    """All processes together."""
    from engine.parts import write_parts

    write_parts(folder, tensors)


def read_tensors(folder: Path, kind: str) -> dict[str, Tensor]:
    """The whole tensors of a checkpoint, of one "trainable" or "optimizer", on the host, whichever
    way it was written."""
    if not (folder / PARTS).is_dir():
        return load_file(folder / f"{kind}.safetensors")
    from engine.parts import read_whole

    return read_whole(folder / PARTS, f"{kind}/")


def read_state(folder: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint. Raises ValueError for a format this version cannot read."""
    keys = ("format", "progress", "scaler", "without_state", "record")
    state = read_json(folder / "state.json", keys)
    if state["format"] != FORMAT:
        raise ValueError(f"{folder} has format {state['format']}; this version reads {FORMAT}")
    return state


def load_weights(folder: Path, model: nn.Module) -> None:
    """Put a checkpoint's tensors into the model. Raises ValueError unless names and shapes fit."""
    saved, own = read_tensors(folder, "trainable"), saved_tensors(model)
    missing, unknown = sorted(own.keys() - saved.keys()), sorted(saved.keys() - own.keys())
    shapes = [n for n in own.keys() & saved.keys() if own[n].shape != saved[n].shape]
    if missing or unknown or shapes:
        raise ValueError(
            f"{folder} does not fit this model: {len(missing)} tensors missing {missing[:3]}, "
            f"{len(unknown)} unknown {unknown[:3]}, {len(shapes)} of another shape {shapes[:3]}"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(saved[name])


def load_optimizer(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's optimizer state in place. Raises ValueError if any of it is missing, or
    does not fit this model."""
    tensors = read_tensors(folder, "optimizer")
    put_optimizer_tensors(tensors, model, optimizer, str(folder))
    missing = without_state(model, optimizer) - set(read_state(folder)["without_state"])
    if missing:
        raise ValueError(f"{folder}: no optimizer state for {sorted(missing)[:5]}")


def put_optimizer_tensors(
    tensors: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer, source: str
) -> None:
    """Put what optimizer_tensors gave in place. Raises ValueError, beginning with the `source`,
    where it does not fit this model."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer.state.clear()
    for full_name, tensor in tensors.items():
        key, name = full_name.split("/", 1)
        parameter = parameters.get(name)
        if parameter is None or (tensor.ndim and tensor.shape != parameter.shape):
            raise ValueError(
                f"{source}: optimizer state {full_name} {tuple(tensor.shape)} fits no trainable "
                "parameter of this model"
            )
        device = torch.device("cpu") if key == "step" and not fused(optimizer) else parameter.device
        optimizer.state[parameter][key] = tensor.to(device, copy=True)  # not the mapped file


def fused(optimizer: torch.optim.Optimizer) -> bool:
    """Fused AdamW keeps its step counter beside the parameter; the plain one on the host."""
    return bool(optimizer.param_groups[0].get("fused"))


def best_folder(root: Path, best_step: int) -> Path:
    """The verified checkpoint of the best evaluation. Raises DamagedError if it was harmed."""
    folder = step_folder(root, best_step)
    verify(folder)
    return folder
