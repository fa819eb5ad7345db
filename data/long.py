"""Texts that are longer than what a model reads at once: what of them it reads.

    cut         [CLS] a b c d [SEP]          the beginning; with truncation "left" the end
    head_tail   [CLS] a b y z [SEP]          both ends (Sun et al. 2019, arXiv:1905.05583)

Special tokens stand where they stand in a short text. A text that is not too long is the same row
whichever way is chosen.
"""

from dataclasses import dataclass
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

Side = Literal["right", "left"]
COLUMNS = ("input_ids", "token_type_ids")


@dataclass(frozen=True)
class LengthArgs:
    """How much of a text is read, and which part of a longer one: [data] max_length, truncation,
    long, head_tokens."""

    max_length: int  # tokens of a row, special ones included
    truncation: Side = "right"
    long: Literal["cut", "head_tail"] = "cut"
    head_tokens: int | None = None  # of a longer text's beginning; None: a quarter of max_length

    @property
    def head(self) -> int:
        """Tokens of a longer text's beginning that `head_tail` keeps."""
        return self.max_length // 4 if self.head_tokens is None else self.head_tokens

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
    if args.head < 1 or args.tail(special) < 1:
        raise ValueError(
            f"data.head_tokens: got {args.head}, expected 1 to {args.max_length - special - 1}: of "
            f"data.max_length = {args.max_length} tokens {special} are special, and one at least "
            "is for the end"
        )


def shorten(row: dict[str, Any], before: int, special: int, args: LengthArgs) -> dict[str, Any]:
    """A whole text's row, `before` of its `special` tokens at its beginning, as it is read."""
    total = row["full_length"]
    if total <= args.max_length:
        return row
    first, last = before + args.head, total - (special - before) - args.tail(special)
    ends = {name: row[name][:first] + row[name][last:] for name in COLUMNS if name in row}
    return {**row, **ends, "length": args.max_length}
