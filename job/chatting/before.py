"""What a language model says before training, kept for what it says after it."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from typing import Any, NamedTuple

from engine.tracker import Tracker
from job.chatting.load import talker_of
from job.chatting.talker import Message, Prompt, Reply, Talker
from job.fit import split_batches
from job.folder import Folder
from job.job import Job
from report.samples import Answer

BEFORE = "before.json"


class TestPrompt(NamedTuple):
    """A conversation up to its last reply, its tokens, where it stands, and that reply."""

    address: str
    messages: list[Message]
    prompt: Prompt
    reference: str


class Before(NamedTuple):
    """Figures on the test rows, replies to test_prompts, and answers by prompt of [samples]."""

    metrics: dict[str, Any]
    replies: list[Reply]
    samples: dict[str, Any]


def test_prompts(
    rows: Iterable[Any], most: int, talker: Talker
) -> tuple[list[TestPrompt], list[str]]:
    """The first `most` of test conversations that hold a reply and that the model can be asked, and
    a line for each that it cannot: what says a special token, or has no room."""
    prompts: list[TestPrompt] = []
    refused: list[str] = []
    for row in rows:
        if len(prompts) == most:
            break
        turns = row["messages"]
        replies = [i for i, turn in enumerate(turns) if turn["role"] == "assistant"]
        if not replies or replies[-1] == 0:
            continue
        last = replies[-1]
        try:
            prompt = talker.fit(turns[:last])
        except ValueError as error:
            refused.append(f"{row['address']} is not asked for a reply: {error}")
        else:
            true = turns[last]["content"]
            prompts.append(TestPrompt(row["address"], turns[:last], prompt, true))
    return prompts, refused


def ask_samples(job: Job, talker: Talker) -> dict[str, Answer]:
    """What the model says now to the prompts of [samples]. Raises ValueError for one that it cannot
    be asked."""
    texts = job.config.samples.texts
    try:
        replies = talker.replies([[{"role": "user", "content": text}] for text in texts])
    except ValueError as error:
        raise ValueError(f"samples.texts: {error}") from None
    return {text: (reply.text, None) for text, reply in zip(texts, replies, strict=True)}


def store_before(job: Job, folder: Folder) -> None:
    """Figures on the test rows, replies and samples of the model as it comes."""
    talker = talker_of(job)
    folder.write_json("samples.json", ask_samples(job, talker))
    metrics: dict[str, Any] = {}
    if "test" in job.encoded:
        metrics = job.task.evaluate(job, split_batches(job, "test"))
        print(job.task.line("before training, test", 0, metrics, job.metric), flush=True)
    prompts, refused = test_prompts(
        job.data.splits.get("test", ()), job.config.generate.replies, talker
    )
    print("".join(f"{line}\n" for line in refused), end="", flush=True)
    replies = [asdict(reply) for reply in talker.answer([one.prompt for one in prompts])]
    folder.write_json(BEFORE, {"test": metrics, "replies": replies})


def read_before(folder: Folder) -> Before:
    """As it was before; empty where it is gone or damaged, which is no reason to lose a run by."""
    samples: dict[str, Any] = {}
    with suppress(ValueError):
        samples = folder.read_json("samples.json")
    with suppress(ValueError, TypeError):
        stored = folder.read_json(BEFORE, "test", "replies")
        return Before(stored["test"], [Reply(**one) for one in stored["replies"]], samples)
    return Before({}, [], samples)


def log_samples(job: Job, tracker: Tracker, step: int) -> None:
    """What the model says to the prompts of [samples] at an evaluation; of one in parts nothing,
    since rank 0 asks alone."""
    if job.in_parts or not job.config.samples.texts:
        return
    lines = "\n".join(
        f"{text} → {reply}" for text, (reply, _) in ask_samples(job, talker_of(job)).items()
    )
    tracker.log_text(step, "samples", lines)
    tracker.say(lines)
