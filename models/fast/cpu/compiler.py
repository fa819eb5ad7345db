"""Builds the C++ of this folder on first use, into a folder of its own in the cache.

One call of the machine's own C++ compiler, published with its sha256 in one rename: a build that is
killed leaves nothing that a later one would wait for or trust. The folder's name holds what the
library depends on: sources, torch, instruction set and machine.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from files.publish import publish, sweep
from files.write import try_lock
from models.fast.cpu.library import LIBRARY, ForeignError, make_private

SOURCES = sorted(path for path in Path(__file__).parent.iterdir() if path.suffix in (".cpp", ".h"))
# at::vec without these falls back to a slow generic type, and parallel_for to one thread
FLAGS = {
    "AVX512": ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mavx2", "-mfma", "-mf16c"],
    "AVX2": ["-mavx2", "-mfma", "-mf16c"],
}
# no contraction: where a product and a sum are fused must not depend on the compiler
COMMON = ["-std=c++20", "-O3", "-fPIC", "-shared", "-fopenmp", "-Wno-psabi", "-ffp-contract=off"]
WIDTHS = {"AVX512": 16, "AVX2": 8}  # floats in a vector
SECONDS = 600  # twenty seconds on an idle machine; a run without kernels costs more than the wait


def cache_folder() -> Path:
    """`$OPENLOOP_CACHE/native-UID`, or `~/.cache/openloop/native-UID`: one a user, who alone may
    write there."""
    named = os.environ.get("OPENLOOP_CACHE")
    root = Path(named).expanduser() if named else Path.home() / ".cache" / "openloop"
    return root / f"native-{os.geteuid()}"


def find_compiler() -> str | None:
    """`$CXX`, or the first of g++, clang++ and c++ on PATH."""
    candidates = [os.environ.get("CXX"), "g++", "clang++", "c++"]
    paths = (shutil.which(name) for name in candidates if name)
    return next((path for path in paths if path is not None), None)


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


def library_folder() -> Path:
    """Where the library of this source for this torch and machine lies."""
    parts = [
        *(path.read_text(encoding="utf-8") for path in SOURCES), torch.__version__,
        str(Path(torch.__file__).parent), torch.backends.cpu.get_cpu_capability(),
        platform.machine(), platform.libc_ver()[1],
        *COMMON, str(FLAGS), os.environ.get("CXX", ""),
    ]  # fmt: skip
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return cache_folder() / f"kernels-{digest}"


def build(folder: Path) -> str | None:
    """Publish the library in `folder`; returns what went wrong, or None."""
    compiler = find_compiler()
    if compiler is None:
        return "no C++ compiler on PATH"
    try:
        make_private(folder.parent)
        with one_at_a_time(folder.parent):
            sweep(folder.parent)  # of what was cut off: nobody else builds meanwhile
            if os.path.lexists(folder):
                return None  # another process was building it
            print(
                f"building CPU kernels with {Path(compiler).name} (once, some seconds) …",
                file=sys.stderr,
            )
            with publish(folder) as made:
                made.chmod(0o700)
                compile_to(made / LIBRARY, compiler)
                (made / LIBRARY).chmod(0o600)
    except FileExistsError:  # another process was quicker
        return None
    except subprocess.TimeoutExpired:
        return f"{Path(compiler).name} took more than {SECONDS} s"
    except (OSError, ForeignError, CompilerError) as error:
        return str(error)
    return None


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Of several processes that start together one compiles, and the others wait for it, though no
    longer than for a compiler. The lock ends with whoever holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    end = time.monotonic() + SECONDS
    try:
        while not try_lock(descriptor) and time.monotonic() < end:
            time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


class CompilerError(ValueError):
    """A compiler that says no."""


def compile_to(target: Path, compiler: str) -> None:
    """Compile the library to a file. Raises CompilerError with the compiler's first error."""
    done = subprocess.run(
        command(compiler, target),
        capture_output=True,
        encoding="utf-8",
        errors="replace",  # what it says of a path may be in another one
        timeout=SECONDS,
    )
    if done.returncode != 0:
        first = next((s for s in done.stderr.splitlines() if "error" in s), done.stderr)
        raise CompilerError(f"{Path(compiler).name} failed: {first.strip()[:200]}")
    if not target.is_file():
        raise CompilerError(f"{Path(compiler).name} wrote nothing")
