"""Texts that are longer than what a model reads at once: what of them it reads.

    cut         [CLS] a b c d [SEP]          the beginning; with truncation "left" the end
    head_tail   [CLS] a b y z [SEP]          both ends (Sun et al. 2019, arXiv:1905.05583)
    chunks      [CLS] a b c d [SEP]          all of it, in windows that overlap, one row each;
                [CLS] c d e f [SEP]  …       the model joins their vectors (models/windows.py)

Special tokens stand where they stand in a short text. A text that is not too long is the same row
whichever way is chosen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

Side = Literal["right", "left"]
COLUMNS = ("input_ids", "token_type_ids")
MOST_WINDOWS = 16  # of a text, unless data.max_windows says


@dataclass(frozen=True)
class LengthArgs:
    """How much of a text is read, and which part of a longer one: settings of [data]."""

    max_length: int  # tokens of a row, special ones included
    truncation: Side = "right"
    long: Literal["cut", "head_tail", "chunks"] = "cut"
    head_tokens: int | None = None  # of a longer text's beginning; None: a quarter of max_length
    stride: int | None = None  # tokens that a window shares with the next; None: a quarter too
    max_windows: int | None = None  # of a text; None: MOST_WINDOWS

    @property
    def head(self) -> int:
        """Tokens of a longer text's beginning that `head_tail` keeps."""
        return self.max_length // 4 if self.head_tokens is None else self.head_tokens

    @property
    def overlap(self) -> int:
        """Tokens of a text that a window shares with the one before it."""
        return self.max_length // 4 if self.stride is None else self.stride

    @property
    def most_windows(self) -> int:
        return self.max_windows or MOST_WINDOWS

    def tail(self, special: int) -> int:
        """Tokens of its end, beside so many special ones."""
        return self.max_length - special - self.head


def check_length(tokenizer: PreTrainedTokenizerBase, args: LengthArgs, pairs: bool) -> None:
    """Raises ValueError for a length that leaves no room for text, and for a way of reading long
    texts that does not go with it or with pairs of texts."""
    if args.truncation not in ("right", "left"):
        raise ValueError(f"data.truncation: got {args.truncation!r}, expected 'right' or 'left'")
    special = tokenizer.num_special_tokens_to_add(pair=pairs)
    if args.max_length < special + 1 + pairs:
        raise ValueError(
            f"data.max_length: got {args.max_length}, expected at least {special + 1 + pairs}: "
            "special tokens and one of text"
        )
    if args.long == "cut":
        return
    if pairs:
        raise ValueError(
            f'data.long: "{args.long}" is for single texts; of a pair the longer is cut'
        )
    if args.long == "chunks":
        if args.overlap >= args.max_length - special:
            raise ValueError(
                f"data.stride: got {args.overlap}, expected 0 to {args.max_length - special - 1}: "
                f"of data.max_length = {args.max_length} tokens {special} are special, and one at "
                "least is new in each window"
            )
        return
    if args.head < 1 or args.tail(special) < 1:
        raise ValueError(
            f"data.head_tokens: got {args.head}, expected 1 to {args.max_length - special - 1}: of "
            f"data.max_length = {args.max_length} tokens {special} are special, and one at least "
            "is for the end"
        )


def fit_row(row: dict[str, Any], before: int, special: int, args: LengthArgs) -> dict[str, Any]:
    """A whole text's row, `before` of its `special` tokens at its beginning, as it is read. In
    windows they stand one after the other, their lengths under `windows`, and `lost` is what no
    window has."""
    if args.long == "chunks":
        return read_windows(row, before, special, args)
    total = row["full_length"]
    if total <= args.max_length:
        return row
    first, last = before + args.head, total - (special - before) - args.tail(special)
    ends = {name: row[name][:first] + row[name][last:] for name in COLUMNS if name in row}
    return {**row, **ends, "length": args.max_length}


def read_windows(
    row: dict[str, Any], before: int, special: int, args: LengthArgs
) -> dict[str, Any]:
    """The row in windows, as transformers' tokenizers make them with return_overflowing_tokens:
    counted from the end that truncation keeps. More than most_windows are left out."""
    count, room = row["full_length"] - special, args.max_length - special
    starts = range(0, max(1, count - args.overlap), room - args.overlap)[: args.most_windows]
    spans = [(start, min(start + room, count)) for start in starts]
    lost = count - spans[-1][1]
    if args.truncation == "left":
        spans = [(count - stop, count - start) for start, stop in spans]
    flat = {}
    for name in COLUMNS:
        if name in row:
            ids = row[name]
            begin, text, end = ids[:before], ids[before : before + count], ids[before + count :]
            flat[name] = [i for a, b in spans for i in (*begin, *text[a:b], *end)]
    windows = [stop - start + special for start, stop in spans]
    return {**row, **flat, "length": sum(windows), "windows": windows, "lost": lost}


def lost_tokens(row: dict[str, Any]) -> int:
    """Tokens of a text that are not read."""
    return row.get("lost", row["full_length"] - row["length"])


def split_windows(texts: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], np.ndarray]:
    """A row for each window of the texts (W in all), and which of them are a text's: (B, K) int64,
    -1 where it has fewer than K."""
    rows: list[dict[str, Any]] = []
    most = max(len(text["windows"]) for text in texts)
    places = np.full((len(texts), most), -1, dtype=np.int64)
    for number, text in enumerate(texts):
        ends = np.cumsum(text["windows"]).tolist()
        places[number, : len(ends)] = range(len(rows), len(rows) + len(ends))
        for start, end in zip([0, *ends], ends, strict=False):
            rows.append({name: text[name][start:end] for name in COLUMNS if name in text})
    return rows, places


def widest_window(windows: Sequence[Sequence[int]]) -> int:
    """Tokens of the longest window of all texts: the first of one of them."""
    return max((text[0] for text in windows), default=0)
