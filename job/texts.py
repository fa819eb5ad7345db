"""What a run reads of its texts, told to whoever opens its model elsewhere and to its user."""

from data.long import LengthArgs
from job.predictor import length_args, text_columns
from job.prepare import Job
from models.apart import needs_apart
from models.ngrams.bag import NgramTokenizer
from models.texts import Texts

LOST = {"right": "end", "left": "beginning"}  # truncation -> what a longer text loses


def texts_of(job: Job) -> Texts:
    """How the model takes its texts, for other tools."""
    length = length_args(job.config)
    return Texts(
        max_length=length.max_length,
        truncation=length.truncation,
        pairs=len(text_columns(job.config)) == 2,
        alone=needs_apart(job.built.model) is not None,
        ends=ends_of(length, job) if length.long == "head_tail" else None,
    )


def ends_of(length: LengthArgs, job: Job) -> tuple[int, int]:
    """Tokens of a longer text's beginning and end that are read."""
    return length.head, length.tail(job.tokenizer.num_special_tokens_to_add())


def length_line(job: Job) -> str:
    """How much of a text is read, for the plan."""
    if isinstance(job.tokenizer, NgramTokenizer):
        return "texts are read whole, whatever data.max_length says"
    length = length_args(job.config)
    line = f"at most {length.max_length} tokens a text; "
    if length.long == "head_tail":
        head, tail = ends_of(length, job)
        return f"{line}of longer ones the first {head} and the last {tail}"
    return f"{line}longer ones lose their {LOST[length.truncation]}"
