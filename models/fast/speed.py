"""The one place that puts the fast paths in: each switch, what it needs, and what to say of it.

Every path gives the same training as the plain one: the same rows in each step, the same dropout
rates, sums equal to rounding. Called after the model is built and on its device, before the
optimizer sees it; parameters keep their names.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from models.fast.cpu.attention import attend_stream, register
from models.fast.cpu.dropout import replace_dropout
from models.fast.cpu.gelu import replace_gelu
from models.fast.cpu.kernels import Kernels, PlainKernels
from models.fast.cpu.native import NativeKernels, load_native
from models.fast.cuda.lean_sdpa import use_lean_sdpa
from models.fast.encoder import (
    Written,
    encoder_of,
    finish_layer,
    first_token_only,
    parts_of,
    project_each,
    write_out,
)
from models.fast.frozen import freeze_in
from models.fast.linear import fuse_linear, fuse_lora, project
from models.fast.map import Replacement, replacement
from models.fast.streams import POSITIONS, run_as_stream
from models.heads import Classifier, backbone_name, transformers_model


@dataclass(frozen=True)
class SpeedArgs:
    """One switch for each fast path, and `plain` for all of them, as in [speed]."""

    plain: bool = False
    attention: bool = True
    dropout: bool = True
    unpad: bool = True
    frozen: bool = True
    lora: bool = True
    linear: bool = True
    qkv: bool = True
    last_layer: bool = True
    gelu: bool = True
    norm: bool = True
    native: Literal["auto", "on", "off"] = "auto"


@dataclass
class Speed:
    """What runs: `resolved` belongs to "the same bits". Said before step 1: `notes` always, for
    they cost the user time; `details` and the table of what was `replaced` to whoever asks."""

    resolved: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    replaced: list[Replacement] = field(default_factory=list)

    def put(self, path: str, modules: Iterable[nn.Module]) -> None:
        """A path of map.py now stands in for these modules."""
        self.replaced.append(replacement(path, modules))


def choose_kernels(mode: str) -> tuple[Kernels, str]:
    """The kernels, and why. Raises ValueError where "on" cannot be had."""
    if mode == "off":
        return PlainKernels(), "kernels: plain torch, as configured"
    kernels, said = load_native()
    if kernels is not None:
        return kernels, f"kernels: native, {said}"
    if mode == "on":
        raise ValueError(
            f'speed.native is "on", but the kernels cannot be built: {said}. Install a C++ '
            'compiler (on Debian and Ubuntu: apt install g++), or set speed.native = "auto"'
        )
    return PlainKernels(), f"kernels: plain torch ({said})"


def speed_up(
    model: nn.Module, args: SpeedArgs, device: torch.device, dtype: torch.dtype,
    compiled: bool = False, left_padded: bool = False,
) -> Speed:  # fmt: skip
    """Put the fast paths that are switched on and fit into `model`, in place.

    `dtype` is that of the matrix products; `compiled` says that torch.compile will see the model,
    `left_padded` that batches are padded before the text. Raises ValueError for native = "on"
    without a compiler.
    """
    speed = Speed()
    if args.plain:
        speed.notes.append("speed.plain switches all of them off")
        return speed
    if args.lora and (adapters := fuse_lora(model)):
        speed.resolved["lora"] = "fused"
        speed.put("lora", adapters)
    if args.frozen and dtype != torch.float32 and (holders := freeze_in(model, dtype)):
        speed.resolved["frozen"] = str(dtype)
        speed.put("frozen", holders)
    if device.type == "cuda" and args.attention and use_lean_sdpa(transformers_model(model)):
        speed.resolved["attention"] = "sdpa"
        speed.put("lean_sdpa", attentions(model))
    elif device.type == "cpu" and compiled:
        speed.notes.append("attention, dropout: torch.compile sees the stock ones")
    elif device.type == "cpu":
        _speed_up_on_cpu(model, args, dtype, left_padded, speed)
    return speed


def _speed_up_on_cpu(
    model: nn.Module, args: SpeedArgs, dtype: torch.dtype, left_padded: bool, speed: Speed
) -> None:
    """Linear layers, dropout and GELU; attention, and streams on top of it, where the architecture
    takes them."""
    backbone = model.get_submodule(backbone_name(model))
    if args.linear and (layers := fuse_linear(backbone, dtype)):
        speed.resolved["linear"] = "onednn"
        speed.put("linear", layers)
    stock = why_stock(model, args, left_padded)
    if stock is not None:
        speed.notes.append(f"attention: stock, {stock}")
    if not (args.dropout or args.gelu) and stock is not None:
        return
    kernels, said = choose_kernels(args.native)
    native = kernels if isinstance(kernels, NativeKernels) else None
    unusual = native is None and args.native == "auto"
    (speed.notes if unusual else speed.details).append(said)
    speed.resolved["kernels"] = kernels.version
    if args.dropout:
        speed.resolved["dropout"] = "hashed"
        speed.put("dropout", replace_dropout(model, kernels))
    if native and args.gelu and (gelus := replace_gelu(backbone, native)):
        speed.resolved["gelu"] = "native"
        speed.put("gelu", gelus)
    if stock is not None:
        return
    transformers_model(model).set_attn_implementation(register(kernels))
    speed.resolved["attention"] = "own"
    speed.put("attention", attentions(model))
    if args.unpad:
        _run_as_stream(model, backbone, args, kernels, speed)


def _run_as_stream(
    model: nn.Module, backbone: nn.Module, args: SpeedArgs, kernels: Kernels, speed: Speed
) -> None:
    """Streams, and where the architecture is known its layers written out."""
    assert isinstance(backbone, PreTrainedModel)
    run_as_stream(backbone)
    speed.resolved["batches"] = "streams"
    speed.put("unpad", [backbone])
    encoder = encoder_of(backbone)
    first_only = args.last_layer and first_token_only(model)
    qkv = args.qkv and "linear" in speed.resolved
    # without hashed masks a norm with a dropout before it would stay plain in training
    wanted = args.norm and args.dropout
    norm = kernels if wanted and isinstance(kernels, NativeKernels) else None
    if encoder is None or not (norm or qkv or first_only):
        return
    attend = partial(attend_stream, kernels=kernels)
    finish = partial(finish_layer, norm=norm)
    write_out(encoder, Written(project if qkv else project_each, attend, finish, first_only))
    speed.put("encoder", [encoder])
    speed.put("layers", encoder.layer)
    parts = [parts_of(layer) for layer in encoder.layer]
    if norm is not None:
        speed.resolved["norm"] = "native"
        speed.put("norm", [layer for part in parts for layer in (part.out_norm, part.norm)])
    if qkv:
        speed.resolved["qkv"] = "joint"
        speed.put("qkv", [x for part in parts for x in (part.query, part.key, part.value)])
    if first_only:
        speed.resolved["last_layer"] = "first token"
        speed.put("last_layer", [encoder.layer[-1]])


def attentions(model: nn.Module) -> list[nn.Module]:
    """The modules that call transformers' attention function: it asks each whether it is causal."""
    return [module for module in model.modules() if hasattr(module, "is_causal")]


def why_stock(model: nn.Module, args: SpeedArgs, left_padded: bool) -> str | None:
    """Why a model keeps stock attention, and with it padding, on the CPU; None if it need not."""
    config = transformers_model(model).config
    if not args.attention:
        return "as configured, so batches keep their padding"
    if config.model_type not in POSITIONS:
        return f"since {config.model_type} is not among {', '.join(POSITIONS)}"
    if getattr(config, "is_decoder", False):
        return "since this encoder is set up as a decoder"
    if left_padded and not isinstance(model, Classifier):
        return "since the architecture's own head looks at the first column, which is padding here"
    return None
