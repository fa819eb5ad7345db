"""The same element-wise work as kernels.py in C++ (kernels.cpp), built on first use.

One call of the machine's own C++ compiler, to a temporary name, then one rename: a build that is
killed leaves nothing that a later one would wait for or trust. The file's name holds what it
depends on: source, torch, instruction set and machine.

Gain, softmax and dropout of one layer's attention: see benchmarks/ablation.md.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from models.fast.kernels import PlainKernels
from models.fast.masks import Draw

SOURCE = Path(__file__).with_name("kernels.cpp")
# at::vec without these falls back to a slow generic type, and parallel_for to one thread
FLAGS = {
    "AVX512": ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mavx2", "-mfma", "-mf16c"],
    "AVX2": ["-mavx2", "-mfma", "-mf16c"],
}
# no contraction: where a product and a sum are fused must not depend on the compiler
COMMON = ["-std=c++20", "-O3", "-fPIC", "-shared", "-fopenmp", "-Wno-psabi", "-ffp-contract=off"]
WIDTHS = {"AVX512": 16, "AVX2": 8}  # floats in a vector
SECONDS = 120  # a compiler that takes longer is not waited for


def cache_folder() -> Path:
    """`$OPENLOOP_CACHE/native`, or `~/.cache/openloop/native`."""
    named = os.environ.get("OPENLOOP_CACHE")
    root = Path(named).expanduser() if named else Path.home() / ".cache" / "openloop"
    return root / "native"


def find_compiler() -> str | None:
    """`$CXX`, or the first of g++, clang++ and c++ on PATH."""
    candidates = [os.environ.get("CXX"), "g++", "clang++", "c++"]
    found = (shutil.which(name) for name in candidates if name)
    return next((path for path in found if path is not None), None)


def command(compiler: str, target: Path) -> list[str]:
    """The one compiler call."""
    instructions = torch.backends.cpu.get_cpu_capability()
    include, lib = (Path(torch.__file__).parent / name for name in ("include", "lib"))
    capability = instructions if instructions in FLAGS else "DEFAULT"
    return [
        compiler, *COMMON, *FLAGS.get(capability, []), f"-DCPU_CAPABILITY={capability}",
        f"-DCPU_CAPABILITY_{capability}",
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
        f"-I{include}", str(SOURCE), "-o", str(target),
        f"-L{lib}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{lib}",
    ]  # fmt: skip


def library_path() -> Path:
    """Where the built file of this source for this torch and machine lies."""
    parts = [
        SOURCE.read_text(encoding="utf-8"), torch.__version__, str(Path(torch.__file__).parent),
        torch.backends.cpu.get_cpu_capability(), platform.machine(), platform.libc_ver()[1],
        *COMMON, str(FLAGS), os.environ.get("CXX", ""),
    ]  # fmt: skip
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return cache_folder() / f"kernels-{digest}.so"


def build(path: Path) -> str | None:
    """Compile to `path`; returns what went wrong, or None."""
    compiler = find_compiler()
    if compiler is None:
        return "no C++ compiler on PATH"
    print(
        f"building CPU kernels with {Path(compiler).name} (once, some seconds) …", file=sys.stderr
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".so.part")
        os.close(handle)
        try:
            done = subprocess.run(
                command(compiler, Path(name)), capture_output=True, text=True, timeout=SECONDS
            )
            if done.returncode != 0:
                first = next((s for s in done.stderr.splitlines() if "error" in s), done.stderr)
                return f"{Path(compiler).name} failed: {first.strip()[:200]}"
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
    except subprocess.TimeoutExpired:
        return f"{Path(compiler).name} took more than {SECONDS} s"
    except OSError as error:
        return str(error)
    return None


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """The address of a tensor's data; null for None."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


DROPS = {torch.float32: "openloop_drop_fp32", torch.bfloat16: "openloop_drop_bf16"}
BACKWARDS = {
    torch.float32: "openloop_softmax_drop_backward_fp32",
    torch.bfloat16: "openloop_softmax_drop_backward_bf16",
}
NO_DRAW = (ctypes.c_void_p(None), ctypes.c_void_p(None), ctypes.c_int32(0), ctypes.c_float(1))


