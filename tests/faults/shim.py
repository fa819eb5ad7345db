"""shim.c, built and preloaded: the file-system calls of a process are counted, ended or failed."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
COUNT, KILL, TORN, FULL, FULL_FROM = range(5)  # as in shim.c


def build_shim(folder: Path) -> Path | None:
    """The shared library, compiled into `folder`; None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    path = folder / "shim.so"
    words = ["-std=c11", "-O2", "-fPIC", "-shared", str(SOURCE), "-o", str(path), "-ldl"]
    subprocess.run([compiler, *words], check=True)
    return path


class Shim:
    """The library as this process has it preloaded."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(os.environ["LD_PRELOAD"])
        self.library.shim_calls.restype = ctypes.c_long
        self.library.shim_kind.restype = ctypes.c_char
        self.library.shim_kind.argtypes = [ctypes.c_long]
        self.library.shim_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long]

    def arm(self, folder: Path, mode: int, at: int = 0) -> None:
        """Watch the calls that change files under `folder` from now on."""
        self.library.shim_arm(os.fsencode(f"{folder}/"), mode, at)

    def kinds(self) -> str:
        """A letter for each call so far: w write, o open, m mkdir, r rename, f fsync, u unlink."""
        calls = self.library.shim_calls()
        return "".join(self.library.shim_kind(n).decode() for n in range(1, calls + 1))
