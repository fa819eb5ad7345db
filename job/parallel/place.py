"""The model on its device: whole, with the fast paths, or in parts over the processes of the run.

build (all, on the host) ──> choose a way ──> whole      to the device, fast paths
                                        └──> in parts   layers split, then shards, plain layers
training over ──> the processes part; rank 0 goes on alone with the model put together
"""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from configs.schema import Config
from engine.checkpoint import load_weights
from engine.memory import room_of
from engine.plan import Progress
from engine.precision import Precision
from engine.storage import step_folder
from engine.ways import Processes, Way, choose, held
from engine.world import from_first, leave, world
from job.folder import Folder
from job.job import Job
from job.orders import give
from job.parallel.placed import Placed
from job.parallel.sizes import sizes_of
from job.speed import speed_up_model
from models.blocks import blocks_of
from models.heads import transformers_model
from models.ngrams.bag import NgramBag
from report.format import format_bytes

ALONE = "parallel: one process has all of the model; start several with torchrun (docs/scale.md)"


def place_model(
    model: nn.Module, config: Config, precision: Precision, speed_config: Config
) -> Placed:
    """Put a built model on its device, in place. `speed_config` has the [speed] that is to hold for
    a whole one. Raises ValueError for a way that does not fit the model or the processes."""
    way, notes = choose_way(model, config, precision)
    compiled = config.model.compile
    if way.strategy == "ddp" and way.tensor == 1:
        model.to(precision.device)
        return Placed(way, speed_up_model(model, speed_config, precision, compiled), notes)
    if (reason := why_not_in_parts(model, config, way)) is not None:
        raise ValueError(f"parallel: {way} does not go with {reason}")
    from engine.sharded import (  # they take a second, which others need not wait
        mesh_of,
        shard_model,
    )

    plain = copy.deepcopy(model) if world().rank == 0 else None
    speed = speed_up_model(model, frozen_alone(config), precision, compiled)
    speed.notes[:] = ["layers run plain in parts, but for frozen weights in the products' dtype"]
    blocks, device = blocks_of(model), precision.device
    if way.tensor > 1:
        from models.split import split_layers

        split_layers(model, mesh_of(device.type, way.shard)["tensor"])
    if way.strategy == "fsdp":
        shard_model(model, blocks, device, way.shard, way.offload, compiled)
        if not blocks:
            notes.append("fsdp: this backbone has no list of layers, so all of it is gathered")
    else:
        model.to(device)
    return Placed(way, speed, notes, plain)


def frozen_alone(config: Config) -> Config:
    """With no fast path but that frozen weights are kept in the dtype of the products."""
    on = [name for name, value in config.speed.model_dump().items() if value is True]
    switches: dict[str, Any] = dict.fromkeys(on, False)
    switches |= {"frozen": config.speed.frozen and not config.speed.plain, "native": "off"}
    return config.model_copy(update={"speed": config.speed.model_copy(update=switches)})


def why_not_in_parts(model: nn.Module, config: Config, way: Way) -> str | None:
    """What stands against a model that is spread so, in parts; None where nothing does."""
    if isinstance(model, NgramBag):
        return "a bag of n-grams, which is small: take parallel.strategy = 'ddp'"
    if config.distill is not None:
        return "[distill], whose teacher is whole on each process: take parallel.strategy = 'ddp'"
    if way.strategy == "fsdp" and (name := drops_layers(model)):
        return (
            f"{name}, which leaves layers out by chance, so that processes would gather different "
            "ones: take parallel.strategy = 'ddp'"
        )
    if config.model.compile and config.parallel.tensor > 1:
        return "model.compile beside parallel.tensor: leave one of them out"
    return None


def drops_layers(model: nn.Module) -> str | None:
    """The setting by which a backbone leaves whole layers out of some passes (LayerDrop: Fan et al.
    2020, arXiv:1909.11556); None where it has all in each."""
    values = transformers_model(model).config.to_dict()
    return next((name for name, value in values.items() if "layerdrop" in name and value), None)


def choose_way(model: nn.Module, config: Config, precision: Precision) -> tuple[Way, list[str]]:
    """How the model is spread, and why. Raises ValueError for what cannot be."""
    wanted, here = config.parallel, world()
    if here.alone:
        usual = wanted.strategy != "fsdp" and wanted.tensor == 1
        return Way("ddp"), [] if usual else [ALONE]
    if wanted.offload and precision.device.type != "cuda":
        raise ValueError(
            f"parallel.offload keeps shards on the host of a GPU; this runs on "
            f"{precision.device.type}, whose memory is the host's: leave it out"
        )
    fsdp = Way("fsdp", wanted.shard, wanted.tensor, wanted.offload)
    if wanted.strategy != "auto":
        way = fsdp if wanted.strategy == "fsdp" else Way("ddp", tensor=wanted.tensor)
        return way, [f"spread: {way}, as configured"]
    sizes = sizes_of(model, config, precision)
    processes = Processes(here.size, here.local_size)
    room = from_first(room_of(precision.device, here.local_size))  # which differs a little
    way = choose(sizes, processes, config.train.accumulate, room, fsdp)
    whole = held(sizes, Way("ddp", tensor=wanted.tensor), processes, config.train.accumulate)
    verb = "fit" if way.strategy == "ddp" else "do not fit"
    return way, [
        f"spread: {way}: weights {format_bytes(whole.weights)}, gradients "
        f"{format_bytes(whole.gradients)}, optimizer {format_bytes(whole.optimizer)} and "
        f"activations of about {format_bytes(whole.activations)} {verb} into the "
        f"{format_bytes(room)} of a process"
    ]


def come_apart(job: Job, folder: Folder, progress: Progress) -> None:
    """After the training of a model in parts: the other processes leave, and rank 0 has all of the
    model, as its last checkpoint has it, on the device where it fits, else on the host."""
    if job.placed is None or not job.placed.in_parts:
        return
    assert job.placed.plain is not None
    give(job, ("end", None))
    job.leads = False
    leave()
    model, device = job.placed.plain, job.precision.device
    load_weights(step_folder(folder.checkpoints, progress.step), model)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    job.optimizer.state.clear()
    if device.type == "cuda" and size > room_of(device, 1):
        device = torch.device("cpu")
        print("the whole model does not fit the GPU: it is tested on the CPU", flush=True)
    job.precision = replace(job.precision, device=device)
    job.built = replace(job.built, model=model)
    job.placed = place_model(model, job.config, job.precision, job.config)
    job.speed = job.placed.speed
