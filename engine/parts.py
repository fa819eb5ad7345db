"""A checkpoint in parts: each process writes what it has, as safetensors, by
torch.distributed.checkpoint; any number of processes, one too, reads from it what it needs.

    step-00000120/parts/   one file a process; in each tensor's header, where it lies in the whole
"""

from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from engine.checkpoint import PARTS, all_tensors, fused, read_state, read_tensors
from engine.sharded import put_whole
from engine.world import from_first, gather, world


def write_parts(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Write the tensors, split or plain, into `folder`; all processes together. Raises ValueError
    where they do not share the folder that holds it."""
    blind = [rank for rank, sees in enumerate(gather(folder.parent.is_dir())) if not sees]
    if blind:
        raise ValueError(
            f"a checkpoint in parts goes into one folder that all processes see; {folder.parent} "
            f"is not there for rank {', '.join(map(str, blind))} of {world().size}: put run.dir on "
            "a file system that all machines share, or raise parallel.gathered_gib"
        )
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    dcp.save(tensors, storage_writer=writer)


def read_parts(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Fill the tensors, split or plain, from `folder`; of several processes all together. Raises
    ValueError where it has others, or of another shape."""
    check_fit(folder, tensors, {n: size for n, (size, _) in stored_tensors(folder).items()})
    reader = HuggingFaceStorageReader(str(folder))
    dcp.load(tensors, storage_reader=reader, no_dist=world().alone)


def stored_tensors(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and dtype of each tensor in `folder`, by name."""
    stored = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return {
        name: (one.size, one.properties.dtype)
        for name, one in stored.items()
        if isinstance(one, TensorStorageMetadata)
    }


def read_whole(folder: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, put together on the host; by their names without
    it. Of one process alone."""
    whole = {
        name: torch.empty(size, dtype=dtype)
        for name, (size, dtype) in stored_tensors(folder).items()
        if name.startswith(prefix)
    }
    dcp.load(whole, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    return {name.removeprefix(prefix): tensor for name, tensor in whole.items()}


def load_split(folder: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint, whole or in parts, into a model that is split and its optimizer; all
    processes together, of which rank 0 alone has to know `folder`. Raises ValueError where it does
    not fit."""
    told = {} if folder is None else {
        "without": read_state(folder)["without_state"],
        "parts": str(folder.resolve() / PARTS) if (folder / PARTS).is_dir() else None,
    }  # fmt: skip
    told = from_first(told)
    optimizer.state.clear()
    for name, p in model.named_parameters():
        if p.requires_grad and name not in told["without"]:
            steps = p.device if fused(optimizer) else "cpu"
            zeros = {key: torch.zeros_like(p) for key in ("exp_avg", "exp_avg_sq")}
            optimizer.state[p] = {"step": torch.zeros((), device=steps), **zeros}
    tensors = all_tensors(model, optimizer)
    if told["parts"] is not None:
        return read_parts(Path(told["parts"]), tensors)
    stored: dict[str, Tensor] = {}
    if folder is not None:
        for kind in ("trainable", "optimizer"):
            stored |= {f"{kind}/{n}": tensor for n, tensor in read_tensors(folder, kind).items()}
        check_fit(folder, tensors, {n: tensor.shape for n, tensor in stored.items()})
    for name, tensor in tensors.items():
        put_whole(tensor, stored.get(name, torch.empty(tensor.shape, dtype=tensor.dtype)))
    return None


def check_fit(folder: Path, own: dict[str, Tensor], stored: dict[str, torch.Size]) -> None:
    """Raise ValueError where a checkpoint has not the tensors of a model, or of other shapes."""
    missing = sorted(own.keys() - stored.keys())
    shapes = [name for name in own.keys() & stored.keys() if own[name].shape != stored[name]]
    if missing or shapes:
        raise ValueError(
            f"{folder} does not fit this model: {len(missing)} tensors missing {missing[:3]}, "
            f"{len(shapes)} of another shape {shapes[:3]}"
        )
