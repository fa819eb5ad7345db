"""What each layer of a model leaves, as one vector a text: watched while the model runs."""

from typing import Any

import torch
from torch import Tensor, nn

from models.apart import needs_apart
from models.fast.layout import layout_of
from models.heads import backbone_name, pool, transformers_model
from models.layers import layer_lists
from models.methods.method import tokens_in_front
from models.ngrams.bag import NgramBag


class LayerStates:
    """Watches the layers of a model. After a forward pass `read` gives the mean state of each text
    behind each layer.

    Raises ValueError where the layers cannot be told from outside.
    """

    def __init__(self, model: nn.Module) -> None:
        if isinstance(model, NgramBag):
            raise ValueError(
                "distill.hidden compares layers, and a bag of n-grams has none; remove it (--unset "
                "distill.hidden)"
            )
        inner: Any = transformers_model(model)
        backbone: Any = model.get_submodule(backbone_name(model))
        lists, depth = layer_lists(backbone)
        reason = needs_apart(model) and "rows run in parts"
        if inner.config.is_encoder_decoder:
            reason = "it has a decoder beside its encoder"
        elif len(lists) != 1:
            reason = "its layers do not stand in one list"
        elif getattr(model, "window_pool", None) is not None:
            reason = "a text stands in several windows"
        elif tokens_in_front(model):
            reason = "a method puts tokens in front of each text"
        if reason:
            raise ValueError(
                f"distill.hidden compares layers, and {inner.config.model_type!r} has none to "
                f"compare: {reason}; remove it (--unset distill.hidden)"
            )
        self.width: int = backbone.config.get_text_config().hidden_size  # D
        self.left: list[Tensor | None] = [None] * depth
        for number, layer in enumerate(backbone.get_submodule(lists[0])):
            layer.register_forward_hook(self.watch(number))

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.left)

    def watch(self, number: int) -> Any:
        """A hook that keeps what layer `number` leaves: (B, T, D), or (1, N, D) of a stream."""

        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            self.left[number] = output[0] if isinstance(output, tuple) else output

        return keep

    def read(self, inputs: dict[str, Any]) -> Tensor:
        """(B, L, D) float32 of the pass that was given these inputs; it is forgotten then."""
        mask, states = inputs["attention_mask"], []  # (B, T)
        for number, left in enumerate(self.left):
            assert left is not None
            if left.shape[:2] != mask.shape:
                layout = inputs.get("layout")
                if layout is None:
                    layout = layout_of(mask.cpu()).to(mask.device)
                if left.shape[:2] != layout.ids.shape:
                    raise ValueError(
                        "distill.hidden compares the states of a text's own tokens; here other "
                        "vectors stand beside them: remove it (--unset distill.hidden)"
                    )
                left = layout.padded(left)  # (B, T, D)
            states.append(pool(left, mask, "mean").float())
            self.left[number] = None
        return torch.stack(states, 1)
