"""What goes with data.stream and what does not; the rules are as in relations.py."""

from collections.abc import Mapping
from typing import Any

Settings = Mapping[str, Any]
Verdict = str | None

# what a stream needs to be set so, and why
NEEDED: dict[str, tuple[Any, str]] = {
    "data.clean.duplicates": (False, "a stream remembers no text, so none is found twice"),
    "eval.baseline": (False, "a bag of words learns from all training rows, and they are not kept"),
    "data.workers": (0, "a thread of the training process reads on"),
    "data.drop_rows": (None, "rows are named by those who have read all of them"),
    "data.group": (None, "what belongs together is known once all rows are read"),
    "data.packing": (False, "which conversations share a row is known once all are encoded"),
    "distill": (False, "a teacher's answers are kept for each training row"),
    "bag": (False, "a bag beside the encoder learns from all training rows at once"),
    "contrast": (False, "pairs are drawn among all training rows"),
    "ngrams": (False, "a bag of n-grams weighs its terms by all training rows"),
}


def streams_keep_no_rows(s: Settings) -> Verdict:
    if not s["data.stream"]:
        return None
    for key, (value, why) in NEEDED.items():
        if s[key] != value:
            name = "model.source" if key == "ngrams" else key
            way = f"set {key} = {str(value).lower()}" if value in (False, 0) else f"remove {key}"
            way = f"remove [{key}]" if key in ("distill", "bag", "contrast") else way
            way = "take a transformer" if key == "ngrams" else way
            return f"{name}: it does not go with data.stream = true: {why}; {way}"
    return None


def streams_meet_held_out_rows_on_their_way(s: Settings) -> Verdict:
    if s["data.stream"] and s["data.on_overlap"] == "refuse":
        return (
            'data.on_overlap: got "refuse" with data.stream = true; a training row that has the '
            "text of a validation or test row is met in the middle of the run: say what becomes of "
            'it, "drop" (another row takes its place) or "warn" (it is trained on, and counted)'
        )
    return None


def streams_are_taken_whole(s: Settings) -> Verdict:
    if s["data.stream"] and "train" in s["data.subset"]:
        return (
            "data.subset: got a number of training rows with data.stream = true, and to draw them "
            "the whole source would be read: remove it, and set train.max_steps where the run is "
            "to end earlier"
        )
    return None


def streams_do_not_count_classes(s: Settings) -> Verdict:
    if s["data.stream"] and s["train.class_weights"] == "balanced":
        return (
            'train.class_weights: got "balanced" with data.stream = true, and how many rows each '
            "class has is known once all are read: give the weights, in the order of the classes"
        )
    return None


def streams_give_a_row_for_a_row(s: Settings) -> Verdict:
    if s["data.stream"] and s["data.overlong"] == "split":
        return (
            'data.overlong: got "split" with data.stream = true, where each conversation is one '
            'row, so that its place is known before it is read; allowed: "left", "right", "drop"'
        )
    return None


def a_buffer_is_of_a_stream(s: Settings) -> Verdict:
    if s["data.shuffle_buffer"] != 10_000 and not s["data.stream"]:
        return (
            f"data.shuffle_buffer: got {s['data.shuffle_buffer']} without data.stream, and all "
            "rows are shuffled then; remove it (--unset data.shuffle_buffer)"
        )
    return None


STREAM_RULES = (
    streams_keep_no_rows,
    streams_meet_held_out_rows_on_their_way,
    streams_are_taken_whole,
    streams_do_not_count_classes,
    streams_give_a_row_for_a_row,
    a_buffer_is_of_a_stream,
)
