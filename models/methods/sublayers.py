"""Where attention and feed-forward end in each layer, and the norms there, whatever they are
called: seen in one forward pass."""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from models.architectures import sees
from models.heads import backbone_name, transformers_model
from models.layers import all_layers
from models.methods.linears import is_linear, linear_size
from models.methods.trial import trial
from models.names import is_below

FORWARD = ("mlp", "ffn", "feed_forward")  # in the names of feed-forward parts
WIDTHS = ("hidden_size", "d_latents")  # of what a layer gives, in a config


def sublayer_ends(model: nn.Module, attention: bool) -> list[str]:
    """Names of the linear layers that end each layer's attention, if asked for, and its
    feed-forward. Where no list has a module for each layer (ALBERT, whose layers are one) they are
    told by the order of the calls.

    Raises ValueError, saying which layer, where a part ends in no linear layer.
    """
    root = backbone_name(model)
    layers = all_layers(model.get_submodule(root))
    called = [name for name in linears_called(model) if is_below(name, [root])]
    if layers:
        parts = [[f"{root}.{part}" for part in layer] for layer in layers]
        shares = [[name for name in called if is_below(name, inside)] for inside in parts]
        for number, inside in enumerate(parts):
            _check_experts(model, inside, number)
    else:
        shares = _runs(called, root)
    ends: list[str] = []
    for number, share in enumerate(shares):
        attends = [name for name in share if _attends(name, root)]
        if attention:
            ends.append(_last(attends, number, "attention", 'adapter.placement = "feed_forward"'))
        after = share if not attends else share[share.index(attends[-1]) + 1 :]
        ends.append(_last(after, number, "feed-forward", None))
    if not ends:
        raise ValueError(
            "adapter: this backbone has no list with a module for each of its layers, and no "
            "linear layers of attention that would tell them; take [lora]"
        )
    return list(dict.fromkeys(ends))


def layer_norms(model: nn.Module) -> list[str]:
    """Names of the norms inside the layers."""
    root = backbone_name(model)
    lists: list[str] = []
    norms: list[str] = []
    for name, module in model.get_submodule(root).named_modules():
        inside = is_below(name, lists)
        if isinstance(module, nn.ModuleList) and not inside and not sees(name):
            lists.append(name)
        own = next(module.parameters(recurse=False), None)
        if inside and own is not None and "norm" in type(module).__name__.lower():
            norms.append(f"{root}.{name}")
    return norms


def ends_a_part(module: nn.Module) -> bool:
    """Whether a module is a linear layer, or a convolution one token wide, which is the same to
    columns (SqueezeBERT)."""
    pointwise = type(module) is nn.Conv1d and module.kernel_size == (1,)
    return pointwise or is_linear(module)


def output_width(layer: Any) -> int:
    """Numbers a token that a layer gives."""
    return layer.out_channels if isinstance(layer, nn.Conv1d) else linear_size(layer)[1]


def linears_called(model: nn.Module) -> list[str]:
    """Names of the linear layers that answer a text with a vector for each token, in the order in
    which a forward pass calls them last. Outside attention they are as wide as the hidden states,
    which leaves out what a feed-forward part widens, and routers."""
    inner, root = transformers_model(model), backbone_name(model)
    config = inner.config.get_text_config()
    width = next((w for w in (getattr(config, n, None) for n in WIDTHS) if w), None)
    ids = torch.full((1, 16), 5)  # (1, T)
    end = getattr(inner.config, "eos_token_id", None)
    if isinstance(end, int):
        ids[0, -1] = end  # some heads look for it
    called: dict[str, None] = {}

    def note(name: str, out: Tensor) -> None:
        called.pop(name, None)
        if out.dim() == 3 or len(out) == ids.numel():  # else of one pooled vector
            called[name] = None

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if ends_a_part(module) and (_attends(name, root) or output_width(module) == width):
                hook = module.register_forward_hook(lambda _, __, out, name=name: note(name, out))
                stack.callback(hook.remove)
        stack.enter_context(trial(model, "adapter: the model cannot be tried: {}", 300))
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return list(called)


def _runs(called: list[str], root: str) -> list[list[str]]:
    """The calls cut into layers: each begins where attention begins again. What comes before the
    first attention belongs to embeddings."""
    shares: list[list[str]] = []
    before = False
    for name in called:
        now = _attends(name, root)
        if now and not before:
            shares.append([])
        if shares:
            shares[-1].append(name)
        before = now
    return shares


def _check_experts(model: Any, inside: list[str], number: int) -> None:
    """Raises ValueError where a layer chooses among experts: no one linear layer ends it."""
    for part in inside:
        for name, module in model.get_submodule(part).named_modules():
            stacked = any(p.dim() > 2 for p in module.parameters(recurse=False))
            if stacked and "expert" in f"{name} {type(module).__name__}".lower():
                raise ValueError(
                    f"adapter: layer {number} chooses among experts ({part}.{name}), so no linear "
                    "layer ends its feed-forward; take [lora]"
                )


def _attends(name: str, root: str) -> bool:
    """Whether the parts of a dotted name say attention, as every library spells it, and none below
    that says feed-forward (Perceiver has one in what it calls an attention)."""
    parts = name.removeprefix(root).lower().split(".")
    inside = [part for n, part in enumerate(parts) if any("att" in p for p in parts[: n + 1])]
    return bool(inside) and not any(word in part for part in inside for word in FORWARD)


def _last(names: list[str], number: int, part: str, instead: str | None) -> str:
    if not names:
        advice = f"set {instead}, or take [lora]" if instead else "take [lora]"
        raise ValueError(
            f"adapter: no linear layer ends the {part} of layer {number} of this model; {advice}"
        )
    return names[-1]