def draw_arguments(draw: Draw | None) -> tuple:
    """(row hashes, column hashes, threshold, scale) as the C functions take them."""
    if draw is None:
        return NO_DRAW
    return (
        pointer(draw.rows), pointer(draw.columns),
        ctypes.c_int32(draw.threshold), ctypes.c_float(draw.scale),
    )  # fmt: skip


class NativeKernels:
    """The functions of kernels.py over a built library."""

    name = "native"

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.version = path.stem
        self.library.openloop_vector_width.restype = ctypes.c_int64
        self.library.openloop_threads.restype = ctypes.c_int64

    def vector_width(self) -> int:
        """Floats in one vector register."""
        return self.library.openloop_vector_width()

    def threads(self) -> int:
        """Threads that a loop over many rows really gets."""
        return self.library.openloop_threads()

    def drop(self, x: Tensor, draw: Draw) -> Tensor:
        """Dropout of x (..., C), fp32 or bf16; plain torch's for fp16."""
        if x.dtype not in DROPS:
            return PlainKernels().drop(x, draw)
        x, count = x.contiguous(), x.shape[-1]
        out, rows = torch.empty_like(x), draw.rows.contiguous()
        draw = Draw(rows, draw.columns, draw.threshold, draw.scale)
        size = (ctypes.c_int64(x.numel() // count), ctypes.c_int64(count))
        run = getattr(self.library, DROPS[x.dtype])
        run(pointer(x), pointer(out), *size, *draw_arguments(draw))
        return out

    def softmax_drop(self, scores: Tensor, lse: Tensor, scale: float, draw: Draw | None) -> Tensor:
        """As PlainKernels; lse and draw.rows are (H, Q) slices of tensors with one head stride."""
        self.library.openloop_softmax_drop(
            pointer(scores), pointer(lse), *shape(scores, lse), *draw_arguments(draw),
            ctypes.c_float(scale),
        )  # fmt: skip
        return scores

    def softmax_drop_backward(
        self, scores: Tensor, grad: Tensor, lse: Tensor, scale: float, draw: Draw | None,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """As PlainKernels; fp16 is rounded from fp32 at the end."""
        if dtype not in BACKWARDS:
            exact = self.softmax_drop_backward(scores, grad, lse, scale, draw, torch.float32)
            return exact[0].to(dtype), exact[1].to(dtype)
        same = dtype == torch.float32
        kept = scores if same else torch.empty_like(scores, dtype=dtype)
        grad_scores = grad if same else torch.empty_like(grad, dtype=dtype)
        getattr(self.library, BACKWARDS[dtype])(
            pointer(scores), pointer(grad), pointer(kept), pointer(grad_scores), pointer(lse),
            *shape(scores, lse), *draw_arguments(draw), ctypes.c_float(scale),
        )  # fmt: skip
        return kept, grad_scores


def shape(scores: Tensor, lse: Tensor) -> tuple:
    """(H, Q, K, head stride of lse) as the C functions take them."""
    assert scores.is_contiguous()
    assert lse.stride(1) == 1
    return tuple(ctypes.c_int64(n) for n in (*scores.shape, lse.stride(0)))


def load_native() -> tuple[NativeKernels | None, str]:
    """The compiled kernels, built where they are not yet; or None. And what to say of it."""
    path = library_path()
    try:
        kernels = NativeKernels(path)
    except OSError:  # not built yet, or damaged since
        if problem := build(path):
            return None, problem
        try:
            kernels = NativeKernels(path)
        except OSError as error:
            return None, f"the built kernels cannot be loaded: {error}"
    width = kernels.vector_width()
    if width < WIDTHS.get(torch.backends.cpu.get_cpu_capability(), 1):
        return None, f"the compiler's vectors are only {width} floats wide"
    return kernels, f"{width} floats at a time, {kernels.threads()} threads"


if __name__ == "__main__":  # make kernels
    print(load_native()[1])
