"""Everything before step 1 of a run on conversations: precision, tokenizer, data, model, loss."""

from dataclasses import dataclass
from typing import Any

from configs.schema import Config
from data.cache import cache_root
from data.chat.batches import collate_chats
from data.chat.counts import ChatCounts
from data.chat.encode import encode_chats
from data.chat.packing import pack_chats
from data.chat.prepare import Chats
from data.chat.templates import choose_template
from data.encode import Encoded
from data.pairs import Order
from data.prepare import Data
from engine.estimate import held_memory
from engine.losses import cross_entropy
from engine.memory import explained
from engine.precision import Precision, choose_precision
from job.chatting.load import of_texts, written_end
from job.chatting.loss import chat_loss
from job.chatting.rows import chat_encoding, load_chat_rows
from job.ending import reading
from job.job import Job
from job.parallel.place import place_model
from job.parallel.placed import Placed, through
from job.predicting.predictor import make_padding
from job.prepare import Problems, make_method, make_optimizer, plan_steps
from job.speed import evaluation_rows, set_up_torch
from job.tasks.task import Task
from job.training.needs import describe_idle, measure_needs, memory_advice
from job.training.probe import trial_step
from job.training.rates import rate_notes
from models.args import ModelArgs
from models.build import Built
from models.generate import room
from models.language import add_ends, packs
from models.methods.method import added_parameters
from models.start import open_model, open_tokenizer

LOSS = "cross-entropy of each learned token, given those before it"


@dataclass(frozen=True)
class Opened:
    """What a run on conversations begins with, before its rows are encoded."""

    precision: Precision
    tokenizer: Any
    chats: Chats
    args: ModelArgs
    built: Built


def prepare_chat(
    task: Task, config: Config, allow_code: bool, resolved_dtype: str | None = None
) -> Job:
    """Load and check everything. Raises ValueError with all that is wrong."""
    details, problems = set_up_torch(config), Problems()
    opened = open_parts(config, allow_code, resolved_dtype, problems)
    model, cache = opened.built.model, cache_root() if config.data.cache else None
    encoded: dict[str, Encoded] = {}
    counts: dict[str, ChatCounts] = {}
    packed: list[str] = []
    with reading("the tokenizer"):
        for split in opened.chats.splits:
            encoded[split], counts[split] = encode_split(
                config, opened.tokenizer, opened.chats, split
            )
    if config.data.packing:
        if (reason := packs(model)) is not None:
            raise ValueError(f"data.packing: {reason}; set it to false (--unset data.packing)")
        packs_made = pack_chats(encoded["train"], config.data.max_length, config.run.seed, cache)
        encoded["train"] = packs_made.encoded
        packed = [packs_made.line(config.data.max_length)]
    placed = place_model(model, config, opened.precision, config)
    chats = opened.chats
    notes = [*opened.built.notes, *packed]
    data = Data(chats.splits, "chat", (), chats.report, chats.fingerprint, stream=chats.stream)
    return assemble(task, config, opened, data, encoded, counts, placed, notes, details)


def open_parts(
    config: Config, allow_code: bool, resolved_dtype: str | None, problems: Problems
) -> Opened:
    """Tokenizer, precision, conversations and model. Raises ValueError with all that is wrong."""
    source, revision, wanted = config.model.source, config.model.revision, config.precision
    tokenizer = problems.attempt(lambda: open_tokenizer(source, revision, 1, chat=True))
    precision = problems.attempt(
        lambda: choose_precision(wanted.device, wanted.dtype, resolved_dtype)
    )
    chats = problems.attempt(lambda: load_chat_rows(config))
    problems.check()
    assert precision is not None
    assert chats is not None
    args = ModelArgs(
        source=source,
        revision=revision,
        dropout=config.model.dropout,
        train=config.model.train,
        method=make_method(config),
        num_labels=0,
        kind="chat",
        activation_checkpointing=config.model.activation_checkpointing,
        allow_code=allow_code,
    )
    built = problems.attempt(lambda: open_model(args, tokenizer, config.run.seed))
    problems.check()
    assert tokenizer is not None
    template = choose_template(tokenizer, config.data.template)
    tokenizer.chat_template = template.text  # goes with the model wherever it goes
    assert built is not None
    if not of_texts(chats.splits["train"]):
        add_ends(built.model, written_end(tokenizer, template))
    check_positions(config, built.model)
    return Opened(precision, tokenizer, chats, args, built)


def check_positions(config: Config, model: Any) -> None:
    """Raise ValueError where rows of data.max_length tokens have no room in the model."""
    most, wanted = room(model), config.data.max_length
    if most is not None and wanted > most:
        raise ValueError(
            f"data.max_length is {wanted:,}; {config.model.source} reads at most {most:,} tokens: "
            f"set it to {most:,} or less"
        )


def encode_split(
    config: Config, tokenizer: Any, chats: Chats, split: str
) -> tuple[Encoded, ChatCounts]:
    """One split as rows of tokens, from the cache where they are already, and what became of its
    conversations."""
    cache = cache_root() if config.data.cache else None
    return encode_chats(
        chats.splits[split], tokenizer, chat_encoding(config), cache, chats.fingerprint, split
    )


def assemble(
    task: Task, config: Config, opened: Opened, data: Data, encoded: dict[str, Encoded],
    counts: dict[str, ChatCounts], placed: Placed, notes: list[str], details: list[str],
) -> Job:  # fmt: skip
    """Optimizer, schedule, plan and estimate for a model and its conversations."""
    train, built, precision = config.train, opened.built, opened.precision
    speed = placed.speed
    streamed = 0 if data.stream is None else data.stream.rows
    padding, order = (
        make_padding(opened.tokenizer),
        Order(config.run.seed, None, encoded["train"].rows, streamed=streamed),
    )
    plan = plan_steps(config, order.rows)
    method = opened.args.method
    groups, optimizer, schedule = make_optimizer(config, built, method, plan.total_steps)
    compute_loss = chat_loss(built.model)
    resident = held_memory(precision.device)
    rows_at_once = evaluation_rows(config, built.model, precision.device)
    built.model.train()
    with trial_step(opened.args.source), explained(memory_advice(config)):
        needs = measure_needs(
            built.model, through(placed, compute_loss), encoded, order, padding, precision, plan,
            train.micro_batch_size, rows_at_once, speed.streams, collate=collate_chats,
        )  # fmt: skip
    notes += rate_notes(train, opened.args)
    notes += describe_idle(needs.idle, added_parameters(built.model)) + placed.notes
    if config.model.compile and not placed.in_parts:
        built.model.compile()  # in place: the parameters keep their names
    return Job(
        config=config, task=task, precision=precision, tokenizer=opened.tokenizer, data=data,
        encoded=encoded, order=order, padding=padding, model_args=opened.args, built=built,
        speed=speed, placed=placed, loss_fn=cross_entropy, loss_note=LOSS,
        compute_loss=compute_loss, groups=groups, optimizer=optimizer, scaler=precision.scaler(),
        schedule=schedule, plan=plan, estimate=needs, resident_before=resident,
        evaluation_rows=rows_at_once,
        notes=notes, details=details, probed_loss=compute_loss, counts=counts,
    )  # fmt: skip
