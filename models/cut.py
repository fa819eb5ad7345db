"""A model cut in two: below the cut nothing learns, so each row is computed once and kept.

    input_ids -> embeddings -> layers 0 .. k-1  |  layers k .. -> head -> logits
                 frozen: once for each row     kept      trains: at each step

Where nothing of the backbone learns, the cut lies at its output, and of a head that pools first the
pooled vector alone is kept. The model stays whole: called with `kept` among its inputs it begins at
the cut, without it at the tokens. Modules and parameters keep their names. Dropout below the cut
rests where it begins at the cut. What was put together so is proven on a few rows (`differs`), by
what enters the head: one that begins at zero would answer alike whatever the states are.
"""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

from models.apart import needs_apart
from models.fast.encoder import first_token_only
from models.fast.layout import layout_of
from models.fast.streams import pool_again
from models.heads import (
    Classifier,
    LinearHead,
    MLPHead,
    backbone_name,
    pool,
    transformers_model,
)
from models.layers import layer_lists
from models.trainable import layers_above
from models.windows import join_windows

# how far what enters the head may lie apart, of its length: of fp32 states, of half-precision ones;
# and of what tells rows from each other
EXACT, COARSE, TELLING = 1e-4, 0.05, 0.1
ALIKE = 1e-6  # rows that lie no further apart, of their length, differ by rounding
VECTORS = {"mean": "the mean", "cls": "the first token", "last": "the last token"}


class Reached(Exception):
    """Thrown at the cut by a pass that wants no more than what is there."""


def find_cut(model: nn.Module) -> tuple[int | None, str | None]:
    """(first layer above the cut, None), the layer None where all of the backbone lies below; or
    (None, why there is no cut). It goes by what trains alone, whoever chose it."""
    inner = transformers_model(model)
    if reason := needs_apart(model):
        return None, f"rows run in parts, for {reason}"
    if inner.config.is_encoder_decoder:
        return None, "it has a decoder beside its encoder"
    prefix = backbone_name(model)
    learns = [n for n, p in model.named_parameters() if p.requires_grad]
    inside = [n for n in learns if n.startswith(f"{prefix}.")]
    if all(n.startswith(f"{prefix}.pooler.") for n in inside):  # it reads the output
        return None, None
    lists, depth = layer_lists(model.get_submodule(prefix))
    if len(lists) != 1:
        return None, "its layers do not stand in one list"
    above, _ = layers_above(model)
    lowest = max(above[name] for name in inside)  # in layers from the answer
    if lowest > depth:
        return None, "what learns begins before the first layer"
    if lowest == depth:
        return None, "what learns begins in the first layer: nothing but embeddings lies below"
    return depth - lowest, None


