"""What a run starts from: a pretrained transformer, or a bag of n-grams, which starts from none."""

from typing import Any

from models.args import ModelArgs
from models.build import Built, build_model
from models.load import load_tokenizer
from models.ngrams.bag import SOURCE, NgramTokenizer
from models.ngrams.files import build_bag, find_bag, load_bag


def open_tokenizer(source: str, revision: str | None, sides: int, chat: bool = False) -> Any:
    """The tokenizer of a source, for rows of one text or of two `sides`, or for `chat`. Raises
    ValueError as load_tokenizer does, and for a bag of n-grams that is to chat."""
    folder = find_bag(source, revision)
    if chat and (source == SOURCE or folder is not None):
        raise ValueError(f"model.source is {source!r}, a bag of n-grams, which writes no text")
    if source == SOURCE:
        return NgramTokenizer(sides)
    if folder is None:
        return load_tokenizer(source, revision, chat)
    _, tokenizer, _ = load_bag(folder)
    if tokenizer.sides != sides:
        raise ValueError(
            f"model.source is {source!r}, which reads rows of {tokenizer.sides} texts; data.text "
            f"names {sides}"
        )
    return tokenizer


def open_model(args: ModelArgs, tokenizer: Any, seed: int, every: int = 1) -> Built:
    """The model of a run as it is before step 1, of a transformer `every` so-manyth layer alone.
    Raises ValueError as build_model does."""
    if isinstance(tokenizer, NgramTokenizer):
        return build_bag(args, tokenizer)
    return build_model(args, tokenizer, seed, every=every)
