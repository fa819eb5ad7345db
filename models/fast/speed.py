"""The one place that puts the fast paths in: each switch, what it needs, and what to say of it.

Every path gives the same training as the plain one: the same rows in each step, the same dropout
rates, sums equal to rounding. Called after the model is built and on its device, before the
optimizer sees it; parameters keep their names.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from models.fast import decoder
from models.fast.cpu.attention import attend_stream, register
from models.fast.cpu.dropout import replace_dropout
from models.fast.cpu.gelu import replace_gelu
from models.fast.cpu.kernels import Kernels, PlainKernels
from models.fast.cpu.native import NativeKernels, load_native
from models.fast.cuda.attention import attend_varlen
from models.fast.cuda.attention import register as register_varlen
from models.fast.cuda.compiled import Compilations, compile_parts, why_not
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
from models.fast.fits import attentions, why_stock
from models.fast.frozen import freeze_in
from models.fast.linear import fuse_linear, fuse_lora, lend_native, project
from models.fast.map import Replacement, replacement
from models.fast.products import prefers_onednn, takes_onednn
from models.fast.streams import DECODERS, run_as_stream
from models.heads import backbone_name, transformers_model
from models.methods.method import tokens_in_front
from models.ngrams.bag import NgramBag


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
    gate: bool = True
    rotary: bool = True
    norm: bool = True
    compile: bool = True
    native: Literal["auto", "on", "off"] = "auto"


@dataclass
class Speed:
    """What runs: `resolved` belongs to "the same bits". Said before step 1: `notes` always, for
    they cost the user time; `details` and the table of what was `replaced` to whoever asks."""

    resolved: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    replaced: list[Replacement] = field(default_factory=list)
    in_front: int = 0  # tokens that the model puts before each text
    compilations: Compilations | None = None  # of a GPU's layers, counted while they run

    @property
    def streams(self) -> bool:
        """Whether batches run without padding."""
        return self.resolved.get("batches") == "streams"

    def put(self, path: str, modules: Iterable[nn.Module]) -> None:
        """A path of map.py now stands in for these modules, where there are any."""
        if modules := list(modules):
            self.replaced.append(replacement(path, modules))


def choose_kernels(mode: str) -> tuple[Kernels, str]:
    """The kernels, and why. Raises ValueError where "on" cannot be had."""
    if mode == "off":
        return PlainKernels(), "kernels: plain torch, as configured"
    kernels, note = load_native()
    if kernels is not None:
        return kernels, f"kernels: native, {note}"
    if mode == "on":
        raise ValueError(
            f'speed.native is "on", but the kernels cannot be built: {note}. Install a C++ '
            'compiler (on Debian and Ubuntu: apt install g++), or set speed.native = "auto"'
        )
    return PlainKernels(), f"kernels: plain torch ({note})"


def speed_up(
    model: nn.Module, args: SpeedArgs, device: torch.device, dtype: torch.dtype,
    compiled: bool = False,
) -> Speed:  # fmt: skip
    """Put the fast paths that are switched on and fit into `model`, in place.

    `dtype` is that of the matrix products; `compiled` says that torch.compile will see the model.
    Batches are padded after the text. Raises ValueError for native = "on" without a compiler.
    """
    speed = Speed(in_front=tokens_in_front(model))
    if isinstance(model, NgramBag):
        speed.notes.append("there are none for a bag of n-grams")
        return speed
    if args.plain:
        speed.notes.append("speed.plain switches all of them off")
        return speed
    if device.type not in ("cpu", "cuda"):
        speed.notes.append(f"there are none for {device.type}")
        return speed
    if args.frozen and dtype != torch.float32 and (holders := freeze_in(model, dtype)):
        speed.resolved["frozen"] = str(dtype)
        speed.put("frozen", holders)
    stock = why_stock(model, args.attention)
    if device.type == "cuda":
        _speed_up_on_gpu(model, args, device, stock, compiled, speed)
    else:
        _fuse_lora(model, args, speed)
        if compiled:
            speed.notes.append("attention, dropout: torch.compile sees the stock ones")
        else:
            _speed_up_on_cpu(model, args, dtype, stock, speed)
    return speed


def _fuse_lora(model: nn.Module, args: SpeedArgs, speed: Speed) -> None:
    """Each adapter as one function with its base."""
    if args.lora and (adapters := fuse_lora(model)):
        speed.resolved["lora"] = "fused"
        speed.put("lora", adapters)


def _speed_up_on_gpu(
    model: nn.Module, args: SpeedArgs, device: torch.device, stock: str | None, compiled: bool,
    speed: Speed,
) -> None:  # fmt: skip
    """Streams with attention text by text, and layers whose parts are compiled."""
    backbone = model.get_submodule(backbone_name(model))
    assert isinstance(backbone, PreTrainedModel)
    if compiled:
        stock = "for torch.compile sees it"
    elif stock is None and not args.unpad:
        stock = "for batches keep their padding, as configured"
    encoder = None if stock is not None else encoder_of(backbone)
    compiles = args.compile and encoder is not None
    if compiles and (reason := why_not(device)):
        speed.notes.append(f"layers: not compiled ({reason})")
        compiles = False
    if not compiles:  # torch.compile writes the adapters' products out itself
        _fuse_lora(model, args, speed)
    if stock is not None:
        speed.notes.append(f"attention: stock, {stock}")
        if args.attention and use_lean_sdpa(transformers_model(model)):
            speed.resolved["attention"] = "sdpa"
            speed.put("lean_sdpa", attentions(model))
        return
    transformers_model(model).set_attn_implementation(register_varlen())
    speed.resolved["attention"] = "varlen"
    speed.put("varlen", attentions(model))
    _run_as_stream(backbone, speed)
    if encoder is None:
        return
    first_only = args.last_layer and first_token_only(model)
    qkv = args.qkv and "lora" in speed.resolved  # what is not fused cannot be joined
    if not (compiles or qkv or first_only):
        return
    how = Written(project if qkv else project_each, attend_varlen, finish_layer, first_only)
    if compiles:
        speed.compilations = Compilations()
        before, after = compile_parts(speed.compilations)
        how = replace(how, project=before, finish=after)
    _write_out(encoder, how, None, qkv, speed)
    if compiles:
        speed.resolved["layers"] = "compiled"
        speed.put("compile", encoder.layer)


def _speed_up_on_cpu(
    model: nn.Module, args: SpeedArgs, dtype: torch.dtype, stock: str | None, speed: Speed
) -> None:
    """Linear layers, dropout and GELU; attention, and streams on top of it, where the architecture
    takes them."""
    backbone: Any = model.get_submodule(backbone_name(model))
    if args.linear and (layers := fuse_linear(backbone, dtype)):
        speed.resolved["linear"] = "onednn" if prefers_onednn(dtype) else "torch"
        speed.put("linear", layers)
    if stock is not None:
        speed.notes.append(f"attention: stock, {stock}")
    if not (args.dropout or args.gelu) and stock is not None:
        return
    kernels, note = choose_kernels(args.native)
    native = kernels if isinstance(kernels, NativeKernels) else None
    unusual = native is None and args.native == "auto"
    (speed.notes if unusual else speed.details).append(note)
    speed.resolved["kernels"] = kernels.version
    if args.dropout:
        speed.resolved["dropout"] = "hashed"
        speed.put("dropout", replace_dropout(model, kernels))
    if native and args.linear and dtype == torch.float32:
        speed.put("few", lend_native(model, native))
    if native and args.gelu and (gelus := replace_gelu(backbone, native)):
        speed.resolved["gelu"] = "native"
        speed.put("gelu", gelus)
    if stock is not None:
        return
    transformers_model(model).set_attn_implementation(register(kernels))
    speed.resolved["attention"] = "own"
    speed.put("attention", attentions(model))
    if not args.unpad:
        return
    _run_as_stream(backbone, speed)
    # with adapters on all layers none is left for fuse_linear: they join as products of their own
    products = speed.resolved.keys() & {"linear", "lora"}
    qkv = args.qkv and args.linear and takes_onednn(dtype) and bool(products)
    if backbone.config.model_type in DECODERS:
        _write_decoder(backbone, args, kernels, qkv, speed)
        return
    encoder = encoder_of(backbone)
    first_only = args.last_layer and first_token_only(model)
    # without hashed masks a norm with a dropout before it would stay plain in training
    norm = native if args.norm and args.dropout else None
    if encoder is not None and (norm or qkv or first_only):
        attend, finish = partial(attend_stream, kernels=kernels), partial(finish_layer, norm=norm)
        how = Written(project if qkv else project_each, attend, finish, first_only)
        _write_out(encoder, how, norm, qkv, speed)


def _run_as_stream(backbone: nn.Module, speed: Speed) -> None:
    """Batches without padding."""
    assert isinstance(backbone, PreTrainedModel)
    run_as_stream(backbone)
    speed.resolved["batches"] = "streams"
    speed.put("unpad", [backbone])


def _write_out(
    encoder: Any, how: Written, norm: NativeKernels | None, qkv: bool, speed: Speed
) -> None:
    """The layers of a known architecture written out, and what that replaces."""
    write_out(encoder, how)
    speed.put("encoder", [encoder])
    speed.put("layers", encoder.layer)
    parts = [parts_of(layer) for layer in encoder.layer]
    if norm is not None:
        speed.resolved["norm"] = "native"
        speed.put("norm", [layer for part in parts for layer in (part.out_norm, part.norm)])
    if qkv:
        speed.resolved["qkv"] = "joint"
        speed.put("qkv", [x for part in parts for x in (part.query, part.key, part.value)])
    if how.first_only:
        speed.resolved["last_layer"] = "first token"
        speed.put("last_layer", [encoder.layer[-1]])


def _write_decoder(
    backbone: Any, args: SpeedArgs, kernels: Kernels, qkv: bool, speed: Speed
) -> None:
    """The layers of a decoder written out, and what that replaces."""
    native = kernels if isinstance(kernels, NativeKernels) else None
    layers = decoder.layers_of(backbone)
    parts = [decoder.parts_of(layer) for layer in layers]
    turns = args.rotary and hasattr(backbone, "rotary_emb")
    gated = args.gate if len(parts[0].ups) > 1 else args.gelu
    norm, gate = native if args.norm else None, native if gated else None
    if not (qkv or turns or norm or gate):
        return
    how = decoder.Written(project if qkv else project_each, kernels, norm, gate, turns)
    decoder.write_out(backbone, how)
    speed.put("decoder", [backbone])
    speed.put("decoder_layers", layers)
    joint: list[nn.Module] = [layer for part in parts for layer in (*part.inputs, *part.ups)]
    gate_key, gate_path = ("gate", "gate") if len(parts[0].ups) > 1 else ("gelu", "gelu_down")
    acts = [part.activation for part in parts if isinstance(part.activation, nn.Module)]
    norms = [x for part in parts for x in (part.norm, part.second_norm)]
    rotary = [backbone.rotary_emb] if turns else []
    for there, key, value, path, modules in (
        (norm, "norm", "native", "pre_norm", norms),
        (qkv, "qkv", "joint", "qkv", joint),
        (turns, "rotary", "in place", "rotary", rotary),
        (gate, gate_key, "native", gate_path, acts),
    ):
        if there:
            speed.resolved[key] = value
            speed.put(path, modules)
