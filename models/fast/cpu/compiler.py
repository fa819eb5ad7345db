"""Builds the C++ of this folder on first use, into a file of its own in the cache.

One call of the machine's own C++ compiler, to a temporary name, then one rename: a build that is
killed leaves nothing that a later one would wait for or trust. The file's name holds what it
depends on: sources, torch, instruction set and machine.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

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
                command(compiler, Path(name)),
                capture_output=True,
                encoding="utf-8",
                errors="replace",  # what it says of a path may be in another one
                timeout=SECONDS,
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
