"""The same work as kernels.py in C++ (kernels.cpp, attention.cpp), built on first use.

One call of the machine's own C++ compiler, to a temporary name, then one rename: a build that is
killed leaves nothing that a later one would wait for or trust. The file's name holds what it
depends on: source, torch, instruction set and machine.

Gain: see benchmarks/ablation.md.
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

from models.fast.kernels import Needs, PlainKernels, Spans
from models.fast.masks import Draw

SOURCES = sorted(path for path in Path(__file__).parent.iterdir() if path.suffix in (".cpp", ".h"))
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
        f"-I{include}", *(str(path) for path in SOURCES if path.suffix == ".cpp"),
        "-o", str(target),
        f"-L{lib}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{lib}",
    ]  # fmt: skip


def library_path() -> Path:
    """Where the built file of this source for this torch and machine lies."""
    parts = [
        *(path.read_text(encoding="utf-8") for path in SOURCES), torch.__version__,
        str(Path(torch.__file__).parent), torch.backends.cpu.get_cpu_capability(),
        platform.machine(), platform.libc_ver()[1],
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


class CDraw(ctypes.Structure):
    """Draw, as kernels.h has it."""

    _fields_ = (
        ("rows", ctypes.c_void_p),
        ("columns", ctypes.c_void_p),
        ("threshold", ctypes.c_int32),
        ("scale", ctypes.c_float),
    )


class CShape(ctypes.Structure):
    """Shape, as attention.cpp has it."""

    _fields_ = (
        ("spans", ctypes.c_void_p),
        ("texts", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("tokens", ctypes.c_int64),
        ("size", ctypes.c_int64),
        ("scale", ctypes.c_float),
        ("draw", CDraw),
    )


def c_draw(draw: Draw | None) -> CDraw:
    """For C; the tensors of `draw` must live as long, its rows lie in memory in their order."""
    if draw is None:
        return CDraw(None, None, 0, 1.0)
    assert draw.rows.is_contiguous()
    return CDraw(pointer(draw.rows), pointer(draw.columns), draw.threshold, draw.scale)


def by_token(x: Tensor) -> Tensor:
    """x (N, H, D) such that only the step from token to token may be a free one."""
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()


NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}


class NativeKernels:
    """The functions of kernels.py over a built library; what it cannot do is plain torch's."""

    name = "native"

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.version = path.stem
        for function in ("vector_width", "threads", "bf16_products"):
            getattr(self.library, f"openloop_{function}").restype = ctypes.c_int64
        self.bf16_products = bool(self.library.openloop_bf16_products())

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
        self, q: Tensor, k: Tensor, v: Tensor, spans: Spans, scale: float, draw: Draw | None
    ) -> tuple[Tensor, Tensor]:
        """As PlainKernels."""
        if not self.attends(q):
            return PlainKernels().attend(q, k, v, spans, scale, draw)
        tokens, heads, size = q.shape
        inputs = [by_token(t) for t in (q, k, v)]
        out = q.new_empty(q.shape) if covers(spans, tokens) else q.new_zeros(q.shape)
        lse = q.new_empty(heads, tokens, dtype=torch.float32)
        ends = torch.tensor(spans, dtype=torch.int64)
        shape = CShape(pointer(ends), len(spans), heads, tokens, size, scale, c_draw(draw))
        strides = (ctypes.c_int64 * 3)(*(t.stride(0) for t in inputs))
        run = getattr(self.library, f"openloop_attend_{NAMES[q.dtype]}")
        run(ctypes.byref(shape), *map(pointer, inputs), strides, pointer(out), pointer(lse))
        return out, lse

    def attend_backward(
        self, q: Tensor, k: Tensor, v: Tensor, grad: Tensor, lse: Tensor, spans: Spans,
        scale: float, draw: Draw | None, needs: Needs,
    ) -> list[Tensor | None]:  # fmt: skip
        """As PlainKernels."""
        if not self.attends(q):
            return PlainKernels().attend_backward(
                q, k, v, grad, lse, spans, scale, draw, needs
            )  # fmt: skip
        tokens, heads, size = q.shape
        inputs = [by_token(t) for t in (q, k, v, grad)]
        make = q.new_empty if covers(spans, tokens) else q.new_zeros
        found = [make(q.shape) if need else None for need in needs]
        ends = torch.tensor(spans, dtype=torch.int64)
        shape = CShape(pointer(ends), len(spans), heads, tokens, size, scale, c_draw(draw))
        strides = (ctypes.c_int64 * 4)(*(t.stride(0) for t in inputs))
        run = getattr(self.library, f"openloop_attend_backward_{NAMES[q.dtype]}")
        run(ctypes.byref(shape), *map(pointer, inputs), strides, pointer(lse), *map(pointer, found))
        return found


def covers(spans: Spans, tokens: int) -> bool:
    """Whether spans that follow one another leave no token out."""
    return sum(stop - start for start, stop in spans) == tokens


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
