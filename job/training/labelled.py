"""Everything before step 1 of a run on labelled texts: precision, tokenizer, data, model, loss,
optimizer, plan.

This is the second stage of validation: whatever needs the data, the weights or the device to be
seen is checked here, and all that is wrong is reported together.
"""

from typing import Any

from configs.schema import Config
from data.bags import encode_bags
from data.cache import cache_root
from data.encode import Encoded, encode
from data.prepare import Data
from engine.estimate import Estimate, held_memory
from engine.losses import LossFn
from engine.memory import explained
from engine.precision import Precision
from engine.targets import Target
from job.ending import reading
from job.job import Job
from job.parallel.place import place_model
from job.parallel.placed import Placed, ready, through
from job.predicting.predictor import length_args, make_padding, window_pool
from job.prepare import Problems, make_method, make_optimizer, plan_steps
from job.rows import load_rows, text_columns
from job.speed import evaluation_rows, set_up_torch
from job.tasks.task import Task
from job.training.bag import check_beside, check_source, settle_precision, weigh_terms
from job.training.cached import choose_cache
from job.training.contrast import choose_order, pair_up
from job.training.distill import Distilled, choose_compute_loss, open_distilled
from job.training.loss import choose_loss, keep_target, measure_labels, target_of
from job.training.needs import describe_idle, measure_bag, measure_needs, memory_advice
from job.training.probe import check_head, trial_step, try_loss
from job.training.rates import rate_notes
from job.training.relations import check_relations
from job.training.teacher import reads_all, student_source
from models.args import ModelArgs
from models.build import Built
from models.methods.method import added_parameters
from models.ngrams.bag import NgramTokenizer
from models.start import open_model, open_tokenizer


def make_model_args(config: Config, data: Data, target: Target, allow_code: bool) -> ModelArgs:
    """What the models package needs to know of the config and of the labels."""
    source, revision, _ = student_source(config)
    return ModelArgs(
        source=source,
        revision=revision,
        dropout=config.model.dropout,
        train=config.model.train,
        head_kind=config.head.kind,
        head_pool=config.head.pool,
        head_dropout=config.head.dropout,
        head_args=config.head.args,
        window_pool=window_pool(config),
        method=make_method(config),
        num_labels=max(1, len(data.label_names)),
        label_names=data.label_names,
        kind=data.kind,
        target_mean=target.mean,
        target_deviation=target.deviation,
        activation_checkpointing=config.model.activation_checkpointing,
        allow_code=allow_code,
    )


def encode_split(config: Config, tokenizer: Any, data: Data, split: str) -> Encoded:
    """One split as rows of tokens, or of a bag's terms, from the cache where they are already."""
    rows, cache = data.splits[split], cache_root() if config.data.cache else None
    if isinstance(tokenizer, NgramTokenizer):
        return encode_bags(rows, tokenizer, cache, data.fingerprint)
    return encode(rows, tokenizer, length_args(config), cache, data.fingerprint)


