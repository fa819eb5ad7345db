"""Which models our attention, and with it batches without padding, is for."""

from typing import Any

from torch import nn

from models.fast.streams import DECODERS, POSITIONS
from models.heads import transformers_model


def attentions(model: nn.Module) -> list[nn.Module]:
    """The modules that call transformers' attention function: it asks each whether it is causal."""
    return [module for module in model.modules() if hasattr(module, "is_causal")]


def why_stock(model: nn.Module, wanted: bool) -> str | None:
    """Why a model keeps stock attention, and with it padding; None if it need not. `wanted` is
    speed.attention."""
    config = transformers_model(model).config
    if not wanted:
        return "as configured, so batches keep their padding"
    if config.model_type not in POSITIONS:
        return f"since {config.model_type} is not among {', '.join(POSITIONS)}"
    if config.model_type in DECODERS:
        return why_not_causal(config)
    if getattr(config, "is_decoder", False):
        return "since this encoder is set up as a decoder"
    return None


def why_not_causal(config: Any) -> str | None:
    """What the config of a decoder asks of attention that ours has not; None where it has all."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if config.model_type == "mistral" and config.sliding_window is not None:
        kinds.add("sliding_attention")
    if kinds != {"full_attention"}:
        return f"since layers have {', '.join(sorted(kinds - {'full_attention'}))}"
    both_ways = getattr(config, "use_bidirectional_attention", None)
    if not getattr(config, "is_causal", True) or both_ways:
        return "since this decoder is set up to look ahead"
    if getattr(config, "add_cross_attention", False):
        return "since its layers look at an encoder too"
    return None
