"""How a model takes its texts, in words and in Python for where there is no openloop.

Which tokens of a long text a model reads is no part of its weights: a tokenizer's own truncation
keeps one end, and what was trained on both would be asked something else. So it is written beside
the weights, into openloop.json and a README.md, and the lines of the run card do it.
"""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Windows:
    """Texts in windows of max_length tokens, `stride` of them shared with the window before: the
    first `most`, their pooled vectors joined by `pool`, "mean" or "max"."""

    stride: int
    most: int
    pool: str


@dataclass(frozen=True)
class Texts:
    """`alone`: one text at a time (models/apart.py). `ends`: of a longer text, how many tokens of
    the beginning and of the end are read, special ones not counted; `windows`: that all of it is.
    None of both where truncation cuts."""

    max_length: int = 512
    truncation: str = "right"
    pairs: bool = False
    alone: bool = False
    ends: tuple[int, int] | None = None
    windows: Windows | None = None

    @property
    def sentence(self) -> str:
        """What another tool has to do with a long text; empty where its truncation does it."""
        if self.windows is not None:
            side = "first" if self.truncation == "right" else "last"
            joined = "the mean" if self.windows.pool == "mean" else "the largest in each dimension"
            return (
                f"A text longer than {self.max_length} tokens is read in windows of as many, "
                f"{self.windows.stride} of them shared with the window before, the {side} "
                f"{self.windows.most} at most; {joined} of their pooled vectors goes into the last "
                "layers of the head. Who cuts a text reads one window, and gets other answers"
            )
        if self.ends is None:
            return ""
        head, tail = self.ends
        return (
            f"Of a text longer than {self.max_length} tokens the first {head} and the last {tail} "
            "are read. No tokenizer truncates so: who leaves it to one keeps the beginning alone, "
            "and gets other answers"
        )

    def as_dict(self) -> dict[str, Any]:
        """For openloop.json."""
        return asdict(self)


def text_lines(texts: Texts) -> list[str]:
    """Lines that make `inputs` of two texts, or pairs of texts, with a `tokenizer`."""
    shown = 1 if texts.alone else 2
    firsts = ", ".join(['"It was good."', '"Not a fan."'][:shown])
    others = ", ".join(['"I liked it."', '"I liked it too."'][:shown])
    why = ["# one text at a time: padded beside a longer one it would be answered otherwise"]
    lines = [*(why if texts.alone else []), f"texts = [{firsts}]"]
    if texts.ends is not None:
        return [*_both_ends_lines(texts.max_length, *texts.ends), *lines, *_PADDED]
    lines.insert(0, f'tokenizer.truncation_side = "{texts.truncation}"')
    if texts.windows is not None:
        return [*lines, *_window_lines(texts.max_length, texts.windows)]
    return [
        *lines,
        *([f"others = [{others}]"] if texts.pairs else []),
        f"inputs = tokenizer({'texts, others' if texts.pairs else 'texts'}, padding=True, "
        f'truncation=True, max_length={texts.max_length}, return_tensors="pt")',
    ]


_PADDED = ['inputs = tokenizer.pad([both_ends(text) for text in texts], return_tensors="pt")']


def _both_ends_lines(max_length: int, head: int, tail: int) -> list[str]:
    return [
        "",
        f"def both_ends(text):  # of a longer one the first {head} tokens and the last {tail}",
        "    row = tokenizer(text, return_special_tokens_mask=True)",
        '    special = row.pop("special_tokens_mask")',
        f"    if len(special) > {max_length}:",
        f"        first, last = special.index(0) + {head}, special[::-1].index(0) + {tail}",
        "        row = {name: ids[:first] + ids[-last:] for name, ids in row.items()}",
        "    return row",
        "",
    ]


def _window_lines(max_length: int, windows: Windows) -> list[str]:
    """A row of `inputs` for each window, and `windows`: the rows of each text."""
    return [
        f"inputs = tokenizer(texts, padding=True, truncation=True, max_length={max_length}, "
        f"stride={windows.stride},",
        '                   return_overflowing_tokens=True, return_tensors="pt")',
        'owner = inputs.pop("overflow_to_sample_mapping")  # (W,) the text of each window',
        f"windows = [(owner == text).nonzero()[:{windows.most}, 0] for text in range(len(texts))]",
    ]


def joined_lines(windows: Windows | None) -> list[str]:
    """Lines that make one vector a text of `pooled`, one a window."""
    if windows is None:
        return []
    join = "mean(0)" if windows.pool == "mean" else "amax(0)"
    return [f"    pooled = torch.stack([pooled[rows].{join} for rows in windows])  # (B, D)"]


def own_head_lines(windows: Windows | None) -> list[str]:
    """Lines after which openloop's model takes `inputs` in windows."""
    if windows is None:
        return []
    made = "torch.nn.utils.rnn.pad_sequence(windows, batch_first=True, padding_value=-1)"
    return [f'inputs["windows"] = {made}  # (B, K)']
