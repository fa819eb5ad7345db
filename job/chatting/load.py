"""What talks for a run: its model with its own template, cleaning and ends of replies."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from configs.schema import Config
from data.chat.intake import message_steps
from data.chat.render import first_special, special_tokens
from data.chat.templates import Template, Unrenderable, choose_template, render
from data.chat.turns import TEXT
from data.clean import Step, trace_steps
from engine.precision import Precision
from files.read import read_json
from files.write import save_text, to_json
from job.chatting.rows import chat_args
from job.chatting.talker import Message, Talker
from job.ending import reading
from job.folder import Folder, finished_config
from job.job import Job
from job.predicting.predictor import finished_precision
from job.speed import speed_up_model
from models.export import load_exported
from models.fast.speed import Speed
from models.generate import GenerateArgs
from models.language import end_tokens

FORM = "form.json"  # beside the weights
REPLY = "\u2021"  # stands for a reply: no template says it


def learns_texts(job: Job) -> bool:
    """Whether the rows are plain texts, which a model goes on with, and no conversations."""
    return of_texts(job.data.splits["train"])


def of_texts(rows: Any) -> bool:
    """Whether these rows of a source are plain texts."""
    first: str = rows[0]["messages"][0]["role"]
    return first == TEXT


def write_form(texts: bool, folder: Path) -> None:
    """Note beside the weights whether the model goes on with texts or answers messages."""
    save_text(folder / FORM, to_json({"texts": texts}, indent=1) + "\n")


def prompt_encoder(
    tokenizer: Any, template: Template, texts: bool, steps: Sequence[Step] = ()
) -> Callable[[Sequence[Message]], list[int]]:
    """Tokens of messages, cleaned by these steps, up to where the assistant begins; of a model of
    plain `texts` those of what was said last, which it goes on with. Raises ValueError for what the
    template refuses, and for a message of which cleaning leaves nothing."""
    special = special_tokens(tokenizer)

    def clean(message: Message) -> Message:
        text = trace_steps((message["content"],), steps)[0][0]
        if message["role"] != "system" and not text.strip():
            raise ValueError("cleaning leaves nothing of a message")
        return {**message, "content": text}

    def encode(messages: Sequence[Message]) -> list[int]:
        messages = [clean(message) for message in messages]
        if texts:
            ids: list[int] = tokenizer(messages[-1]["content"])["input_ids"]
            return ids
        for message in messages:
            if name := first_special(message["content"], special):
                raise ValueError(
                    f"a message says {name!r}, which the tokenizer reads as the token "
                    "of that name; leave it out"
                )
        try:
            text = render(tokenizer, template, list(messages), True)
        except Unrenderable as error:
            raise ValueError(f"the chat template refuses this conversation: {error}") from None
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    return encode


def written_end(tokenizer: Any, template: Template) -> list[int]:
    """The token that the template writes behind a reply, which need not be the tokenizer's end
    token (Gemma's is not); nothing where it writes none."""
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": REPLY}]
    behind = render(tokenizer, template, turns, False).rpartition(REPLY)[2]
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    ids = tokenizer(behind, add_special_tokens=False)["input_ids"]
    return [i for i in ids if i in special][:1]


def make_talker(
    config: Config, model: nn.Module, tokenizer: Any, precision: Precision, texts: bool
) -> Talker:
    """A talker for a model in memory; its tokenizer holds the template of its training."""
    template = choose_template(tokenizer, None)
    steps = message_steps(chat_args(config).clean, texts)
    settings = config.generate.model_dump(exclude={"replies"})
    return Talker(
        model=model,
        tokenizer=tokenizer,
        encode=prompt_encoder(tokenizer, template, texts, steps),
        ends=[*end_tokens(model, tokenizer), *([] if texts else written_end(tokenizer, template))],
        args=GenerateArgs(seed=config.run.seed, **settings),
        precision=precision,
        texts=texts,
        special=special_tokens(tokenizer),
    )


def talker_of(job: Job) -> Talker:
    """A talker for the model of a run as it now is."""
    return make_talker(job.config, job.built.model, job.tokenizer, job.precision, learns_texts(job))


def open_talker(
    folder: Folder, device: str | None, allow_code: bool, base: str | Path | None,
    allow_network: bool,
) -> tuple[Talker, Speed]:  # fmt: skip
    """The answer to Task.load. Raises ValueError where there is no finished model, and where the
    base of its adapter is at neither `base` nor the place it was trained from."""
    config = finished_config(folder)
    with reading(f"the model in {folder.path}"):
        model, tokenizer, _ = load_exported(
            folder.model, allow_code, base, allow_network, verified=True
        )
        texts = bool(read_json(folder.model / FORM, ["texts"])["texts"])
    precision = finished_precision(folder, config, device, tokenizer)
    model.to(precision.device).eval()
    speed = speed_up_model(model, config, precision, answers=True)
    return make_talker(config, model, tokenizer, precision, texts), speed
