"""The [samples] texts: what a run's model says of them before training, and after it."""

from contextlib import suppress

from engine.decision import Decision
from job.folder import Folder
from job.job import Job
from job.predicting.predictor import Predictor, make_predictor
from job.testing.scorer import plain_decision
from models.ngrams.fusion import Fusion
from report.samples import Answer, samples_table

NOT_ASKED = ("not asked", None)


def predictor_of(job: Job, decision: Decision, fusion: Fusion | None = None) -> Predictor:
    """A predictor for the model as it now is, and for the bag beside it."""
    return make_predictor(
        job.config, job.built.model, job.tokenizer, decision, job.data.label_names, job.precision,
        fusion,
    )  # fmt: skip


def predict_samples(job: Job, predictor: Predictor) -> list[Answer]:
    """What the model says now of the [samples] texts."""
    return [(p.label, p.probability) for p in predictor(job.config.samples.texts)]


def store_samples(job: Job, folder: Folder) -> None:
    """Keep what the model says before training."""
    predictor = predictor_of(job, plain_decision(job))
    answers = dict(zip(job.config.samples.texts, predict_samples(job, predictor), strict=True))
    folder.write_json("samples.json", answers)


def compare_samples(
    job: Job, folder: Folder, predictor: Predictor
) -> tuple[str, dict[str, Answer]]:
    """The table of answers before and after, and those after by text. A text added since the start
    has no answer before."""
    texts, stored = job.config.samples.texts, {}
    with suppress(ValueError):  # damaged or gone: no reason to lose a run by
        stored = folder.read_json("samples.json")
    answers = [stored.get(text) for text in texts]
    before = [
        (answer[0], answer[1]) if isinstance(answer, list) and len(answer) == 2 else NOT_ASKED
        for answer in answers
    ]
    after = predict_samples(job, predictor)
    return samples_table(texts, before, after), dict(zip(texts, after, strict=True))
