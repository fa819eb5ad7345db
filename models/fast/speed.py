"""The one place that puts the fast paths in: each switch, what it needs, and what to say of it.

Every path gives the same training as the plain one: the same rows in each step, the same dropout
rates, sums equal to rounding. Called after the model is built and on its device, before the
optimizer sees it; parameters keep their names.
"""

from dataclasses import dataclass
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
    project_each,
    write_out,
)
from models.fast.frozen import freeze_in
from models.fast.linear import fuse_linear, fuse_lora, project
from models.fast.streams import POSITIONS, run_as_stream
from models.heads import Classifier, backbone_name, transformers_model


@dataclass(frozen=True)
class SpeedArgs:
    """One switch for each fast path, as in [speed]."""

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


@dataclass(frozen=True)
class Speed:
    """What runs: `resolved` belongs to "the same bits", `notes` are said before step 1."""

    resolved: dict[str, str]
    notes: list[str]


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
    resolved, notes = {}, []
    if args.lora and (count := fuse_lora(model)):
        resolved["lora"] = "fused"
        notes.append(f"lora: {count} layers as one function each")
    if args.frozen and dtype != torch.float32 and (saved := freeze_in(model, dtype)):
        resolved["frozen"] = str(dtype)
        notes.append(f"frozen weights: kept in {dtype}, {saved / 2**20:.0f} MiB less")
    if device.type == "cuda" and args.attention and use_lean_sdpa(transformers_model(model)):
        resolved["attention"] = "sdpa"
        notes.append("attention: stock, with a mask that asks the host nothing")
    elif device.type == "cpu" and compiled:
        notes.append("attention, dropout: torch.compile sees the stock ones")
    elif device.type == "cpu":
        _speed_up_on_cpu(model, args, dtype, left_padded, resolved, notes)
    return Speed(resolved, [f"speed: {note}" for note in notes])


def _speed_up_on_cpu(
    model: nn.Module, args: SpeedArgs, dtype: torch.dtype, left_padded: bool,
    resolved: dict[str, str], notes: list[str],
) -> None:  # fmt: skip
    """Linear layers, dropout and GELU; attention, and streams on top of it, where the architecture
    takes them."""
    backbone = model.get_submodule(backbone_name(model))
    if args.linear and (count := fuse_linear(backbone, dtype)):
        resolved["linear"] = "onednn"
        notes.append(f"linear: {count} layers by oneDNN with their bias")
    stock = why_stock(model, args, left_padded)
    parts = args.dropout or args.gelu
    if not parts and stock is not None:
        notes.append(f"attention: stock, {stock}")
        return
    kernels, said = choose_kernels(args.native)
    resolved["kernels"] = kernels.version
    notes.append(said)
    if args.dropout:
        resolved["dropout"] = "hashed"
        notes.append(f"dropout: {replace_dropout(model, kernels)} layers with hashed masks")
    native = kernels if isinstance(kernels, NativeKernels) else None
    if native and args.gelu and (count := replace_gelu(backbone, native)):
        resolved["gelu"] = "native"
        notes.append(f"gelu: {count} layers with a native backward pass")
    if stock is not None:
        notes.append(f"attention: stock, {stock}")
        return
    transformers_model(model).set_attn_implementation(register(kernels))
    resolved["attention"] = "own"
    notes.append("attention: own, text by text")
    if args.unpad:
        _run_as_stream(model, backbone, args, kernels, resolved, notes)


def _run_as_stream(
    model: nn.Module, backbone: nn.Module, args: SpeedArgs, kernels: Kernels,
    resolved: dict[str, str], notes: list[str],
) -> None:  # fmt: skip
    """Streams, and where the architecture is known its layers written out."""
    assert isinstance(backbone, PreTrainedModel)
    run_as_stream(backbone)
    resolved["batches"] = "streams"
    notes[-1] += "; batches run as streams without padding"
    encoder = encoder_of(backbone)
    first_only = args.last_layer and first_token_only(model)
    qkv = args.qkv and "linear" in resolved
    # without hashed masks a norm with a dropout before it would stay plain in training
    wanted = args.norm and args.dropout
    norm = kernels if wanted and isinstance(kernels, NativeKernels) else None
    if encoder is None or not (norm or qkv or first_only):
        return
    attend = partial(attend_stream, kernels=kernels)
    finish = partial(finish_layer, norm=norm)
    write_out(encoder, Written(project if qkv else project_each, attend, finish, first_only))
    if norm is not None:
        resolved["norm"] = "native"
        notes.append("norm: native, with dropout and residual")
    if qkv:
        resolved["qkv"] = "joint"
        notes.append("qkv: query, key and value read their input as one")
    if first_only:
        resolved["last_layer"] = "first token"
        notes.append("last layer: for the first token alone, which is all that the head reads")


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
