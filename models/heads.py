"""Heads: from the backbone's hidden states to logits, and the model that joins the two.

A head is a class
    __init__(hidden_size, num_labels, dropout, **its own named arguments)
    forward(hidden (B, T, D), mask (B, T)) -> logits (B, C)
One row in HEADS, or a class in the user's own file named as "my_file.py:MyHead".
"""

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from files.errors import meets_limit
from models.code import check_allowed, check_arguments, code_file, load_class, where_raised
from models.windows import check_windows, join_windows

POOLS = ("cls", "mean", "last")
ACTIVATIONS = {"tanh": nn.Tanh, "gelu": nn.GELU, "relu": nn.ReLU}
GIVEN = ("hidden_size", "num_labels", "dropout")  # what every head is given


def pool(hidden: Tensor, mask: Tensor, how: str) -> Tensor:
    """One vector a row from hidden (B, T, D), by mask (B, T), 1 for a real token -> (B, D).

    `cls` is the first real token, `last` the last one, `mean` the mean over the real ones; all
    three go by the mask, so padding may stand on either side. Raises ValueError on another name.
    """
    if how == "mean":
        exact = torch.promote_types(hidden.dtype, torch.float32)  # bf16 sums lose the mean
        weight = mask.to(exact).unsqueeze(-1)  # (B, T, 1)
        return (hidden.to(exact) * weight).sum(1) / weight.sum(1).clamp(min=1)
    if how not in POOLS:
        raise ValueError(f"head.pool is {how!r}; expected one of {', '.join(POOLS)}")
    positions = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)  # (B, T)
    if how == "last":
        index = positions.masked_fill(mask == 0, 0).amax(1)  # (B,)
    else:
        index = positions.masked_fill(mask == 0, mask.shape[1] - 1).amin(1)
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), index]


