"""What goes wrong with one process of a whole run ends all of them with one message, loses nothing,
and the run goes on."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.faults.shim import build_shim
from tests.ranks import environment_of, free_port
from tests.test_parallel import SETTINGS, assert_same, torchrun

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("signals_arrive"),
]
SAVING = SETTINGS | {"run": {"save_every": 2}}


@pytest.fixture
def alone(request, recipe, tmp_path):
    """A run of one process: its folder."""
    import train

    assert train.main(["--config", str(recipe(**SETTINGS)), "run.name=alone"]) == 0
    return tmp_path / "runs" / "alone"


def messages(told):
    """What openloop itself says of an error; torchrun's own lines stand below."""
    assert "gloo" not in told, told
    assert told.count("Traceback") <= 1, told  # torchrun's, of its ChildFailedError
    return re.findall(r"^train\.py: .*", told, re.MULTILINE)


def crash(what, rank, at, size, *words, **environment):
    """A run of tests/crashing.py; its status and what it said."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(size),
        "--master-port", str(free_port()), "tests/crashing.py", what, str(rank), str(at), *words,
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | environment,
        timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout


def goes_on(path, alone, name="crashed", size=2):
    """The run resumed: the same as one that nothing happened to."""
    code, told = torchrun(size, path, f"run.name={name}", "--resume")
    assert code == 0, told
    assert_same(alone, alone.parent / name)


def test_a_crash_between_agreement_and_rename_loses_one_checkpoint(recipe, alone):
    path = recipe(**SAVING)
    code, told = crash("rename", 0, 2, 2, "--config", str(path), "run.name=crashed")
    assert code == 1
    (message,) = messages(told)
    assert re.search(r"rank 0 \(host \S+, process \d+\) has gone", message)
    steps = [one.name for one in (alone.parent / "crashed/checkpoints").glob("step-*")]
    assert steps == ["step-00000002"]
    goes_on(path, alone)
    assert not list((alone.parent / "crashed/checkpoints").glob(".*"))


def test_a_full_disk_is_one_message_and_the_run_goes_on(recipe, alone, tmp_path):
    library, path = build_shim(tmp_path), recipe(**SAVING)
    if library is None:
        pytest.skip("needs a C compiler")
    full = {"LD_PRELOAD": str(library), "FULL": str(alone.parent / "crashed")}
    code, told = crash("disk", 0, 60, 2, "--config", str(path), "run.name=crashed", **full)
    assert code == 1
    (message,) = messages(told)
    assert re.match(r"train.py: rank 0 of 2: \[Errno 28\] No space left .*: '.*crashed", message)
    goes_on(path, alone)


@pytest.mark.parametrize(
    ("what", "rank", "says"),
    [
        ("evaluation", 1, "the rows of an evaluation are bad"),
        ("card", 0, "Input/output error: '.*README"),
    ],
)
def test_an_error_of_one_process_is_said_once_by_it(recipe, alone, what, rank, says):
    path = recipe(**SAVING)
    code, told = crash(what, rank, 1, 2, "--config", str(path), "run.name=crashed")
    assert code == 1
    (message,) = messages(told)
    assert re.match(f"train.py: rank {rank} of 2: .*{says}", message)
    goes_on(path, alone)


def test_a_loss_that_is_no_number_names_the_rows_of_all_processes(recipe):
    words = ["train.lr=1e38", "train.warmup=0", "train.max_grad_norm=0"]
    code, told = torchrun(2, recipe(**SETTINGS), "run.name=nan", *words)
    assert code == 1
    (message,) = messages(told)
    rows = re.search(r"Rows of this step: \[(.*?)\]", message)[1].split(", ")
    assert len(set(rows)) == 10  # five micro-batches of two rows
    assert len(re.findall(r"^  .*reviews.csv:\d+: ", told, re.MULTILINE)) == 10


def start_each(path, *words):
    """The processes of a run without torchrun, as srun would start them, each with words of its
    own."""
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, "train.py", "--config", str(path), "run.name=crashed", *own],
            cwd=ROOT, encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=environment_of(rank, len(words), port),
        )
        for rank, own in enumerate(words)
    ]  # fmt: skip


def test_processes_with_other_recipes_are_told_which_differ(recipe):
    started = start_each(recipe(**SAVING), ["train.lr=1e-3"], ["train.lr=2e-3"])
    told = "".join(process.communicate(timeout=120)[0] for process in started)
    assert [process.returncode for process in started] == [2, 2], told
    (message,) = messages(told)
    assert "rank 1 has other settings than rank 0" in message


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=["TERM", "INT", "HUP"]
)
def test_a_signal_to_one_process_saves_once_and_all_exit_by_it(recipe, tmp_path, number):
    path, run = recipe(**SAVING), tmp_path / "runs/crashed"
    # without torchrun, whose own status is 1
    started = start_each(path, ["train.epochs=999"], ["train.epochs=999"])
    while not list(run.glob("checkpoints/step-*")):
        time.sleep(0.02)
        ended = [process for process in started if process.poll() is not None]
        assert not ended, ended[0].communicate()[0]
    started[1].send_signal(number)
    started[1].send_signal(number)  # from a job's starter, and from torchrun: it is one
    told = "".join(process.communicate(timeout=120)[0] for process in started)
    assert [process.returncode for process in started] == [128 + number] * 2, told
    assert told.count("stopping once this step is saved") == 1
    (step,) = re.findall("stopped at step ([0-9]+), saved", told)
    assert (run / f"checkpoints/step-{int(step):08d}/manifest.json").exists()


def test_words_that_are_wrong_are_complained_of_once(recipe):
    code, told = torchrun(2, recipe(**SETTINGS), "--nonsense")
    assert code == 1
    assert told.count("unrecognized arguments") == 1, told
    code, told = torchrun(2, recipe(**SETTINGS), "train.nonsense=1")
    assert len(messages(told)) == 1


def test_a_folder_in_the_way_is_said_once(recipe, alone):
    code, told = torchrun(2, recipe(**SETTINGS), "run.name=alone")
    assert code == 1
    (message,) = messages(told)
    assert re.match("train.py: rank 0 of 2: .*holds a finished run; it is not touched", message)


def test_torchrun_starts_anew_after_a_kill_and_the_run_goes_on(recipe, alone):
    path = recipe(**SAVING)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts",
        "1", "--master-port", str(free_port()), "train.py", "--config", str(path),
        "run.name=crashed", "--resume",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    while not list((alone.parent / "crashed").glob("checkpoints/step-*")):
        time.sleep(0.05)
        assert process.poll() is None
    os.kill(ranks_of(process)[1], signal.SIGKILL)
    told = process.communicate(timeout=300)[0]
    assert process.returncode == 0, told
    assert "resuming from" in told
    assert_same(alone, alone.parent / "crashed")


def ranks_of(torchrun):
    """The processes that torchrun has started, by rank."""
    pids = {}
    with suppress(OSError):  # one may end meanwhile
        children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children")
        for pid in children.read_text(encoding="ascii").split():
            words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            named = dict(word.split(b"=", 1) for word in words if b"=" in word)
            if b"TORCHELASTIC_RUN_ID" in named:
                pids[int(named[b"RANK"])] = int(pid)
    return pids
