"""Where the processes of a run come together: who they are, whether they were given the same."""

import os
import sys
from datetime import timedelta

from torch.nn.modules.batchnorm import _BatchNorm

from configs.schema import Config
from engine.precision import choose_precision
from engine.world import from_first, gather, join, started, world
from job.folder import Folder
from job.job import Job
from job.predicting.predictor import recorded_dtype


def meet(config: Config) -> None:
    """Join the processes that torchrun started beside this one, if any; once a run. All but rank 0
    are silent from then on. Raises ValueError where one was given other settings than rank 0: it
    might come to other meetings."""
    if started().alone:
        return
    device = choose_precision(config.precision.device, "fp32").device
    minutes = timedelta(minutes=config.parallel.timeout)
    if join(minutes, device.type, config.parallel.tensor).rank:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  as long as it runs
    compare({"settings": config.model_dump_json(exclude={"run": {"dir", "threads"}})})


def agreed_dtype(config: Config, folder: Folder, resume: bool) -> str | None:
    """What precision.dtype = "auto" means for all processes: what it meant when the run was
    started, else what rank 0 measures. None where this process is the only one, and measures."""
    then = recorded_dtype(folder) if resume and world().rank == 0 else None
    wanted = config.precision
    if then is None and wanted.dtype == "auto" and not world().alone and world().rank == 0:
        then = choose_precision(wanted.device, wanted.dtype).dtype
    return from_first(then)


def check_together(job: Job) -> None:
    """Note in the plan how many processes there are. Raises ValueError where one was given other
    rows or weights than rank 0, and for a model that several cannot train as one does."""
    if world().alone:
        return
    size, accumulate, shares = world().size, job.config.train.accumulate, world().shares
    norms = [name for name, one in job.built.model.named_modules() if isinstance(one, _BatchNorm)]
    if norms:
        raise ValueError(
            f"{norms[0]} is a norm over a batch: each of {size} processes would take it over rows "
            "of its own. Train with one process, or with another norm"
        )
    who = (
        f"{size} processes" if shares == size else f"{shares} groups of {size // shares} processes"
    )
    job.notes.append(f"{who} share the {accumulate} micro-batches of a step")
    if accumulate < shares:
        job.notes[-1] += (
            f", so {shares - accumulate} of them have none: raise train.accumulate to {shares} or "
            "more, and lower train.micro_batch_size as much"
        )
    compare({"rows": job.data.fingerprint, "weights": str(job.built.base)})


def compare(own: dict[str, str]) -> None:
    """Raise ValueError where another process has other ones than rank 0."""
    first, *others = gather(own)
    for rank, other in enumerate(others, start=1):
        if differing := [name for name in own if other[name] != first[name]]:
            raise ValueError(
                f"rank {rank} has other {' and '.join(differing)} than rank 0: all processes of a "
                "run need the same recipe, data and model"
            )