def prepare_labelled(
    task: Task, config: Config, allow_code: bool, resolved_dtype: str | None = None,
    rows: Data | None = None, needs: Estimate | None = None,
) -> Job:  # fmt: skip
    """Load and check everything. Raises ValueError with all that is wrong. `rows` stand in for
    those that the recipe names, `needs` for a measurement of memory and time: one who trains again
    and again on parts of the same rows has both."""
    details, problems = set_up_torch(config), Problems()
    sides, wanted = len(text_columns(config)), config.precision
    source, revision, every = student_source(config)
    tokenizer = problems.attempt(lambda: open_tokenizer(source, revision, sides))
    precision = problems.attempt(
        lambda: settle_precision(wanted.device, wanted.dtype, tokenizer, resolved_dtype)
    )
    problems.attempt(lambda: check_source(config, tokenizer))
    data = problems.attempt(lambda: load_rows(config) if rows is None else rows)
    problems.check()
    assert precision is not None
    assert data is not None
    assert tokenizer is not None
    target, label_notes = measure_labels(data)
    model_args = make_model_args(config, data, target, allow_code)
    built = problems.attempt(lambda: open_model(model_args, tokenizer, config.run.seed, every))
    if built is not None:
        taken = 0 if model_args.method is None else model_args.method.positions(built.model)
        problems.attempt(lambda: check_relations(config, data, tokenizer.model_max_length, taken))
        model_args, more = keep_target(model_args, built.target)
        label_notes += more
    target = target_of(model_args)
    loss = problems.attempt(
        lambda: choose_loss(
            config=config, data=data, target=target, device=precision.device, allow_code=allow_code
        )
    )
    resumed = resolved_dtype is not None
    taught = problems.attempt(
        lambda: open_distilled(config, data, precision, allow_code, built, resumed)
    )
    beside = problems.attempt(lambda: check_beside(config, data))
    problems.check()
    assert beside is not None
    assert built is not None
    assert loss is not None
    assert taught is not None
    with reading("the tokenizer"):
        encoded = {name: encode_split(config, tokenizer, data, name) for name in data.splits}
    weigh_terms(built.model, encoded["train"])
    placed = place_model(built.model, config, precision, reads_all(config))
    return assemble(
        task, config, precision, tokenizer, data, encoded, model_args, built, placed,
        loss, taught[0], [*built.notes, *taught[1], *beside, *label_notes], details, needs,
    )  # fmt: skip


def assemble(
    task: Task,
    config: Config,
    precision: Precision,
    tokenizer: Any,
    data: Data,
    encoded: dict[str, Encoded],
    model_args: ModelArgs,
    built: Built,
    placed: Placed,
    loss: tuple[LossFn, str],
    distilled: Distilled | None,
    notes: list[str],
    details: list[str],
    needs: Estimate | None = None,
) -> Job:
    """Optimizer, schedule, plan and estimate for a model and its data."""
    train, speed = config.train, placed.speed
    padding = make_padding(tokenizer)
    order, order_notes = choose_order(config, encoded["train"], data)
    plan = plan_steps(config, order.rows)
    groups, optimizer, schedule = make_optimizer(config, built, model_args.method, plan.total_steps)
    compute_loss, loss_note = pair_up(
        config, built.model, *choose_compute_loss(config, data.kind, loss, distilled)
    )
    with ready(placed):
        check_head(built, model_args, encoded["train"], padding, precision)
    resident = held_memory(precision.device)
    rows_at_once = evaluation_rows(config, built.model, precision.device)
    cached, cache_notes = (
        (None, [])
        if placed.in_parts
        else choose_cache(config, built, encoded, padding, precision, plan, speed, order.rows)
    )
    built.model.train()
    if needs is None:
        with trial_step(model_args.source), explained(memory_advice(config)):
            needs = measure_needs(
                built.model, through(placed, try_loss(compute_loss, distilled)), encoded, order,
                padding, precision,
                plan, train.micro_batch_size, rows_at_once, speed.streams, cached,
            )  # fmt: skip
    notes += rate_notes(train, model_args) + order_notes + cache_notes
    notes += describe_idle(needs.idle, added_parameters(built.model)) + placed.notes
    if config.model.compile and not placed.in_parts:
        built.model.compile()  # in place: the parameters keep their names
    return Job(
        config=config, task=task, precision=precision, tokenizer=tokenizer, data=data,
        encoded=encoded, order=order, padding=padding, model_args=model_args, built=built,
        speed=speed, placed=placed,
        loss_fn=loss[0], loss_note=loss_note, compute_loss=compute_loss, groups=groups,
        optimizer=optimizer, scaler=precision.scaler(), schedule=schedule,
        plan=plan, estimate=needs, resident_before=resident, distilled=distilled, cached=cached,
        bag_needs=measure_bag(config, data, model_args.num_labels), evaluation_rows=rows_at_once,
        notes=notes, details=details,
        probed_loss=compute_loss,
    )  # fmt: skip
