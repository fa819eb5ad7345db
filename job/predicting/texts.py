"""What a run reads of its texts, told to whoever opens its model elsewhere and to its user."""

from typing import Any

import numpy as np
from torch import nn

from configs.schema import Config
from data.encode import Encoded, encode_texts
from data.long import LengthArgs
from data.prepare import Data
from job.job import Job
from job.predicting.predictor import length_args, window_pool
from job.rows import load_rows, text_columns
from job.training.needs import adds_up, most_tokens, row_lengths, widest_of
from job.training.teacher import student_source
from models.apart import needs_apart
from models.architectures import reads_last
from models.methods.method import tokens_in_front
from models.ngrams.bag import NgramTokenizer
from models.start import open_tokenizer
from models.texts import Texts, Windows
from report.format import clean_line, format_bytes, format_count, format_number, format_share

LOST = {"right": "end", "left": "beginning"}  # truncation -> what a longer text loses
JOINED = {"mean": "averaged", "max": "joined by the largest of each dimension"}


def texts_of(job: Job) -> Texts:
    """How the model takes its texts, for other tools."""
    return read_texts(job.config, job.built.model, job.tokenizer)


def read_texts(config: Config, model: nn.Module, tokenizer: Any) -> Texts:
    """The same of a model that was trained by these settings."""
    length, pool = length_args(config), window_pool(config)
    # PEFT hides the ids behind a prompt, so that a head finds no pad token and reads padding
    hidden = reads_last(model) and tokens_in_front(model) > 0
    return Texts(
        max_length=length.max_length,
        truncation=length.truncation,
        pairs=len(text_columns(config)) == 2,
        alone=hidden or needs_apart(model) is not None,
        ends=ends_of(length, tokenizer) if length.long == "head_tail" else None,
        windows=None if pool is None else Windows(length.overlap, length.most_windows, pool),
    )


def ends_of(length: LengthArgs, tokenizer: Any) -> tuple[int, int]:
    """Tokens of a longer text's beginning and end that are read."""
    return length.head, length.tail(tokenizer.num_special_tokens_to_add())


def length_lines(job: Job) -> list[str]:
    """How much of a text is read, and what windows cost, for the plan."""
    if isinstance(job.tokenizer, NgramTokenizer):
        return ["texts are read whole, whatever data.max_length says"]
    length, pool = length_args(job.config), window_pool(job.config)
    lost, most = LOST[length.truncation], length.max_length
    if pool is not None:
        return [
            f"windows of at most {most} tokens, {length.overlap} of them shared with the one "
            f"before; their vectors are {JOINED[pool]}. Texts of more than {length.most_windows} "
            f"windows lose their {lost}",
            *window_lines(job),
            cost_line(job),
        ]
    if length.long == "head_tail":
        head, tail = ends_of(length, job.tokenizer)
        return [
            f"at most {most} tokens a text; of longer ones the first {head} and the last {tail}"
        ]
    return [f"at most {most} tokens a text; longer ones lose their {lost}"]


def window_counts(split: Encoded) -> np.ndarray | None:
    """(N,) how many windows each text has; None where none are made."""
    if "windows" not in split.dataset.column_names:
        return None
    return np.array([len(windows) for windows in split.dataset["windows"]])


def length_counts(job: Job) -> dict[str, dict[str, int]]:
    """Of each split: rows that lost something, and the tokens that are read and lost; where texts
    are read in windows, these and the rows that have several."""
    report = {}
    for name, split in job.encoded.items():
        lost = {"cut_rows": split.truncated_rows, "cut_tokens": split.cut_tokens}
        report[name] = {"tokens": split.tokens, **lost}
        if (counts := window_counts(split)) is not None:
            several = int((counts > 1).sum())
            report[name] |= {"windows": int(counts.sum()), "windowed_rows": several}
    return report


def window_lines(job: Job) -> list[str]:
    """How many windows the texts of each split have; nothing where none are made."""
    lines = []
    for name, split in job.encoded.items():
        if (counts := window_counts(split)) is not None:
            mean, several = format_number(float(counts.mean())), int((counts > 1).sum())
            lines.append(
                f"{name}: {mean} windows a text, at most {counts.max()}; {format_count(several)} "
                f"texts have more than one ({format_share(several, split.rows)})"
            )
    return lines


def cost_line(job: Job) -> str:
    """What windows take beside what their first ones alone would, as with data.long = "cut"."""
    split, streams = job.encoded["train"], job.speed.streams
    first = np.array([windows[0] for windows in split.dataset["windows"]])
    times = split.tokens / int(first.sum())
    line = f"beside cut: about {format_number(times)} times the time of an epoch"
    if job.cached is not None and job.cached.cut.vectors:
        return f"{line} where vectors are computed, none where they are kept"
    size = job.config.train.micro_batch_size
    lengths = row_lengths(split, job.cached, streams)
    most = most_tokens(lengths, job.order, job.plan, size, adds_up(split, streams))
    if not streams:
        first = np.full_like(first, widest_of(split) or 0)
    fewer = most_tokens(first, job.order, job.plan, size, streams)
    more = job.estimate.activations * max(0.0, 1 - fewer / most)
    return (
        f"{line}, and about {format_bytes(int(more))} more memory: the largest micro-batch has "
        f"{format_count(most)} tokens, not {format_count(fewer)}"
    )


def row_lines(config: Config, count: int) -> list[str]:
    """The first training rows: where they stand, their label, and the tokens that the model reads
    of them, as text."""
    source, revision, _ = student_source(config)
    tokenizer = open_tokenizer(source, revision, len(text_columns(config)))
    data = load_rows(config)
    lines = []
    for row in data.splits["train"].select(range(min(count, len(data.splits["train"])))):
        pairs = [row["text_pair"]] if "text_pair" in row else None
        label = row["label"] if data.kind == "regression" else name_label(data, row["label"])
        if isinstance(tokenizer, NgramTokenizer):
            read = " | ".join([row["text"], *(pairs or [])])
        else:
            (one,) = encode_texts(tokenizer, [row["text"]], pairs, length_args(config))
            read = tokenizer.decode(one["input_ids"])
        lines.append(f"{row['address']} ({label}): {clean_line(read)}")
    return lines


def name_label(data: Data, label: Any) -> str:
    """The names of a row's classes."""
    if data.kind == "single":
        return data.label_names[label]
    names = [name for name, on in zip(data.label_names, label, strict=True) if on > 0.5]
    return ", ".join(names) or "none"
