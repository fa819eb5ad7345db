"""However a command ends, it is with its status and at most one message, never with a traceback."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

import train
from job.ending import run_command
from models.methods.linears import is_linear

ROOT = Path(__file__).parent.parent


def fail(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("bad key"), 2, "x.py: bad key\n"),
        (OSError(28, "No space left on device"), 2, "x.py: [Errno 28] No space left on device\n"),
        (KeyboardInterrupt(), 130, "x.py: interrupted; go on with --resume\n"),
        (RuntimeError("can't start new thread"), 2, "x.py: can't start new thread: memory or"),
        (MemoryError(), 2, "x.py: out of memory: memory or threads are limited here"),
        (ImportError("libx.so: failed to map segment from shared object"), 2, "x.py: libx.so:"),
    ],
)
def test_each_error_of_a_user_has_its_status_and_one_message(error, status, message, capsys):
    assert run_command("x.py", fail(error), "go on with --resume") == status
    told = capsys.readouterr().err
    assert told.startswith(message)
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("models.load.AutoConfig.from_pretrained", RuntimeError("can't start new thread")),
        ("models.load.AutoTokenizer.from_pretrained", MemoryError()),
        ("models.load.load_file", OSError(12, "Cannot allocate memory")),
        ("models.counted.copy.deepcopy", TypeError("Cannot allocate memory")),
        ("transformers.BertModel.from_pretrained", RuntimeError("can't start new thread")),
        ("job.training.labelled.measure_needs", RuntimeError("can't start new thread")),
    ],
)
def test_a_limit_is_said_as_one_wherever_a_start_meets_it(
    recipe, monkeypatch, capsys, place, error
):
    def meet(*arguments, **named):
        raise error

    monkeypatch.setattr(place, meet)
    assert train.main(["--config", str(recipe(speed={"plain": True}))]) == 2
    told = capsys.readouterr().err
    assert "limited here" in told or told.startswith("train.py: [Errno 12]")
    assert len(told.splitlines()) == 1


def test_a_limit_leaves_no_layer_unadapted():
    class Own(nn.Linear):
        def forward(self, x):
            raise RuntimeError("can't start new thread")

    with pytest.raises(RuntimeError, match="thread"):
        is_linear(Own(2, 2))


def test_an_error_of_ours_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="ours"):
        run_command("x.py", fail(RuntimeError("ours")))


def run(words, redirect="", limit=None, **named):
    """A script as a shell starts it; status and what it printed on both streams."""
    command = f'exec "{sys.executable}" "$@" {redirect}'
    done = subprocess.run(
        ["sh", "-c", command, "sh", *map(str, words)], cwd=ROOT, encoding="utf-8",
        capture_output=True, timeout=100, preexec_fn=limit, **named,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "redirect",
    [
        "<&- >&- 2>&-",
        *(pytest.param(r, marks=pytest.mark.slow) for r in (">&-", "2>&-", ">&- 2>&-")),
    ],
)
@pytest.mark.parametrize("script", ["train.py", "predict.py", "serve.py", "compare.py", "check.py"])
def test_closed_streams_end_nothing_and_are_not_written_into_files(tmp_path, script, redirect):
    words = {
        "train.py": ["--config", "none.toml"],
        "predict.py": ["--run", tmp_path, "text"],
        "serve.py": ["--run", tmp_path, "--port", "0"],
        "compare.py": [tmp_path],
        "check.py": ["--config", "none.toml"],
    }[script]
    status, told = run([script, *words], redirect)
    assert status == 2
    assert "Traceback" not in told
    assert ("none.toml" in told or "no run folder" in told or "not a run" in told) == (
        "2>&-" not in redirect
    )


FILES = """
import sys
from job.console import prepare_console
prepare_console()
file = open(sys.argv[1], "w", encoding="utf-8")
import os
os.write(1, b"printed by a library")
file.write("mine")
"""


def test_a_file_never_gets_the_number_of_a_closed_stream(tmp_path):
    status, told = run(
        ["-c", FILES, tmp_path / "a"], ">&- 2>&-", env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert (status, told) == (0, "")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "mine"


PRINTING = """
import sys
from job.console import prepare_console
from job.ending import run_command
prepare_console()
sys.exit(run_command("x.py", lambda: print("a line\\n" * int(sys.argv[1]))))
"""


@pytest.mark.parametrize("lines", [1, 100_000])  # met at the flush at the end, and before it
def test_a_pipe_that_nobody_reads_ends_with_141_and_no_traceback(lines):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", PRINTING, str(lines)], cwd=ROOT, stdout=write,
        stderr=subprocess.PIPE, encoding="utf-8", timeout=100,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such limit")
@pytest.mark.parametrize("megabytes", [300, 700])
def test_a_limit_on_memory_ends_with_a_message(recipe, megabytes):
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    status, told = run(["train.py", "--config", recipe(), "--dry-run"], limit=limit)
    assert status in (0, 2), told
    assert "Traceback" not in told
