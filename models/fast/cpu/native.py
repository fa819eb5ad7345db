"""The same work as kernels.py in C++, and what only pays there: called through ctypes.

compiler.py builds it on first use. Gain: see benchmarks/ablation.md.
"""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from files.publish import remove
from files.verify import DamagedError
from models.fast.cpu.c_types import CShape, c_draw, c_norm, c_spans, pointer
from models.fast.cpu.compiler import WIDTHS, build, library_folder
from models.fast.cpu.kernels import Needs, PlainKernels, Texts, Turn, empty_grads, zero_outside
from models.fast.cpu.library import ForeignError, make_private, open_library
from models.fast.cpu.masks import Draw


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
        arrays = (grad, grad_cast, None, s, stats, dy, partial)
        run(ctypes.byref(c_norm(s, norm, draw)), *map(pointer, arrays))
        dweight, dbias = (None, None) if partial is None else partial.sum(0).unbind()
        return dy, s, dweight, dbias

    def pre_norm(
        self, y: Tensor | None, x: Tensor, norm: nn.Module, draw: Draw | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor]:
        """s = dropout(y) + x, or x without a y, and norm(s) in `dtype`: y fp32 or bf16, x fp32,
        (..., C) each. Returns (s, norm(s), stats (rows, 2)), for the backward pass."""
        x, y = x.contiguous(), None if y is None else y.contiguous()
        s = x if y is None else torch.empty_like(x)
        out = torch.empty_like(x, dtype=dtype)
        stats = x.new_empty(x.numel() // x.shape[-1], 2)
        run = getattr(self.library, f"openloop_add_norm_{NAMES[dtype if y is None else y.dtype]}")
        outs = (out, None) if dtype == torch.float32 else (None, out)
        arrays = (y, x, s, *outs, stats)
        run(ctypes.byref(c_norm(x, norm, draw)), *map(pointer, arrays))
        return s, out, stats

    def pre_norm_backward(
        self, grad: Tensor | None, grad_s: Tensor | None, s: Tensor, stats: Tensor, norm: nn.Module,
        draw: Draw | None, dtype: torch.dtype, trains: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:  # fmt: skip
        """Gradients of y (in `dtype`) and of x (in the memory of s), which may be one, and where
        the norm `trains` of its weight and bias, from those of norm(s) and of s."""
        dy = None if draw is None and dtype == s.dtype else torch.empty_like(s, dtype=dtype)
        groups = -(-len(stats) // self.library.openloop_norm_group())
        partial = s.new_zeros(groups, 2, s.shape[-1]) if trains else None
        run = getattr(self.library, f"openloop_add_norm_backward_{NAMES[dtype]}")
        grads = [None if g is None else g.contiguous() for g in (grad, grad_s)]
        twice = (None, grads[0]) if grad is not None and grad.dtype != s.dtype else (grads[0], None)
        arrays = (*twice, grads[1], s, stats, dy, partial)
        run(ctypes.byref(c_norm(s, norm, draw)), *map(pointer, arrays))
        dweight, dbias = (None, None) if partial is None else partial.sum(0).unbind()
        return s if dy is None else dy, s, dweight, dbias

    def multiply_few(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x W^T + b of a few rows: x (N, in), W (out, in), b (out,), fp32 -> (N, out)."""
        x, bias = x.contiguous(), None if bias is None else bias.contiguous()
        out = x.new_empty(len(x), len(weight))
        sizes = map(ctypes.c_int64, (*x.shape, len(weight)))
        self.library.openloop_few_fp32(*sizes, *map(pointer, (x, weight, bias, out)))
        return out

    def gated(self, x: Tensor, up: Tensor | None, tanh_gelu: bool) -> Tensor:
        """act(x) * up, or act(x): fp32 or bf16, contiguous."""
        out = torch.empty_like(x)
        run = getattr(self.library, f"openloop_gated_{NAMES[x.dtype]}")
        run(*map(pointer, (x, up, out)), ctypes.c_int64(x.numel()), ctypes.c_int64(tanh_gelu))
        return out

    def gated_backward(self, grad: Tensor, x: Tensor, up: Tensor | None, tanh_gelu: bool) -> None:
        """From the gradient of act(x) * up its value, in the same memory, and the gradients of x
        and up in theirs."""
        run = getattr(self.library, f"openloop_gated_backward_{NAMES[x.dtype]}")
        run(*map(pointer, (grad, x, up)), ctypes.c_int64(x.numel()), ctypes.c_int64(tanh_gelu))

    def rotate(self, x: Tensor, turn: Turn, back: bool) -> None:
        """As PlainKernels."""
        together = x.stride(2) == 1 and x.stride(1) == x.shape[2]
        if x.dtype not in NAMES or not together:
            PlainKernels().rotate(x, turn, back)
            return
        run = getattr(self.library, f"openloop_rotate_{NAMES[x.dtype]}")
        sizes = [ctypes.c_int64(size) for size in (*x.shape, int(back))]
        run(pointer(x), ctypes.c_int64(x.stride(0)), *map(pointer, turn), *sizes)


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
