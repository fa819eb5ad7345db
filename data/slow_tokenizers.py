"""Texts by a tokenizer that is written in Python, text by text."""

from typing import Any


def encode_in_python(
    tokenizer: Any, texts: list[str], pairs: list[str] | None, max_length: int, truncation: str,
    special: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """The rows of encode.py's encode_texts by a tokenizer that has no fast form, as CANINE's; it
    takes `special` tokens for itself."""
    rows: list[dict[str, Any]] = []
    tokenizer.truncation_side = truncation
    for texts_of_row in zip(*([texts] if pairs is None else [texts, pairs]), strict=True):
        tokens = [tokenizer.tokenize(text) for text in texts_of_row]
        parts = [tokenizer.convert_tokens_to_ids(part) for part in tokens]
        done = tokenizer.prepare_for_model(
            *parts, truncation="longest_first", max_length=max_length, return_attention_mask=False,
            verbose=False,
        )  # fmt: skip
        length = len(done["input_ids"])
        rows.append({**done, "length": length, "full_length": sum(map(len, parts)) + special})
    return rows
