"""The `[samples]` texts with the model's answer before and after training, side by side."""

from collections.abc import Sequence

from report.format import (
    COLUMNS,
    NONE,
    align_table,
    clean_line,
    format_share,
    measure_width,
    shorten,
)

LABEL_COLUMNS = 24  # a longer label is cut, so that the text keeps most of the line
GAPS = 4 * 2  # align_table's spaces between the five columns

# A label, or a regression's value as text; and its probability, None where there is none.
Answer = tuple[str, float | None]


def _answer_cells(answer: Answer) -> tuple[str, str]:
    label, probability = answer
    shown = NONE if probability is None else format_share(probability, 1)
    return shorten(clean_line(label), LABEL_COLUMNS), shown


def samples_table(texts: Sequence[str], before: Sequence[Answer], after: Sequence[Answer]) -> str:
    """An aligned table of text, answer before and answer after, at most 100 columns wide.

    The three sequences have one entry a text; ValueError otherwise.
    """
    if not len(texts) == len(before) == len(after):
        raise ValueError(
            f"samples_table got {len(texts)} texts, {len(before)} answers before and "
            f"{len(after)} after; it needs one of each a text"
        )
    answers = [
        (*_answer_cells(old), *_answer_cells(new)) for old, new in zip(before, after, strict=True)
    ]
    header = ("before", "", "after", "")
    taken = sum(max(map(measure_width, column)) for column in zip(header, *answers, strict=True))
    room = COLUMNS - taken - GAPS
    rows = [("text", *header)]
    for text, cells in zip(texts, answers, strict=True):
        rows.append((shorten(clean_line(text), room), *cells))
    return "\n".join(align_table(rows, right=(2, 4)))