class Cut:
    """A cut that is put into a model, as find_cut found it. `reads` says what is kept of a row:
    "tokens", a state for each, or how the one vector is taken that its head reads."""

    def __init__(self, model: nn.Module, layer: int | None) -> None:
        self.model, self.layer = model, layer
        self.reads = vector_read(model) if layer is None else "tokens"
        self.windows: Any = getattr(model, "window_pool", None)  # how a text's windows become one
        self.begun: dict[str, Any] | None = None  # inputs of a pass that begins at the cut
        self.watching = False  # whether a pass ends at the cut
        self.reached: Tensor | None = None
        self.parts = 0  # of what the last layer below returns: 0 for a tensor, else a tuple's
        self.replaced: list[tuple[nn.Module, Any]] = []
        backbone = model.get_submodule(backbone_name(model))
        self.backbone: Any = backbone
        self.resting: list[nn.Module] = []
        if layer is None:
            self.replace(backbone, self.stand_for_backbone)
        else:
            (name,), self.depth = layer_lists(backbone)
            layers: Any = backbone.get_submodule(name)
            self.resting = modules_before(backbone, layers)
            for number in range(layer):
                last = number == layer - 1
                self.replace(layers[number], partial(self.stand_for_layer, last))
        self.replace(model, self.call)

    @property
    def sentence(self) -> str:
        """What is kept, in words."""
        if self.layer is not None:
            return f"what enters layer {self.layer + 1} of {self.depth}"
        if self.reads in VECTORS:
            whose = "each text"
            if self.windows is not None:
                whose = f"each window, of those of a text the {self.windows}"
            return f"{VECTORS[self.reads]} of {whose}, out of the frozen backbone"
        return "the hidden states out of the frozen backbone"

    @property
    def vectors(self) -> bool:
        """Whether one vector a row is kept, not one a token."""
        return self.reads in VECTORS

    def replace(self, module: nn.Module, stand_in: Callable[..., Any]) -> None:
        """Let `stand_in` answer for a module; it is given the forward that did before."""
        self.replaced.append((module, vars(module).get("forward")))
        module.forward = partial(stand_in, module.forward)

    def remove(self) -> None:
        """Put everything back as it was."""
        for module, before in reversed(self.replaced):
            del module.forward
            if before is not None:
                module.forward = before

    # What answers for the modules

    def call(self, plain: Any, *args: Any, kept: Tensor | None = None, **inputs: Any) -> Any:
        """The model's forward. kept: (B, T, D), or (B, 1, D) of vectors, beside inputs of as many
        tokens."""
        if kept is None:
            return plain(*args, **inputs)
        for module in self.resting:
            module.training = False
        self.begun = {**inputs, "kept": kept}
        try:
            return plain(*args, **inputs)
        finally:
            self.begun = None

    def stand_for_backbone(self, plain: Any, *args: Any, **inputs: Any) -> Any:
        """The backbone's forward: what was kept of its output."""
        if self.begun is None:
            output = plain(*args, **inputs)
            if self.watching:
                self.reach(output.last_hidden_state)
            return output
        hidden = self.begun["kept"].float()  # (B, T, D)
        has_pooler = getattr(self.backbone, "pooler", None) is not None
        pooled = pool_again(self.backbone, hidden) if has_pooler else None
        return BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=hidden, pooler_output=pooled
        )

    def stand_for_layer(self, last: bool, plain: Any, x: Tensor, *rest: Any, **others: Any) -> Any:
        """The forward of a layer below the cut: the last of them returns what was kept, the others
        what they are given. x: (B, T, D), or (1, N, D) of a stream."""
        if self.begun is None:
            output = plain(x, *rest, **others)
            if last and self.watching:
                self.parts = len(output) if isinstance(output, tuple) else 0
                self.reach(output[0] if self.parts else output)
            return output
        if last:
            x = self.begin(x)
        return (x, *[None] * (self.parts - 1)) if self.parts else x

    def begin(self, x: Tensor) -> Tensor:
        """What was kept, in the form of x."""
        assert self.begun is not None
        kept, mask = self.begun["kept"], self.begun["attention_mask"]  # (B, T, D), (B, T)
        if x.shape[:2] == mask.shape:
            return kept.to(x.dtype)
        layout = self.begun.get("layout")
        if layout is None:
            layout = layout_of(mask.cpu()).to(mask.device)
        return layout.stream(kept).to(x.dtype)  # (1, N, D)

    def reach(self, states: Tensor) -> None:
        self.reached = states
        raise Reached

    # The lower part alone

    def keep(self, inputs: dict[str, Any]) -> Tensor:
        """What is to be kept of a padded batch, row after row: (B, D) vectors, or (n, D) states of
        its n real tokens. In evaluation mode."""
        self.watching = True
        try:
            self.model(**inputs)
        except Reached:
            pass
        finally:
            self.watching = False
        assert self.reached is not None
        states, self.reached = self.reached, None
        if states.shape[:2] == inputs["attention_mask"].shape:
            return self.read(states, inputs)
        return states[0, : int(inputs["attention_mask"].sum())]  # of a stream

    def read(self, states: Tensor, inputs: dict[str, Any]) -> Tensor:
        """What is kept of a padded batch's states (B, T, D), as keep gives it."""
        mask = inputs["attention_mask"]  # (B, T)
        if not self.vectors:
            return states[mask.bool()]
        pooled, windows = pool(states, mask, self.reads), inputs.get("windows")
        return pooled if windows is None else join_windows(pooled, windows, self.windows)

    def differs(self, inputs: dict[str, Any], kept: dict[str, Any]) -> str | None:
        """How what enters the head lies apart for the same rows, from the tokens and from what was
        kept of them; None where it is equal but for rounding, and the rows tell a wrong one. In
        evaluation mode."""
        with torch.enable_grad():
            if self.keep(inputs).requires_grad:
                return "what lies below the cut reads a parameter that learns"
        most = EXACT if kept["kept"].dtype == torch.float32 else COARSE
        for whole, begun in zip(self.entering(inputs), self.entering(kept), strict=True):
            told = whole.any(1)  # not so where the last layer works out first tokens alone
            whole, begun = whole[told], begun[told]  # (n, D) each
            length = whole.norm(dim=1).max().item()
            spread = (whole - whole.mean(0)).norm(dim=1).max().item()
            apart = (whole - begun).norm(dim=1).max().item()
            if spread < ALIKE * length:
                return "the first rows are all alike, so that nothing would tell a wrong state"
            if not apart <= min(most * length, TELLING * spread):
                return (
                    f"on the first rows what enters the head lies {apart / length:.1e} of its "
                    "length apart, whole and from the cut"
                )
        return None

    def entering(self, inputs: dict[str, Any]) -> list[Tensor]:
        """What the head reads of a batch, in float32: the backbone's output as `read` has it, and
        what its pooler made of that (B, D)."""
        seen: list[Any] = []
        hook = self.backbone.register_forward_hook(lambda module, args, out: seen.append(out))
        try:
            self.model(**inputs)
        finally:
            hook.remove()
        pooled = getattr(seen[0], "pooler_output", None)
        parts = [self.read(seen[0].last_hidden_state, inputs)]
        return [part.float() for part in (*parts, *([] if pooled is None else [pooled]))]

    def digest(self) -> str:
        """sha256 over what decides the states: all of the backbone that does not learn, its
        configuration, the place of the cut."""
        config = transformers_model(self.model).config.to_dict()
        config.pop("_name_or_path", None)
        head = json.dumps([self.sentence, config], sort_keys=True, default=str)
        digest = hashlib.sha256(head.encode())
        frozen = [(n, p) for n, p in self.backbone.named_parameters() if not p.requires_grad]
        for name, tensor in [*frozen, *self.backbone.named_buffers()]:
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            flat = tensor.detach().cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy())
        return digest.hexdigest()


def modules_before(backbone: nn.Module, layers: nn.Module) -> list[nn.Module]:
    """The modules that stand before the layers: embeddings and their dropout."""
    before = []
    for module in backbone.modules():
        if module is layers:
            break
        if layers not in module.modules():
            before.append(module)
    return before


def vector_read(model: nn.Module) -> str:
    """How a head takes the one vector of a text that it reads; "tokens" where it may read all."""
    if isinstance(model, Classifier) and type(model.head) in (LinearHead, MLPHead):
        head: Any = model.head
        return head.pool
    return "cls" if first_token_only(model) else "tokens"
