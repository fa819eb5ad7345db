"""Trials of a round: each in a forked process with everything imported already, in a fresh copy of
what it works on, watched by Python's audit hooks. What it printed, how it ended, and what it did
that it must not."""

import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MOST_SECONDS = 20  # of the processor, for a trial; a message is wanted within seconds
MOST_MEMORY = 8 << 30  # bytes of address space; torch and its libraries take 3 GB of it
STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork"}
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.truncate",
           "os.chmod", "os.chown", "os.utime", "shutil.rmtree", "shutil.move"}  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
STRANGER = "stranger"  # a word in all code of a stranger's


@dataclass(frozen=True)
class Trial:
    """`harm` is done to a place first; then `action` runs there. `own` are the folders in the place
    that it may write to, `outside` those that it may not even read."""

    name: str
    harm: Callable[[Path], None]
    action: Callable[[], int]
    own: Sequence[str] = (".",)
    outside: Sequence[str] = ()
    word: str = ""  # that a refusal has to hold


@dataclass(frozen=True)
class Place:
    """A folder in which trials run, one at a time, and what it holds before each."""

    path: Path
    pristine: Path

    def restore(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.copytree(self.pristine, self.path, symlinks=True)


@dataclass
class Outcome:
    """How a trial ended: its exit status, None where it was killed or out of time."""

    trial: Trial
    place: Path
    code: int | None
    out: str
    err: str
    seconds: float
    deeds: list[str] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        """Whether it ended with one readable message."""
        shown = self.err.strip()
        readable = "Traceback" not in shown and shown.replace("\n", "").replace("\t", "")
        return self.code == 2 and bool(readable) and readable.isprintable()

    def describe(self) -> str:
        """For a failing test."""
        deeds = "".join(f"\n    deed: {deed}" for deed in self.deeds)
        tail = "\n    ".join(self.err.strip().splitlines()[-12:])
        return f"{self.trial.name}: {self.code} in {self.seconds:.1f} s{deeds}\n    {tail}"


class Watch:
    """An audit hook that notes what a trial must not do."""

    def __init__(self, trial: Trial, place: Path, compiler: str | None) -> None:
        self.root = os.path.realpath(place)
        self.own = [os.path.realpath(place / name) for name in trial.own] + ["/dev", "/proc/self"]
        self.outside = [os.path.realpath(place / name) for name in trial.outside]
        self.compiler, self.deeds, self.busy = compiler, [], False

    def __call__(self, event: str, words: tuple) -> None:
        if self.busy:  # what the hook itself does
            return
        self.busy = True
        try:
            if deed := self.deed(event, words):
                self.deeds.append(deed)
        finally:
            self.busy = False

    def deed(self, event: str, words: tuple) -> str | None:
        """What is wrong with an event; None for all that may be."""
        if event in STARTS:
            started = str(words[0]) if words else ""
            return None if started == self.compiler else f"{event} {started}"
        if event.startswith("socket.") and event not in ("socket.gethostname",):
            return f"{event} {words[1:]!r:.80}"
        if event == "pickle.find_class":
            return f"{event} {words!r:.80}"
        if event == "compile":
            source = words[0] if isinstance(words[0], str | bytes) else ""
            marked = STRANGER in source if isinstance(source, str) else STRANGER.encode() in source
            return f"compile {words[1]}" if marked or self.is_within_root(words[1]) else None
        if event == "exec":
            name = getattr(words[0], "co_filename", "")
            return f"exec {name}" if self.is_within_root(name) else None
        if event == "import":
            return f"import {words[1]}" if self.is_within_root(words[1]) else None
        if event == "ctypes.dlopen":
            return f"dlopen {words[0]}" if self.is_within_root(words[0]) else None
        if event == "open":
            return self.opening(*words[:3])
        if event in CHANGES and isinstance(words[0], str | bytes | os.PathLike):
            path = os.fsdecode(words[0])
            if isinstance(words[-1], int) and words[-1] >= 0 and event != "os.truncate":
                path = os.path.join(os.readlink(f"/proc/self/fd/{words[-1]}"), path)
            return None if self.may_write(path) else f"{event} {path!r}"
        return None

    def opening(self, path: object, mode: object, flags: int) -> str | None:
        """What is wrong with opening a file."""
        if not isinstance(path, str | bytes | os.PathLike):
            return None  # a descriptor
        real = os.path.realpath(os.fsdecode(path))
        if isinstance(flags, int) and flags & os.O_NOFOLLOW:  # a link itself is refused
            folder, name = os.path.split(os.fsdecode(path))
            real = os.path.join(os.path.realpath(folder), name)
        if any(real == place or real.startswith(place + "/") for place in self.outside):
            return f"open {real}"
        writes = isinstance(flags, int) and flags & WRITING
        return f"open for writing {real}" if writes and not self.is_own(real) else None

    def may_write(self, path: object) -> bool:
        return self.is_own(os.path.realpath(os.fsdecode(path)))  # type: ignore[arg-type]

    def is_own(self, real: str) -> bool:
        return any(real == place or real.startswith(place + "/") for place in self.own)

    def is_within_root(self, path: object) -> bool:
        return (
            isinstance(path, str)
            and path[:1] != "<"
            and os.path.realpath(path).startswith(self.root + "/")
        )


def run_trials(trials: Iterable[Trial], places: Sequence[Place]) -> Iterator[Outcome]:
    """The outcomes, as they come; as many processes at a time as there are places."""
    running: dict[int, tuple[Trial, Place, Path, float]] = {}
    free, waiting = list(places), iter(trials)
    while True:
        while free and (trial := next(waiting, None)) is not None:
            place, notes = free.pop(), Path(tempfile.mkdtemp(prefix="trial-"))
            place.restore()
            trial.harm(place.path)
            running[start_trial(trial, place, notes)] = (trial, place, notes, time.monotonic())
        if not running:
            return
        pid, status = os.wait()
        trial, place, notes, begin = running.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        out, err, deeds = (read_note(notes / name) for name in ("out", "err", "deeds"))
        shutil.rmtree(notes)
        yield Outcome(
            trial, place.path, None if code < 0 else code, out, err, time.monotonic() - begin,
            deeds.splitlines(),
        )  # fmt: skip
        free.append(place)


def read_note(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def start_trial(trial: Trial, place: Place, notes: Path) -> int:
    """Fork; the child never returns from here."""
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    code = 1
    try:
        code = run_in_child(trial, place.path, notes)
    finally:
        os._exit(code)


def run_in_child(trial: Trial, place: Path, notes: Path) -> int:
    """The trial with its output in files, within its limits and watched."""
    from models.fast.cpu.compiler import find_compiler

    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # not that of the test's own limit
    signal.alarm(15 * MOST_SECONDS)  # the machine may be busy
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(notes / name, os.O_WRONLY | os.O_CREAT, 0o600), number)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    os.chdir(place)
    os.environ["OPENLOOP_CACHE"] = str(place / "cache")
    watch = Watch(trial, place, find_compiler())
    sys.addaudithook(watch)
    try:
        code = trial.action()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    watch.busy = True
    (notes / "deeds").write_text("\n".join(watch.deeds), encoding="utf-8", errors="replace")
    sys.stdout.flush()
    sys.stderr.flush()
    return code
