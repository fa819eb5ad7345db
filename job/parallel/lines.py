"""What a run would be on so many processes, worked out without starting them."""

import math
import re

from engine.memory import room_of
from engine.ways import Processes, Way, choose, held, sent
from job.job import Job
from job.parallel.place import why_not_in_parts
from job.parallel.sizes import sizes_of
from models.split import why_whole
from report.format import format_bytes, format_count
from report.ways import Row, ways_lines


def parse_processes(word: str) -> Processes:
    """ "8": so many on one machine; "2x8": two machines with eight each. Raises ValueError."""
    match = re.fullmatch(r"(?:([1-9]\d*)x)?([1-9]\d*)", word)
    if match is None:
        raise ValueError(f"--processes is {word!r}; expected a number, as 8, or MACHINESxNUMBER")
    machines, each = int(match.group(1) or 1), int(match.group(2))
    return Processes(machines * each, each)


def processes_lines(job: Job, processes: Processes) -> list[str]:
    """Memory of each process and bytes it sends, for each way of spreading this run's model; which
    one parallel.strategy = "auto" would take. Raises ValueError for processes that make no groups
    of parallel.tensor."""
    config, parallel = job.config, job.config.parallel
    if processes.local_size % parallel.tensor:
        raise ValueError(
            f"parallel.tensor is {parallel.tensor}, and {processes.local_size} processes of a "
            "machine make no whole groups of that: take a multiple"
        )
    accumulate, shares = config.train.accumulate, processes.size // parallel.tensor
    own = math.ceil(accumulate / shares)
    step = (
        f"{format_count(job.plan.total_steps)} steps, as with one process; {accumulate} "
        f"micro-batches a step, {own} for each process"
        + (f" of {parallel.tensor}" if parallel.tensor > 1 else "")
    )
    if accumulate % shares:
        step += f", {shares * own - accumulate} of {shares} with one less"
    sizes = sizes_of(job.built.model, config, job.precision, job.estimate.activations)
    rows = []
    for way in ways_of(job, processes):
        if (reason := why_not(job, way)) is not None:
            rows.append(Row(str(way), reason=reason))
            continue
        one = held(sizes, way, processes, accumulate)
        bytes_sent = sent(sizes, way, processes, accumulate)
        rows.append(Row(str(way), (*vars(one).values(), one.total, bytes_sent)))
    room = room_of(job.precision.device, processes.local_size)
    wanted = Way("fsdp", parallel.shard, parallel.tensor, parallel.offload)
    way = choose(sizes, processes, accumulate, room, wanted)
    machines = processes.size // processes.local_size
    each = (
        f"{machines} machines with {processes.local_size} each" if machines > 1 else "one machine"
    )
    return ways_lines(
        f"{processes.size} processes on {each}", step, rows,
        f'parallel.strategy = "auto" would take {way} on machines like this one, where a process '
        f"may take {format_bytes(room)}",
    )  # fmt: skip


def ways_of(job: Job, processes: Processes) -> list[Way]:
    """What there is to choose from."""
    parallel = job.config.parallel
    ways = [Way("ddp", tensor=parallel.tensor)]
    for shard in ("full", "grad_op", "hybrid"):
        if shard != "hybrid" or processes.size > processes.local_size:
            ways.append(Way("fsdp", shard, parallel.tensor, parallel.offload))
    return ways


def why_not(job: Job, way: Way) -> str | None:
    """Why this run's model cannot be spread so; None where it can."""
    if way.tensor > 1 and (reason := why_whole(job.built.model, way.tensor)) is not None:
        return reason
    if way.tensor == 1 and way.strategy == "ddp":
        return None
    return why_not_in_parts(job.built.model, job.config, way)
