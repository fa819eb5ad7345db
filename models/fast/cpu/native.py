"""The same work as kernels.py in C++, and what only pays there: called through ctypes.

compiler.py builds it on first use. Gain: see benchmarks/ablation.md.
"""

import ctypes
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from files.publish import remove
from files.verify import DamagedError
from models.fast.cpu.compiler import WIDTHS, build, library_folder
from models.fast.cpu.kernels import Needs, PlainKernels, Spans, Texts, empty_grads, zero_outside
from models.fast.cpu.library import ForeignError, make_private, open_library
from models.fast.cpu.masks import Draw


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
        ("eps", ctypes.c_float),
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


def by_token(x: Tensor) -> Tensor:
    """x (N, H, D), contiguous within a token; tokens begin on whole pairs of numbers, as which bf16
    is moved, and else anywhere."""
    together = x.stride(2) == 1 and x.stride(1) == x.shape[2]
    in_pairs = x.stride(0) % 2 == 0 and x.data_ptr() % 4 == 0
    return x if together and in_pairs else x.contiguous()


NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}


class NativeKernels:
    """The functions of kernels.py over a built library; what it cannot do is plain torch's."""

    name = "native"

    def __init__(self, folder: Path) -> None:
        self.library = open_library(folder)
        self.version = folder.name
        for function in ("vector_width", "threads", "bf16_products", "norm_group"):
            getattr(self.library, f"openloop_{function}").restype = ctypes.c_int64
        self.bf16_products = bool(self.library.openloop_bf16_products())

    def __deepcopy__(self, memo: dict) -> "NativeKernels":
        return self  # a library has no state: a copied model computes with the same one

    def vector_width(self) -> int:
        """Floats in one vector register."""
        return self.library.openloop_vector_width()

    def threads(self) -> int:
        """Threads that a loop over many rows really gets."""
        return self.library.openloop_threads()

    def drop(self, x: Tensor, draw: Draw) -> Tensor:
        """Dropout of x (..., C)."""
        if x.dtype not in NAMES:
            return PlainKernels().drop(x, draw)
        x, count = x.contiguous(), x.shape[-1]
        out, rows = torch.empty_like(x), draw.rows.contiguous()
        draw = Draw(rows, draw.columns, draw.threshold, draw.scale)
        size = (ctypes.c_int64(x.numel() // count), ctypes.c_int64(count))
        run = getattr(self.library, f"openloop_drop_{NAMES[x.dtype]}")
        run(pointer(x), pointer(out), *size, ctypes.byref(c_draw(draw)))
        return out

    def attends(self, q: Tensor) -> bool:
        """Whether attention of this dtype and head size is native."""
        if q.dtype == torch.bfloat16:
            return self.bf16_products and q.shape[2] % 2 == 0  # its products take pairs
        return q.dtype == torch.float32

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, texts: Texts, scale: float, draw: Draw | None
    ) -> tuple[Tensor, Tensor]:
        """As PlainKernels."""
        assert q.dtype == k.dtype == v.dtype
        if not self.attends(q):
            return PlainKernels().attend(q, k, v, texts, scale, draw)
        out = q.new_empty(q.shape)
        zero_outside(out, texts.queries)
        lse = q.new_empty(q.shape[1], q.shape[0], dtype=torch.float32)
        self._run_attention("attend", [q, k, v], [out], lse, texts, scale, draw)
        return out, lse

    def attend_backward(
        self, q: Tensor, k: Tensor, v: Tensor, grad: Tensor, lse: Tensor, texts: Texts,
        scale: float, draw: Draw | None, needs: Needs,
    ) -> list[Tensor | None]:  # fmt: skip
        """As PlainKernels."""
        if not self.attends(q):
            return PlainKernels().attend_backward(q, k, v, grad, lse, texts, scale, draw, needs)
        grads = empty_grads([q, k, v], texts, needs)
        inputs = [q, k, v, grad]
        self._run_attention("attend_backward", inputs, grads, lse, texts, scale, draw)
        return grads

    def _run_attention(
        self, function: str, inputs: list[Tensor], outputs: Sequence[Tensor | None], lse: Tensor,
        texts: Texts, scale: float, draw: Draw | None,
    ) -> None:  # fmt: skip
        """Call one pass of attention: inputs (., H, D) in any order of memory, then the outputs."""
        (count, heads, size), by_rows = inputs[0].shape, [by_token(t) for t in inputs]
        spans, queries = c_spans(texts.spans), c_spans(texts.queries)
        shape = CShape(
            ctypes.addressof(spans), ctypes.addressof(queries), len(texts.spans), heads, count,
            size, heads // inputs[1].shape[1], int(texts.causal), scale, c_draw(draw),
        )  # fmt: skip
        tensors = [*by_rows, *outputs]
        strides = (0 if t is None else t.stride(0) for t in tensors)
        run = getattr(self.library, f"openloop_{function}_{NAMES[inputs[0].dtype]}")
        run(
            ctypes.byref(shape), (ctypes.c_int64 * len(tensors))(*strides), *map(pointer, tensors),
            pointer(lse),
        )  # fmt: skip

    def gelu_backward(self, grad: Tensor, x: Tensor) -> Tensor:
        """The gradient of x for that of gelu(x), in the memory of x; fp32 or bf16."""
        assert x.is_contiguous()
        run = getattr(self.library, f"openloop_gelu_backward_{NAMES[x.dtype]}")
        grad = grad.contiguous()  # a copy must outlive the call
        run(pointer(grad), pointer(x), ctypes.c_int64(x.numel()))
        return x

    def add_norm(
        self, y: Tensor, residual: Tensor, norm: nn.LayerNorm, draw: Draw | None, for_backward: bool
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """layer_norm(dropout(y) + residual): y fp32 or bf16, all else fp32, (..., C) each.

        Returns (out, its copy in bf16 where y is, s, stats (rows, 2)), the last two for the
        backward pass; only `for_backward` are they kept.
        """
        y, residual = y.contiguous(), residual.contiguous()
        out = torch.empty_like(residual)
        cast = torch.empty_like(y) if y.dtype == torch.bfloat16 else None
        s = torch.empty_like(residual) if for_backward else out
        stats = residual.new_empty(residual.numel() // residual.shape[-1], 2)
        run = getattr(self.library, f"openloop_add_norm_{NAMES[y.dtype]}")
        arrays = (y, residual, s, out, cast, stats)
        run(ctypes.byref(c_norm(residual, norm, draw)), *map(pointer, arrays))
        return out, cast, s, stats

    def add_norm_backward(
        self, grad: Tensor, grad_cast: Tensor | None, s: Tensor, stats: Tensor, norm: nn.LayerNorm,
        draw: Draw | None, dtype: torch.dtype, trains: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:  # fmt: skip
        """Gradients of y (in `dtype`), of the residual (in the memory of s), and where the norm
        `trains` of its weight and bias, from those of out and of its copy."""
        dy = torch.empty_like(s, dtype=dtype)
        groups = -(-len(stats) // self.library.openloop_norm_group())
        partial = s.new_zeros(groups, 2, s.shape[-1]) if trains else None
        run = getattr(self.library, f"openloop_add_norm_backward_{NAMES[dtype]}")
        grad = grad.contiguous()
        grad_cast = None if grad_cast is None else grad_cast.contiguous()
        arrays = (grad, grad_cast, s, stats, dy, partial)
        run(ctypes.byref(c_norm(s, norm, draw)), *map(pointer, arrays))
        dweight, dbias = (None, None) if partial is None else partial.sum(0).unbind()
        return dy, s, dweight, dbias


def c_norm(x: Tensor, norm: nn.LayerNorm, draw: Draw | None) -> CNorm:
    """For C, over the rows of x (..., C)."""
    columns = x.shape[-1]
    return CNorm(
        x.numel() // columns, columns, pointer(norm.weight), pointer(norm.bias), norm.eps,
        c_draw(draw),
    )  # fmt: skip


def load_native() -> tuple[NativeKernels | None, str]:
    """The compiled kernels, built where they are not yet; or None. And what to say of it."""
    folder = library_folder()
    try:
        if folder.parent.exists():
            make_private(folder.parent)  # before anything in it is looked at
        there = os.path.lexists(folder)
        kernels = NativeKernels(folder)
    except ForeignError as error:
        return None, str(error)
    except (DamagedError, OSError):  # not built yet, or not what was built
        try:
            if there:  # else another process may have built it by now
                remove(folder)
        except OSError as error:
            return None, f"{folder} cannot be replaced: {error}"
        if problem := build(folder):
            return None, problem
        try:
            kernels = NativeKernels(folder)
        except (DamagedError, OSError) as error:
            return None, f"the built kernels cannot be loaded: {error}"
    width = kernels.vector_width()
    if width < WIDTHS.get(torch.backends.cpu.get_cpu_capability(), 1):
        return None, f"the compiler's vectors are only {width} floats wide"
    note = f"{width} floats at a time, {kernels.threads()} threads"
    return kernels, note + ("" if kernels.bf16_products else "; attention in bf16 is plain torch")


if __name__ == "__main__":  # make kernels
    print(load_native()[1])
