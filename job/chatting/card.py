"""The run card of a language model, and the commands that talk to it."""

from shlex import join
from typing import Any

from configs.fields import list_settings
from configs.read import trajectory
from job.folder import Folder
from job.job import Job
from job.reporting.banner import estimated_memory, estimated_seconds
from job.reporting.card import train_on_command
from models.snippet import loading_snippet
from models.texts import Texts
from report.card import Card, Compared, Result

FIGURES = ("loss", "perplexity", "token_accuracy")
ELSEWHERE = "Elsewhere, with transformers and without openloop:"


def ask_command(job: Job, folder: Folder) -> str:
    """The command that opens a chat with the finished model."""
    words = ["python", "predict.py", "--run", str(folder.path)]
    return join(words + (["--allow-code"] if job.model_args.runs_code else []))


def load_run_snippet(job: Job, folder: Folder) -> str:
    """Python that talks to the run in the folder of openloop."""
    allow = ", allow_code=True" if job.model_args.runs_code else ""
    return (
        f"from openloop import load_run\n\ntalker = load_run({str(folder.path)!r}{allow})\n"
        'print(talker.reply([{"role": "user", "content": "Hello!"}]).text)\n'
    )


def results_of(metrics: dict[str, Any]) -> list[Result]:
    """The figures of a test, each with its interval."""
    return [
        Result(name, metrics[name], metrics["n"], *metrics["intervals"][name])
        for name in FIGURES
        if name in metrics
    ]


def make_card(
    job: Job, folder: Folder, command: str, metrics: dict[str, Any], before: dict[str, Any],
    weights: str, seconds: float | None, peak: int | None, replies: str,
) -> Card:  # fmt: skip
    """The run card's content from what the run measured."""
    compared = ""
    if before and metrics:
        compared = (
            f"before training loss {before['loss']:.4f}, perplexity {before['perplexity']:.2f}, "
            f"token accuracy {before['token_accuracy']:.4f}"
        )
    return Card(
        name=job.config.run.name,
        command=command,
        predict_command=ask_command(job, folder),
        load_run=load_run_snippet(job, folder),
        train_on_command=train_on_command(job, folder),
        snippet=loading_snippet(folder.model, job.model_args, Texts()),
        elsewhere=ELSEWHERE,
        data=[*job.data.report.lines(), *job.task.sections(job).length],
        settings=trajectory(job.config),
        defaults={key: setting.default for key, setting in list_settings().items()},
        results=results_of(metrics),
        compared=compared,
        classes=[],
        confusion=[],
        mistakes=[],
        replies=replies,
        memory=Compared(estimated_memory(job).total, peak),
        seconds=Compared(estimated_seconds(job), seconds),
        caveats=[f"These are {weights}.", "n is the number of learned tokens."],
    )
