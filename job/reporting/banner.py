"""The plan of a prepared job, as the report package prints it."""

from dataclasses import astuple

from configs.schema import Config
from engine.optim import Schedule
from job.folder import Folder
from job.job import Job
from job.training.needs import adds_up, batch_tokens, row_lengths
from models.trainable import count_parameters
from report.format import format_bytes, format_seconds, split_warnings
from report.plan import Group, Memory, Plan
from report.verdict import few_rows

FIRST = (
    "config.toml", "environment.json", "data.json", "metrics.jsonl", "tensorboard/",
    "checkpoints/", "model/",
)  # fmt: skip
LAST = ("README.md", "report.html", "result.json")


def estimated_memory(job: Job) -> Memory:
    """Bytes at the peak: what the process already held, and what training adds."""
    needs = job.estimate
    return Memory(
        process=job.resident_before + needs.libraries, weights=needs.weights,
        gradients=needs.gradients, optimizer=needs.optimizer,
        activations=needs.activations + needs.holes,
        bag=0 if job.bag_needs is None else job.bag_needs.bytes,
    )  # fmt: skip


def estimated_seconds(job: Job) -> float:
    """Training and evaluations: tokens times the probe's time for one."""
    evaluations = job.plan.epochs
    if job.plan.evaluate_every:
        evaluations = max(1, job.plan.total_steps // job.plan.evaluate_every)
    micro_batches = job.plan.total_steps * job.plan.accumulate
    rows = min(
        micro_batches * job.config.train.micro_batch_size,
        job.plan.epochs * job.order.rows,
    )
    tokens = float(rows * mean_tokens(job))
    forward_only, streams = 0.0, job.speed.streams
    passes, more = job.task.beside(job)
    evaluations += passes
    for split, times in (("validation", evaluations), ("test", 1)):
        if split in job.encoded:
            forward_only += float(
                row_lengths(job.encoded[split], job.cached, streams).sum() * times
            )
    # a forward alone takes about a third of forward and backward
    seconds = job.estimate.seconds_per_token * (tokens + forward_only / 3)
    return seconds + more


def estimate_line(job: Job, peak: int | None, seconds: float | None) -> str:
    """What was estimated before the run beside what was measured."""
    needed = estimated_memory(job).total
    line = f"memory: {format_bytes(needed)} estimated, {format_bytes(peak)} measured"
    if seconds is None:
        return line
    estimated = format_seconds(estimated_seconds(job))
    return f"{line}; training to test: {estimated} estimated, {format_seconds(seconds)} measured"


def mean_tokens(job: Job) -> float:
    """Mean tokens that a training row costs: padded to the longest of its micro-batch, or only its
    own where batches run as streams."""
    split, streams = job.encoded["train"], job.speed.streams
    lengths = row_lengths(split, job.cached, streams)[job.order.epoch(0)]
    size = job.config.train.micro_batch_size
    return float(batch_tokens(lengths, size, adds_up(split, streams)).sum() / len(lengths))


def rates(schedule: Schedule, lr: float) -> list[tuple[int, float]]:
    """(step, learning rate) at five points: start, end of warm-up, half, three quarters, last."""
    last = max(schedule.total_steps - 1, 0)
    points = [0, min(schedule.warmup_steps, last), last // 2, last * 3 // 4, last]
    return [(step, lr * schedule.factor(step)) for step in sorted(set(points))]


def decay_note(config: Config) -> str:
    """What the decay adds to the loss, where it is part of it."""
    if config.train.decay == "decoupled" or not config.train.weight_decay:
        return ""
    return f"; {config.train.weight_decay / 2:g} times the squares of the weights that decay on top"


def cache_line(job: Job) -> str:
    """Whether the tokens came from the cache."""
    if not job.config.data.cache:
        return "token cache: off"
    hits = [f"{name} {'hit' if e.hit else 'miss'}" for name, e in job.encoded.items()]
    return "token cache: " + ", ".join(hits)


def streamed_rows(job: Job) -> dict[str, int]:
    """Training rows where they stream, which are not among those encoded."""
    return {} if job.data.stream is None else {"train": job.data.stream.rows}


def habit_lines(config: Config, metric: str, rows: int) -> list[str]:
    """How the run is evaluated, saved and fed."""
    every = config.eval.every if config.eval.every == "epoch" else f"{config.eval.every} steps"
    lines = [
        f"evaluation: after every {every}, {rows} of the longest rows at a "
        f"time, more of short ones; the best checkpoint is the one with the best {metric}"
    ]
    if config.eval.patience is not None:
        lines[0] += f"; stops after {config.eval.patience} evaluations without a better one"
    saved = "at each evaluation"
    if config.run.save_every:
        saved += f" and every {config.run.save_every} steps"
    lines.append(f"checkpoints: {saved}; the newest {config.run.keep} and the best are kept")
    if config.data.workers:
        lines.append(f"batches are prepared by {config.data.workers} other processes")
    if config.model.activation_checkpointing:
        lines.append("activations are recomputed in the backward pass")
    if config.model.compile:
        lines.append("torch.compile: the first steps are slow while it compiles")
    return lines


def warning_lines(job: Job) -> list[str]:
    """What a person would want to know before believing the result."""
    warnings, _ = split_warnings([*job.data.report.lines(), *job.notes])
    for name, encoded in job.encoded.items():
        if name != "train" and (line := few_rows(name, encoded.rows)):
            warnings.append(line)
    return warnings


def make_plan(job: Job, folder: Folder) -> Plan:
    """Everything that is known before step 1."""
    config, data, train = job.config, job.data, job.config.train
    rows = job.task.sections(job)
    trainable, total = count_parameters(job.built.model)
    groups = [
        Group(
            g["name"], len(g["params"]), sum(p.numel() for p in g["params"]),
            g["base_lr"], g["weight_decay"],
        )
        for g in job.groups
    ]  # fmt: skip
    return Plan(
        name=config.run.name,
        folder=str(folder.path),
        model=job.model_args.source,
        data=str(config.data.source),
        rows={name: e.rows for name, e in job.encoded.items()} | streamed_rows(job),
        balance=rows.balance,
        truncation=rows.truncation,
        length=rows.length,
        trainable=trainable,
        parameters=total,
        groups=groups,
        micro_batch_size=train.micro_batch_size,
        accumulate=train.accumulate,
        epochs=job.plan.total_steps / job.plan.steps_per_epoch,
        total_steps=job.plan.total_steps,
        warmup_steps=job.schedule.warmup_steps,
        lr=rates(job.schedule, train.lr),
        device=str(job.precision.device),
        device_reason=job.precision.device_reason,
        dtype=job.precision.dtype,
        dtype_reason=job.precision.dtype_reason,
        memory=estimated_memory(job),
        seconds=estimated_seconds(job),
        loss=job.loss_note + decay_note(config),
        cleaning=split_warnings(data.report.lines())[1],
        speed=job.speed.notes,
        replaced=[astuple(row) for row in job.speed.replaced],
        warnings=warning_lines(job),
        notes=[
            *split_warnings(job.notes)[1],
            *habit_lines(config, job.metric, job.evaluation_rows),
        ],
        details=[*job.details, cache_line(job), *job.speed.details],
        files=(*FIRST, *rows.files, *LAST),
    )  # fmt: skip
