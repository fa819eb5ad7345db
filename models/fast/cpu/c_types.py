"""What native.py hands to C++: structures as the headers have them, and addresses of tensors."""

import ctypes
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from models.fast.cpu.kernels import Spans
from models.fast.cpu.masks import Draw

# transformers' RMS norms that multiply by shift + weight, and take that in fp32
RMS_NORMS = {
    "GemmaRMSNorm": 1.0, "LlamaRMSNorm": 0.0, "MistralRMSNorm": 0.0, "Qwen2RMSNorm": 0.0,
    "Qwen3RMSNorm": 0.0,
}  # fmt: skip


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """The address of a tensor's data; null for None."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


class CDraw(ctypes.Structure):
    """Draw, as kernels.h has it."""

    _fields_ = (
        ("rows", ctypes.c_void_p),
        ("columns", ctypes.c_void_p),
        ("threshold", ctypes.c_int32),
        ("scale", ctypes.c_float),
    )


class CShape(ctypes.Structure):
    """Shape, as products.h has it."""

    _fields_ = (
        ("spans", ctypes.c_void_p),
        ("asked", ctypes.c_void_p),
        ("texts", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("queries", ctypes.c_int64),
        ("size", ctypes.c_int64),
        ("shared", ctypes.c_int64),
        ("causal", ctypes.c_int64),
        ("scale", ctypes.c_float),
        ("draw", CDraw),
    )


class CNorm(ctypes.Structure):
    """Norm, as norm.cpp has it."""

    _fields_ = (
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("rms", ctypes.c_int64),
        ("eps", ctypes.c_float),
        ("shift", ctypes.c_float),
        ("draw", CDraw),
    )


def c_draw(draw: Draw | None) -> CDraw:
    """For C. The tensors of `draw` must outlive the call; its rows must be contiguous."""
    if draw is None:
        return CDraw(None, None, 0, 1.0)
    assert draw.rows.is_contiguous()
    return CDraw(pointer(draw.rows), pointer(draw.columns), draw.threshold, draw.scale)


def c_spans(spans: Spans) -> ctypes.Array:
    """For C: first and end of each text, one text after the other."""
    return (ctypes.c_int64 * (2 * len(spans)))(*chain.from_iterable(spans))


def knows_norm(norm: Any) -> bool:
    """Whether CNorm says all of what this norm computes."""
    known = type(norm) is torch.nn.LayerNorm or type(norm).__name__ in RMS_NORMS
    return known and norm.weight is not None and norm.weight.dtype == torch.float32


def c_norm(x: Tensor, norm: Any, draw: Draw | None) -> CNorm:
    """For C, over the rows of x (..., C)."""
    columns, name = x.shape[-1], type(norm).__name__
    eps = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
    return CNorm(
        x.numel() // columns, columns, pointer(norm.weight), pointer(getattr(norm, "bias", None)),
        int(name in RMS_NORMS), eps, RMS_NORMS.get(name, 0.0), c_draw(draw),
    )  # fmt: skip
