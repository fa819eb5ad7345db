"""explanations.jsonl of a run: the words that its most confident mistakes rest on."""

from collections.abc import Sequence

from engine.plan import Progress
from engine.stop import StopRequest
from files.write import replace_text, to_json
from job.folder import Folder
from job.job import Job
from job.predicting.answers import pick_texts
from job.predicting.explain import explain_texts, most_asked
from job.predicting.outputs import piece_cells
from job.predicting.predictor import Predictor
from job.reporting.decided import EXPLANATIONS
from report.card import Mistake

SHARE = 0.05  # of the run's own arithmetic that explanations may take
FEW, MOST_SHARE = 1000, 0.25  # of a short run so many answers, if that is no more than a quarter


def affordable(job: Job, progress: Progress) -> int:
    """How many answers may be asked for. Counted, and not timed, so that a run that was resumed
    writes the same file. A step costs three answers a row; where the frozen part of the model is
    kept, a run hardly takes more than one answer a row."""
    answers = 3 * progress.step * job.plan.accumulate * job.config.train.micro_batch_size
    if job.cached is not None:
        answers = len(job.encoded["train"].dataset)
    return int(max(SHARE * answers, min(FEW, MOST_SHARE * answers)))


def try_explain(
    job: Job, folder: Folder, predictor: Predictor, mistakes: Sequence[Mistake],
    progress: Progress, stop: StopRequest,
) -> str:  # fmt: skip
    """explain_mistakes(); what goes wrong with it is said, and takes nothing from the run."""
    try:
        return explain_mistakes(job, folder, predictor, mistakes, progress, stop)
    except (RuntimeError, ValueError, MemoryError) as error:  # a full GPU is the first
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        return f"WARNING: mistakes are not explained: {reason}"


def explain_mistakes(
    job: Job, folder: Folder, predictor: Predictor, mistakes: Sequence[Mistake],
    progress: Progress, stop: StopRequest,
) -> str:  # fmt: skip
    """Write explanations.jsonl, a line for each of these test rows, as many as are affordable; what
    to say of it. Raises Stopped where it was asked to end meanwhile."""
    rows, left = job.data.splits["test"], affordable(job, progress)
    place = {address: number for number, address in enumerate(rows["address"])}
    texts = pick_texts(rows, [place[mistake.address] for mistake in mistakes])
    done = 0
    with replace_text(folder.path / EXPLANATIONS) as file:
        for mistake, text in zip(mistakes, texts, strict=True):
            stop.check()
            left -= most_asked(text)
            if left < 0:
                break
            (pieces,) = explain_texts(predictor, [text], [mistake.predicted])
            hidden = set() if predictor.pairs else {"side"}
            line = {
                "row": mistake.address, "label": mistake.label, "predicted": mistake.predicted,
                "probability": mistake.probability,
                "explanation": [piece_cells(piece, hidden) for piece in pieces],
            }  # fmt: skip
            file.write(to_json(line) + "\n")
            done += 1
    if not done:
        return "mistakes are not explained: on so short a run it would take too long"
    fewer = "" if done == len(mistakes) else f", of {len(mistakes)}: more would take too long"
    return f"explained: the {done} most confident mistakes{fewer} ({EXPLANATIONS})"
