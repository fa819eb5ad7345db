"""Texts by a tokenizer that is written in Python, text by text."""

from typing import Any

from data.long import LengthArgs, fit_row


def encode_in_python(
    tokenizer: Any, texts: list[str], pairs: list[str] | None, length: LengthArgs, special: int
) -> list[dict[str, Any]]:
    """The rows of encode.py's encode_texts by a tokenizer that has no fast form, as CANINE's; it
    takes `special` tokens for itself."""
    rows: list[dict[str, Any]] = []
    tokenizer.truncation_side = length.truncation
    cuts = length.long == "cut"
    for texts_of_row in zip(*([texts] if pairs is None else [texts, pairs]), strict=True):
        tokens = [tokenizer.tokenize(text) for text in texts_of_row]
        parts = [tokenizer.convert_tokens_to_ids(part) for part in tokens]
        done = tokenizer.prepare_for_model(
            *parts, truncation="longest_first" if cuts else False, max_length=length.max_length,
            return_attention_mask=False, verbose=False,
        )  # fmt: skip
        row = {
            **done,
            "length": len(done["input_ids"]),
            "full_length": sum(map(len, parts)) + special,
        }
        if not cuts:
            before = tokenizer.build_inputs_with_special_tokens([-1]).index(-1)
            row = fit_row(row, before, special, length)
        rows.append(row)
    return rows
