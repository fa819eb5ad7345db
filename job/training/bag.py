"""What a run of a bag of n-grams, or with one beside its encoder, does otherwise."""

from dataclasses import replace
from typing import Any

from torch import nn

from configs.read import check_as_bag
from configs.schema import Config
from data.bags import filled_rows
from data.encode import Encoded
from data.prepare import Data
from engine.precision import Precision, choose_precision
from models.ngrams.bag import NgramBag, NgramTokenizer

MOST_CLASSES = 100  # beside an encoder: L-BFGS holds 20 times the weights, 2 GiB then


def settle_precision(
    device: str, dtype: str, tokenizer: Any, resolved_dtype: str | None = None
) -> Precision:
    """choose_precision, but that for a bag of n-grams "auto" means fp32 on the CPU: it has no
    matrix product. Raises ValueError as that does, and for a bag of another dtype."""
    if not isinstance(tokenizer, NgramTokenizer):
        return choose_precision(device, dtype, resolved_dtype)
    if dtype not in ("auto", "fp32"):
        raise ValueError(
            f"precision.dtype is {dtype}; a bag of n-grams has no matrix product that would be "
            "faster so: use auto or fp32"
        )
    why = "a bag of n-grams is quick there"
    chosen = choose_precision("cpu" if device == "auto" else device, "fp32")
    reason = why if device == "auto" else chosen.device_reason
    return replace(chosen, device_reason=reason, dtype_reason="it has no matrix products")


def check_source(config: Config, tokenizer: Any) -> None:
    """Raise ConfigError where the source turned out to be a bag of n-grams, and settings do not go
    with one."""
    if isinstance(tokenizer, NgramTokenizer):
        check_as_bag(config)


def weigh_terms(model: nn.Module, train: Encoded) -> None:
    """Let a bag of n-grams learn from the training rows how common its terms are; other models are
    left alone."""
    if isinstance(model, NgramBag):
        model.weigh(filled_rows(train, len(model.idf)), train.rows)


def check_beside(config: Config, data: Data) -> list[str]:
    """What the plan says of the bag beside an encoder, nothing where there is none. Raises
    ValueError where it could not be weighed."""
    if config.bag is None:
        return []
    if "validation" not in data.splits:
        raise ValueError(
            "[bag] needs a validation split, on whose rows the bag and the encoder are weighed; "
            "data.validation is 0: give it some rows, or remove the section (--unset bag)"
        )
    if len(data.label_names) > MOST_CLASSES:
        raise ValueError(
            f"[bag] takes memory for each of its 262,144 buckets and each class; the labels have "
            f"{len(data.label_names):,} classes, allowed: {MOST_CLASSES}; remove the section "
            "(--unset bag)"
        )
    more = 0 if data.left_out is None else len(data.left_out)
    rows = len(data.splits["train"]) + more
    line = f"a bag of n-grams beside the encoder is fitted after the training, on {rows:,} rows"
    line += f", {more:,} of which the encoder does not see" if more else ""
    return [f"{line}; it reads texts whole. The best checkpoint is chosen without it"]