class LinearHead(nn.Module):
    """Pool, dropout, one linear layer. A head that shows both halves of forward as it does, its own
    pooling and the rest, takes texts in several windows too."""

    def __init__(
        self, hidden_size: int, num_labels: int, dropout: float, pool: str = "mean"
    ) -> None:
        super().__init__()
        self.pool = pool
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden_size, num_labels)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return self.answer(self.pool_tokens(hidden, mask))  # (B, C)

    def pool_tokens(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return pool(hidden, mask, self.pool)  # (B, D)

    def answer(self, pooled: Tensor) -> Tensor:
        return self.out(self.dropout(pooled))  # (B, C)


class MLPHead(nn.Module):
    """Pool, dense layer of `width` (by default the hidden size), activation, dropout, linear."""

    def __init__(
        self,
        hidden_size: int,
        num_labels: int,
        dropout: float,
        pool: str = "mean",
        width: int | None = None,
        activation: str = "tanh",
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"head.args.activation is {activation!r}; expected one of {', '.join(ACTIVATIONS)}"
            )
        self.pool = pool
        self.dense = nn.Linear(hidden_size, width or hidden_size)
        self.activation = ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width or hidden_size, num_labels)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return self.answer(self.pool_tokens(hidden, mask))  # (B, C)

    def pool_tokens(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return pool(hidden, mask, self.pool)  # (B, D)

    def answer(self, pooled: Tensor) -> Tensor:
        inner = self.activation(self.dense(pooled))  # (B, width)
        return self.out(self.dropout(inner))  # (B, C)


HEADS: dict[str, type[nn.Module]] = {"linear": LinearHead, "mlp": MLPHead}


class Classifier(nn.Module):
    """A backbone and a head on its last hidden states; called with a batch's inputs. `window_pool`:
    how the vectors of a text in several windows become one; None where each text is one row."""

    def __init__(
        self, backbone: PreTrainedModel, head: nn.Module, window_pool: str | None = None
    ) -> None:
        super().__init__()
        check_windows(head, window_pool)
        self.backbone = backbone
        self.head: Any = head
        self.window_pool = window_pool

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None,
        layout: Any = None, windows: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """`layout`: where the texts lie in a stream, for a backbone that runs on one. `windows`
        (B, K): which rows are a text's windows (windows.py)."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}  # (B, T) each
        if layout is not None:
            inputs["layout"] = layout
        if token_type_ids is not None:  # not every backbone takes them, even as None
            inputs["token_type_ids"] = token_type_ids
        hidden = self.backbone(**inputs).last_hidden_state  # (B, T, D)
        if windows is None:
            return self.head(hidden, attention_mask)  # (B, C)
        assert self.window_pool is not None
        pooled = self.head.pool_tokens(hidden, attention_mask)  # (W, D)
        return self.head.answer(join_windows(pooled, windows, self.window_pool))


def transformers_model(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside: a Classifier's backbone, or a native model itself."""
    inner = model.backbone if isinstance(model, Classifier) else model
    assert isinstance(inner, PreTrainedModel)
    return inner


def is_language_model(model: nn.Module) -> bool:
    """Whether a model is transformers' own language model, a …ForCausalLM."""
    return type(model).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()


def backbone_name(model: nn.Module) -> str:
    """The child of `model` that holds the backbone ("backbone", "bert", "transformer", ...)."""
    return (
        "backbone" if isinstance(model, Classifier) else transformers_model(model).base_model_prefix
    )


def peft_root(model: nn.Module) -> str:
    """What a name of ours has in front that PEFT's has not: PEFT knows the backbone alone where
    the head is ours."""
    return backbone_name(model) + "." if isinstance(model, Classifier) else ""


def head_modules(model: nn.Module) -> list[str]:
    """Names of the children of `model` that are its head: all with parameters but the backbone."""
    backbone = backbone_name(model)
    children = [(n, child) for n, child in model.named_children() if n != backbone]
    return [name for name, child in children if next(child.parameters(), None) is not None]


def load_head_class(kind: str, allow_code: bool = False) -> type[nn.Module]:
    """The head class that head.kind names. A user's own file is run only with `allow_code`.

    Raises ValueError for an unknown name, a missing file or class, and for code not allowed.
    """
    if kind in HEADS:
        return HEADS[kind]
    if code_file(kind) is None:
        known = ", ".join(["native", *HEADS])
        raise ValueError(f"head.kind is {kind!r}; expected {known} or 'my_file.py:MyHead'")
    check_allowed("head.kind", kind, allow_code)
    return load_class("head.kind", kind, nn.Module)


def build_head(
    head_class: type[nn.Module],
    hidden_size: int,
    num_labels: int,
    dropout: float,
    pool: str | None,
    args: dict[str, Any],
) -> nn.Module:
    """A head with [head.args] and head.pool, both checked against the class's signature.

    Raises ValueError for an argument that the head does not take (naming the nearest it does), for
    one it needs and was not given, and for a pooling that does not exist.
    """
    if pool is not None and pool not in POOLS:
        raise ValueError(f"head.pool is {pool!r}; expected one of {', '.join(POOLS)}")
    title = head_class.__name__
    words = dict(args) if pool is None else {**args, "pool": pool}
    takes = dict(inspect.signature(head_class.__init__).parameters)
    for name in ("self", *GIVEN):
        if takes.pop(name, None) is None:
            raise ValueError(f"{title}.__init__ must take {name!r}: ({', '.join(GIVEN)}, ...)")
    to_the_head = (
        "; leave pooling to the head with --unset head.pool, in Python unset=['head.pool']"
    )
    check_arguments(title, takes, words, "[head.args] and head.pool", {"pool": to_the_head})
    try:
        return head_class(hidden_size=hidden_size, num_labels=num_labels, dropout=dropout, **words)
    except Exception as error:
        if meets_limit(error):
            raise
        file = Path(inspect.getfile(head_class))
        raise ValueError(f"{title} cannot be built: {where_raised(error, file)}") from error
